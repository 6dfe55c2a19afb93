"""The neck in its two forms: the coarser features up-sampled and then convolved, or the other way round."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from model.config import NeckConfig, NetworkConfig
from model.network.neck import STRIDES, Neck
from model.recipes import recipe

ENCODER = {2: 3, 4: 4, 8: 5, 16: 6, 32: 7}
CONFIG = NeckConfig((8, 7, 6), (1, 2, 0))


def features(height: int = 64, width: int = 96) -> dict[int, Tensor]:
    torch.manual_seed(1)
    return {stride: torch.rand(2, c, height // stride, width // stride) for stride, c in ENCODER.items()}


def both_forms() -> tuple[Neck, Neck]:
    """With the same weights: the coarse part's are those of the first inputs of the whole."""
    torch.manual_seed(0)
    up_first, coarse_first = Neck(ENCODER, CONFIG), Neck(ENCODER, replace(CONFIG, coarse_first=True))
    weights = up_first.state_dict()
    for stride in STRIDES:
        name = f"fuse.{stride}.weight"
        coarse = coarse_first.coarse[str(stride)].weight.shape[1]
        whole = weights[name]
        weights[f"coarse.{stride}.weight"], weights[name] = whole[:, :coarse], whole[:, coarse:]
        weights[f"coarse.{stride}.bias"] = torch.zeros(whole.shape[0])
    coarse_first.load_state_dict(weights)
    return up_first, coarse_first


def test_both_forms_give_the_same_shapes_at_the_strides_they_promise() -> None:
    up_first, coarse_first = both_forms()
    made, also = up_first(features()), coarse_first(features())
    assert up_first.channels == coarse_first.channels
    for stride, channels in up_first.channels.items():
        assert made[stride].shape == also[stride].shape == (2, channels, 64 // stride, 96 // stride)
    torch.testing.assert_close(also[32], made[32])


def test_a_convolution_of_single_pixels_may_come_before_or_after_the_up_sampling() -> None:
    up_first, coarse_first = both_forms()
    with torch.no_grad():
        for neck in (up_first, coarse_first):
            for conv in (*neck.fuse.values(), *neck.coarse.values()):
                centre = conv.weight[:, :, 1, 1].clone()
                conv.weight.zero_()
                conv.weight[:, :, 1, 1] = centre
        made, also = up_first(features()), coarse_first(features())
    for stride in made:
        torch.testing.assert_close(also[stride], made[stride])


def test_without_the_option_weights_have_the_names_that_they_always_had() -> None:
    names = Neck(ENCODER, CONFIG).state_dict().keys()
    assert {name.split(".")[0] for name in names} == {"detail", "fuse", "deepen"}


def test_a_configuration_from_before_the_option_is_read() -> None:
    config = recipe("light").to_dict()
    config["neck"] = {"channels": [160, 96, 64], "depth": [1, 1, 0]}
    assert NetworkConfig.from_dict(config).neck == NeckConfig((160, 96, 64), (1, 1, 0), coarse_first=False)
