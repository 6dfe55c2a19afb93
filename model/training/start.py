"""The weights that a run starts from: ImageNet's in its encoders, or those of another run or a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric
from torch import Tensor

from model.config import NetworkConfig
from model.network import S2Spp
from model.network.encoders import MobileNetV2
from model.training.batches import batches
from model.training.checkpoint import Checkpoint
from model.training.config import TrainConfig
from model.training.narrow import narrow

# Beyond it a narrower encoder comes little closer: 5.9 % of the variance were lost after 100 steps, 5.3 % after 400.
_STEPS = 200
_CLIPS = 4


@dataclass(frozen=True)
class Fitting:
    """What an encoder is fitted with that is narrower than the published one: the frames of the run's first clips."""

    train: TrainConfig
    data: Path
    workers: int
    fabric: Fabric

    def narrowed(self, network: S2Spp, published: MobileNetV2) -> str:
        """Does it, and says so. Minutes on a CPU."""
        encoder = network.encoder
        assert isinstance(encoder, MobileNetV2)
        steps = min(_STEPS, self.train.steps)
        off = narrow(encoder, published, self._pictures(network.config), steps, self.fabric)
        return f"its first {len(encoder.early)} blocks narrowed to {encoder.early} channels, {off:.1%} of variance lost"

    def _pictures(self, network: NetworkConfig) -> Iterator[Tensor]:
        """[B,3,H,W] in 0..255, the same on every rank."""
        for _, _, batch in batches(self.train, network, self.data, 0, 0, self.workers):
            # The first and the last of a clip: those between are much like them.
            yield batch.frames[:_CLIPS, [0, -1]].flatten(0, 1).float()


def start_weights(network: S2Spp, encoder_weights: Path | None, init_from: Path | None, fitting: Fitting) -> str:
    """Load what the run starts from and say what that was; see RunOptions. `fitting`: for an encoder that is narrower
    than what it starts from. Raises ValueError for weights that do not fit."""
    if init_from is not None:
        return _start_from(network, init_from, fitting)
    if encoder_weights is None:
        return "no encoder weights given: everything starts from random values"
    said = _load_published(network, encoder_weights, fitting)
    if network.initializer.encoder is not None:
        network.initializer.encoder.load_pretrained(encoder_weights)
    return said


def _load_published(network: S2Spp, path: Path, fitting: Fitting) -> str:
    if not network.config.early:
        return network.encoder.load_pretrained(path)
    published = MobileNetV2()
    return f"{published.load_pretrained(path)}, {fitting.narrowed(network, published)}"


def _start_from(network: S2Spp, path: Path, fitting: Fitting) -> str:
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
    taken = {name: tensor for name, tensor in weights.items() if name in ours and ours[name].shape == tensor.shape}
    if not taken:
        raise ValueError(f"{path}: none of its weights fits this network")
    network.load_state_dict(taken, strict=False)
    missing = {name for name in ours.keys() - taken.keys() if name.startswith("encoder.")}
    narrowed = ""
    if missing:
        published = _published(weights)
        if published is None or not network.config.early:
            raise ValueError(f"{path}: its encoder is another one than this network's")
        narrowed = f"; of its encoder {fitting.narrowed(network, published)}"
    anew = sorted({name.split(".")[0] for name in ours.keys() - taken.keys() - missing})
    rest = f"; something in {', '.join(anew)} does not fit and starts anew" if anew else ""
    return f"starting from {len(taken)} of {len(ours)} weights of {path}{narrowed}{rest}"


def _published(weights: Mapping[str, Tensor]) -> MobileNetV2 | None:
    """The frames' encoder of a network, where it is a MobileNetV2 of the published widths."""
    encoder, prefix = MobileNetV2(), "encoder."
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    try:
        encoder.load_state_dict(own)
    except RuntimeError:  # other names or shapes
        return None
    return encoder
