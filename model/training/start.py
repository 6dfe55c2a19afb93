"""The weights that a run starts from: ImageNet's in its encoders, or those of another run or a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from torch import Tensor

from model.config import NetworkConfig
from model.network import S2Spp
from model.network.encoders import Encoder, MobileNetV2
from model.training.batches import batches
from model.training.checkpoint import Checkpoint
from model.training.config import TrainConfig
from model.training.narrow import narrow

# Beyond it a narrower encoder comes little closer: 5.9 % of the variance were lost after 100 steps, 5.3 % after 400.
_FIT_STEPS = 300


def first_pictures(config: TrainConfig, network: NetworkConfig, data: Path, workers: int) -> Iterator[Tensor]:
    """Frames of the run's first clips [B,3,H,W] in 0..255, the same on every rank."""
    for _, _, batch in islice(batches(config, network, data, 0, 0, workers), _FIT_STEPS):
        # The first and the last of each clip: those between are much like them.
        yield batch.frames[:, [0, -1]].flatten(0, 1).float()


def start_weights(
    network: S2Spp, encoder_weights: Path | None, init_from: Path | None, pictures: Iterator[Tensor]
) -> str:
    """Load what the run starts from and say what that was; see RunOptions. `pictures`: asked for where the encoder is
    narrower than what it starts from. Raises ValueError for weights that do not fit."""
    if init_from is not None:
        return _start_from(network, init_from, pictures)
    if encoder_weights is None:
        return "no encoder weights given: everything starts from random values"
    said = _load_published(network.encoder, encoder_weights, pictures)
    if network.initializer.encoder is not None:
        network.initializer.encoder.load_pretrained(encoder_weights)
    return said


def _load_published(encoder: Encoder, path: Path, pictures: Iterator[Tensor]) -> str:
    if not isinstance(encoder, MobileNetV2) or not encoder.early:
        return encoder.load_pretrained(path)
    published = MobileNetV2()
    return f"{published.load_pretrained(path)}, {_narrowed(encoder, published, pictures)}"


def _narrowed(encoder: MobileNetV2, published: MobileNetV2, pictures: Iterator[Tensor]) -> str:
    off = narrow(encoder, published, pictures, _FIT_STEPS)
    return f"its first {len(encoder.early)} blocks narrowed to {encoder.early} channels, {off:.1%} of the variance lost"


def _start_from(network: S2Spp, path: Path, pictures: Iterator[Tensor]) -> str:
    """Take every weight that fits from a checkpoint or a bundle; `network` may be another one than was trained, and its
    encoder a narrower one."""
    if path.is_dir():
        # Here, since it brings onnx, which no other run needs.
        from model.export.weights import bundle_weights

        weights = bundle_weights(path)
    else:
        start = Checkpoint.load(path)
        weights = start.averaged or start.weights
    ours = network.state_dict()
    fitting = {name: tensor for name, tensor in weights.items() if name in ours and ours[name].shape == tensor.shape}
    if not fitting:
        raise ValueError(f"{path}: none of its weights fits this network")
    network.load_state_dict(fitting, strict=False)
    missing = {name for name in ours.keys() - fitting.keys() if name.startswith("encoder.")}
    narrowed = ""
    if missing:
        published = _published(weights)
        if published is None or not isinstance(network.encoder, MobileNetV2) or not network.encoder.early:
            raise ValueError(f"{path}: its encoder is another one than this network's")
        narrowed = f"; of its encoder {_narrowed(network.encoder, published, pictures)}"
    anew = sorted({name.split(".")[0] for name in ours.keys() - fitting.keys() - missing})
    rest = f"; something in {', '.join(anew)} does not fit and starts anew" if anew else ""
    return f"starting from {len(fitting)} of {len(ours)} weights of {path}{narrowed}{rest}"


def _published(weights: Mapping[str, Tensor]) -> MobileNetV2 | None:
    """The frames' encoder of a network, where it is a MobileNetV2 of the published widths."""
    encoder, prefix = MobileNetV2(), "encoder."
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    try:
        encoder.load_state_dict(own)
    except RuntimeError:  # other names or shapes
        return None
    return encoder
