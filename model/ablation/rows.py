"""What is compared: the rows of the paper's tables II and III and of section III-A, and how each is trained."""

from __future__ import annotations

from dataclasses import dataclass

from model.training.config import SourceConfig, Stage, TrainConfig, photos
from model.training.losses import LossConfig

# recipe -> what the paper calls it
ROWS = {
    "base": "S2S",
    "base_multitask": "S2S + multi-task",
    "one_skip": "S2S + one skip-memory",
    "one_skip_multitask": "S2S + one skip-memory + multi-task",
    "paper": "S2S + two skip-memories + multi-task, (R, s) = (20, 1)",
    "border_20_10": "the same, (R, s) = (20, 10)",
    "border_10_1": "the same, (R, s) = (10, 1)",
    "mask_guidance": "the same, previous mask instead of the ConvLSTM",
}
SEEDS = (0, 1, 2)
ENDS = ("base", "paper")
"""The rows that are trained with every seed: how far apart two runs of one row are."""

HELD_OUT = ("bmx-bumps", "dance-jump", "mallard-fly", "motocross-bumps", "paragliding", "soccerball")
"""Videos of the training split that are scored, with the tune split, and so not trained on: small objects and fast
ones among them."""


@dataclass(frozen=True)
class Row:
    recipe: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.recipe}-{self.seed}"


def all_rows() -> list[Row]:
    """The first seed of everything, then the other seeds of the two ends: an early stop leaves a whole table."""
    return [Row(recipe, SEEDS[0]) for recipe in ROWS] + [Row(end, seed) for seed in SEEDS[1:] for end in ENDS]


def training(row: Row, steps: int) -> TrainConfig:
    """The same for every row: 128 x 224, clips of 4 to 8 frames, half of them real. Eq. 5 and 7 with lambda 0.8."""
    videos = SourceConfig("davis", "davis2016", 0.5, "train", exclude=HELD_OUT)
    return TrainConfig(
        network=f"{row.recipe}@small",
        stages=(Stage(steps, (128, 224), 4, 8, 4, 4e-4, (videos, *photos(0.5))),),
        loss=LossConfig(bce=0.8, jaccard=0.0, distance=0.2, balance_limit=0.9),
        ema=0.995,
        seed=row.seed,
    )
