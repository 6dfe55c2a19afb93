"""Training configuration and its named recipes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from model.data.clip import ClipSource
from model.data.davis import DavisDataset, trainable
from model.data.sequence import Sequence
from model.data.stills import StillSource
from model.data.video_source import VideoConfig, VideoSource
from model.data.youtube_vos import YoutubeVosDataset
from model.training.losses import LossConfig

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class SourceConfig:
    """One source of clips, its path relative to the data root. `paste_odds`, `dolly_odds`: see VideoConfig;
    `exclude`: videos by name that are left out, beside those that choose between models."""

    kind: Literal["davis", "youtube_vos", "stills"]
    path: str
    weight: float
    split: str | None = None
    paste_odds: float = 0.0
    exclude: tuple[str, ...] = ()
    dolly_odds: float = 0.0

    @property
    def place(self) -> Hashable:
        """What is opened, whatever its weight."""
        return replace(self, weight=0.0)

    def open(self, root: Path) -> ClipSource:
        path = root / self.path
        if self.kind == "davis":
            return self._videos(DavisDataset(path, self.split).sequences)
        if self.kind == "youtube_vos":
            return self._videos(YoutubeVosDataset(path).sequences)
        backgrounds = root / "backgrounds"
        return StillSource(path, backgrounds if backgrounds.is_dir() else None)

    def _videos(self, sequences: list[Sequence]) -> VideoSource:
        kept = [sequence for sequence in trainable(sequences) if sequence.name not in self.exclude]
        return VideoSource(self.path, kept, VideoConfig(paste_odds=self.paste_odds, dolly_odds=self.dolly_odds))


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum: so many steps at one frame size (height, width), the clips' length growing
    from `first_length` to `last_length`, and so many frames more, the `gap` in the middle of the clip, through which
    the network runs without learning (see S2Spp.forward)."""

    steps: int
    size: tuple[int, int]
    first_length: int
    last_length: int
    batch: int
    lr: float
    sources: tuple[SourceConfig, ...]
    gap: int = 0


@dataclass(frozen=True)
class TrainConfig:
    """`network`: a recipe of model.recipes. `encoder_lr`: the encoders' share of the learning rate. `frozen`: the
    frames' encoder keeps the weights it starts with up to this stride (0: none).
    `schedule`: cosine over all stages down to 2 %, or the paper's x0.99 every `decay_every` steps.
    `weight_decay`: of weights, never of biases. `ema`: decay of the averaged weights that are exported; 0
    exports the raw ones. `first_mask_noise`: odds that the first mask is a bit wrong; `absence`: that the object is
    out of sight for a while (see model.data.absence). `precision`: of the arithmetic; float16 is left out, since it
    needs a loss scale that a checkpoint would have to carry."""

    network: str
    stages: tuple[Stage, ...]
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: Literal["adam", "adamw"] = "adamw"
    encoder_lr: float = 0.25
    frozen: int = 0
    weight_decay: float = 0.01
    warmup: int = 100
    schedule: Literal["cosine", "paper"] = "cosine"
    decay_every: int = 4000
    clip_norm: float = 1.0
    ema: float = 0.0
    first_mask_noise: float = 0.0
    absence: float = 0.0
    precision: Precision = "bf16-mixed"
    seed: int = 0

    def check(self, multiple: int) -> None:
        """ValueError, saying what to change, for stages that a network cannot be trained with. (Not done when
        a configuration is made: checkpoints of earlier versions stay readable.)"""
        if not self.stages:
            raise ValueError("a training configuration needs a stage")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision {self.precision!r}; there are {', '.join(get_args(Precision))}")
        if self.frozen not in (0, 2, 4, 8, 16, 32):
            raise ValueError(f"frozen is a stride of the encoder, 2 to 32, or 0; got {self.frozen}")
        for number, stage in enumerate(self.stages, start=1):
            if stage.size[0] % multiple or stage.size[1] % multiple:
                raise ValueError(f"stage {number}: sides of {stage.size} must be multiples of {multiple}")
            if not 3 <= stage.first_length <= stage.last_length:
                # What a step leaves behind is learned from the step after it.
                raise ValueError(f"stage {number}: clips have 3 frames or more, and never grow shorter")

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> TrainConfig:
        stages = tuple(
            Stage(**{**s, "size": tuple(s["size"]), "sources": tuple(_source(x) for x in s["sources"])})
            for s in data["stages"]
        )
        return TrainConfig(**{**data, "stages": stages, "loss": LossConfig(**data["loss"])})


def _source(data: dict[str, Any]) -> SourceConfig:
    # Before it was a setting, 0.3 of all real clips were made so.
    then = 0.0 if data["kind"] == "stills" else 0.3
    return SourceConfig(**{"dolly_odds": then, **data, "exclude": tuple(data.get("exclude", ()))})


