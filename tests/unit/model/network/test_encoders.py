"""Encoders: their strides, their start, and loading ImageNet weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.network.encoders import VGG16, MobileNetV2, build_encoder


def convs(module: nn.Module) -> list[nn.Conv2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def weights_of(names: list[str], layers: list[nn.Conv2d]) -> dict[str, Tensor]:
    """Random weights of the layers' own shapes, for three input channels, under `names`."""
    made = {}
    for name, conv in zip(names, layers, strict=True):
        shape = list(conv.weight.shape)
        shape[1] = 3 if shape[1] == 4 else shape[1]
        made |= {f"{name}.weight": torch.randn(shape).half(), f"{name}.bias": torch.randn(shape[0]).half()}
    return made


VGG_NAMES = [f"conv{block}_{conv}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for conv in range(1, count + 1)]


@pytest.mark.parametrize("kind", [VGG16, MobileNetV2])
@pytest.mark.parametrize("channels", [3, 4])
def test_features_come_at_five_strides_and_are_alive(kind: type[VGG16 | MobileNetV2], channels: int) -> None:
    torch.manual_seed(0)
    encoder = kind(channels)
    image = torch.rand(1, channels, 64, 96) * torch.tensor([255.0, 255, 255, 1])[:channels, None, None]
    features = encoder(image)
    assert {s: tuple(f.shape) for s, f in features.items()} == {
        s: (1, c, 64 // s, 96 // s) for s, c in encoder.channels.items()
    }
    assert sorted(features) == [2, 4, 8, 16, 32]
    # Untrained weights must let the picture through: neither vanish nor explode on the way down.
    assert all(0.001 < float(f.detach().std()) < 30 for f in features.values())


def test_vgg_says_what_was_not_in_the_file(tmp_path: Path) -> None:
    encoder = VGG16()
    made = weights_of(VGG_NAMES[:7], convs(encoder)[:7])
    save_file(made, tmp_path / "vgg.safetensors")
    said = encoder.load_pretrained(tmp_path / "vgg.safetensors")
    assert "7 of 13" in said and "conv4_1" in said and "conv5_3" in said and "Xavier" in said
    for name, conv in zip(VGG_NAMES[:7], convs(encoder)[:7], strict=True):
        torch.testing.assert_close(conv.weight.data, made[f"{name}.weight"].float())
    rest = convs(encoder)[7]
    bound = (6 / (rest.weight.shape[1] * 9 + rest.weight.shape[0] * 9)) ** 0.5
    assert bound * 0.99 < float(rest.weight.detach().abs().max()) <= bound


def test_a_whole_vgg_file_is_loaded_whole(tmp_path: Path) -> None:
    encoder = VGG16()
    save_file(weights_of(VGG_NAMES, convs(encoder)), tmp_path / "whole.safetensors")
    said = encoder.load_pretrained(tmp_path / "whole.safetensors")
    assert "13 of 13" in said and "Xavier" not in said


def test_mobilenet_loads_by_order_and_the_mask_channel_keeps_its_start(tmp_path: Path) -> None:
    encoder = build_encoder("mobilenet_v2", 4)
    layers = convs(encoder)
    own = layers[0].weight.detach()[:, 3].clone()
    names = [f"{number:02}_conv" for number in range(len(layers) + 2)]
    more = {f"{name}.{part}": torch.zeros(5) for name in names[-2:] for part in ("weight", "bias")}
    made = weights_of(names[:-2], layers)
    save_file(made | more, tmp_path / "mobilenet.safetensors")
    assert "48 of 48" in encoder.load_pretrained(tmp_path / "mobilenet.safetensors")
    torch.testing.assert_close(layers[0].weight.detach()[:, :3], made["00_conv.weight"].float())
    torch.testing.assert_close(layers[0].weight.detach()[:, 3], own)
    torch.testing.assert_close(layers[-1].weight.detach(), made["47_conv.weight"].float())


@pytest.mark.parametrize("name", ["vgg16", "mobilenet_v2"])
def test_weights_of_another_network_are_refused(tmp_path: Path, name: str) -> None:
    encoder = build_encoder(name)  # type: ignore[arg-type]
    save_file({"fc.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors"):
        encoder.load_pretrained(tmp_path / "other.safetensors")
    names = VGG_NAMES if name == "vgg16" else [f"{number:02}_conv" for number in range(48)]
    wrong = weights_of(names, convs(encoder))
    wrong[f"{names[1]}.weight"] = torch.zeros(7, 7, 3, 3)
    save_file(wrong, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=names[1]):
        encoder.load_pretrained(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        encoder.load_pretrained(tmp_path / "missing.safetensors")