def photos(share: float) -> tuple[SourceConfig, ...]:
    """The photo sets, each drawn about as often as it is large."""
    sizes = {"coco": 800, "ecssd": 1000, "sod": 300, "horses": 328, "ccp": 1003}
    total = sum(sizes.values())
    return tuple(SourceConfig("stills", f"stills/{name}", share * size / total) for name, size in sizes.items())


_PASTED = 0.4
"""The share of real clips that get a second object."""
_DOLLY = 0.3
"""The share of real clips through which the camera draws nearer or away."""


def _mixed(real: float) -> tuple[SourceConfig, ...]:
    """`real`: the share of clips from real video; the others are made from photos."""
    return (
        SourceConfig("davis", "davis2016", 0.96 * real, "train", _PASTED, dolly_odds=_DOLLY),
        SourceConfig("davis", "pumavos", 0.04 * real, dolly_odds=_DOLLY),
        *photos(1.0 - real),
    )


# A limit of 0.5, plain cross-entropy in effect, draws exact masks that lose piece after piece of the object over a long
# clip; without one (eq. 5), they are drawn too large.
_LIGHT_LOSS = LossConfig(bce=0.6, jaccard=0.4, distance=0.1, balance_limit=0.85)


def light_cpu() -> TrainConfig:
    """About two and a half hours on two CPU cores: small frames first, then longer clips, then larger frames."""
    return TrainConfig(
        network="light",
        stages=(
            Stage(2200, (128, 224), 3, 5, 6, 6e-4, _mixed(0.3)),
            Stage(1000, (128, 224), 6, 9, 4, 5e-4, _mixed(0.5)),
            Stage(1600, (192, 320), 6, 8, 4, 4e-4, _mixed(0.5), gap=6),
            Stage(900, (256, 448), 6, 7, 3, 3e-4, _mixed(0.5), gap=10),
        ),
        loss=_LIGHT_LOSS,
        ema=0.996,
        frozen=4,
        first_mask_noise=0.2,
        absence=0.15,
    )


def light_cpu_refine() -> TrainConfig:
    """Goes on from a checkpoint or a bundle (--init-from), with frames that grow up to the size that is served."""
    return TrainConfig(
        network="light",
        stages=(
            Stage(800, (128, 224), 4, 6, 6, 5e-4, _mixed(0.4)),
            Stage(1600, (192, 320), 6, 8, 4, 4e-4, _mixed(0.5), gap=6),
            Stage(900, (256, 448), 6, 7, 3, 3e-4, _mixed(0.5), gap=10),
        ),
        loss=_LIGHT_LOSS,
        ema=0.996,
        frozen=4,
        first_mask_noise=0.2,
        absence=0.15,
    )


def light_gpu() -> TrainConfig:
    """The shipped network with YouTube-VOS on a GPU: photos first, then real clips that grow to 12 frames and more."""
    videos = (
        SourceConfig("youtube_vos", "youtube-vos/train", 0.65, paste_odds=_PASTED, dolly_odds=_DOLLY),
        SourceConfig("davis", "davis2016", 0.15, "train", _PASTED, dolly_odds=_DOLLY),
        *photos(0.2),
    )
    return TrainConfig(
        network="light",
        stages=(
            Stage(20_000, (256, 448), 3, 6, 16, 4e-4, photos(1.0)),
            Stage(40_000, (256, 448), 5, 12, 12, 4e-4, videos),
            Stage(15_000, (256, 448), 8, 12, 8, 2e-4, videos, gap=24),
        ),
        loss=_LIGHT_LOSS,
        ema=0.9995,
        frozen=4,
        first_mask_noise=0.2,
        absence=0.15,
    )


def paper_gpu() -> TrainConfig:
    """The paper's own settings on YouTube-VOS (section IV): Adam 1e-5, batch 4, length 5 to 12, 256 x 448."""
    youtube = (SourceConfig("youtube_vos", "youtube-vos/train", 1.0),)
    return TrainConfig(
        network="paper",
        stages=(Stage(150_000, (256, 448), 5, 12, 4, 1e-5, youtube),),
        loss=LossConfig(bce=0.8, jaccard=0.0, distance=0.2),
        optimizer="adam",
        encoder_lr=1.0,
        weight_decay=0.0,
        warmup=0,
        schedule="paper",
    )


def smoke() -> TrainConfig:
    """A minute on a CPU: shows that the loop runs, teaches nothing. Needs the photos only."""
    return TrainConfig(
        network="light",
        stages=(Stage(20, (64, 96), 3, 3, 2, 4e-4, photos(1.0)),),
        loss=LossConfig(bce=0.6, jaccard=0.4, distance=0.1, balance_limit=0.9),
        warmup=5,
        precision="32-true",
    )


GOES_ON = frozenset({light_cpu_refine.__name__})
"""Recipes that begin with the weights of a trained network."""
TRAIN_RECIPES = {recipe.__name__: recipe for recipe in (light_cpu, light_cpu_refine, light_gpu, paper_gpu, smoke)}
