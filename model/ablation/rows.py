"""What is compared, and how each of it is trained."""

from __future__ import annotations

from dataclasses import dataclass

from model.predict import Way
from model.training.config import SourceConfig, Stage, TrainConfig, photos
from model.training.losses import LossConfig


@dataclass(frozen=True)
class Compared:
    """A row of the table. `network`: a recipe, at the small size. `against`: the row that it is set against. A `way`
    that is not plain trains nothing: it follows with the weights of the row of its network."""

    title: str
    network: str
    against: str | None
    learned_weights: bool = False
    way: Way = "plain"


ROWS = {
    "base": Compared("S2S", "base", None),
    "base_multitask": Compared("S2S + multi-task", "base_multitask", "base"),
    "one_skip": Compared("S2S + one skip-memory", "one_skip", "base"),
    "one_skip_multitask": Compared("S2S + one skip-memory + multi-task", "one_skip_multitask", "one_skip"),
    "paper": Compared("S2S++: two skip-memories + multi-task, (R, s) = (20, 1)", "paper", "one_skip_multitask"),
    "border_20_10": Compared("S2S++, (R, s) = (20, 10)", "border_20_10", "paper"),
    "border_10_1": Compared("S2S++, (R, s) = (10, 1)", "border_10_1", "paper"),
    "mask_guidance": Compared("S2S++, previous mask instead of the ConvLSTM", "mask_guidance", "paper"),
    "attention": Compared("S2S++ + attention to the first and the previous frame", "attention", "paper"),
    "previous_mask": Compared("S2S++ + the previous mask as a cue", "previous_mask", "paper"),
    "learned_weights": Compared("S2S++, learned task weights", "paper", "paper", learned_weights=True),
    "distance_regression": Compared("S2S++, distance regressed", "distance_regression", "paper"),
    "refined": Compared("S2S++, edges refined at the frame's resolution", "paper", "paper", way="refined"),
    "following": Compared("S2S++, a window that follows small objects", "paper", "paper", way="following"),
}
"""The paper's tables II and III and its section III-A; then what goes beyond the paper."""

SEEDS = (0, 1, 2)
ENDS = ("base", "paper")
"""The rows that are trained with every seed: how far apart two runs of one row are."""

HELD_OUT = ("bmx-bumps", "dance-jump", "mallard-fly", "motocross-bumps", "paragliding", "soccerball")
"""Videos of the training split that are scored, with the tune split, and so not trained on: small objects and fast
ones among them."""


@dataclass(frozen=True)
class Row:
    """A run: a `key` of ROWS, and a seed."""

    key: str
    seed: int

    @property
    def compared(self) -> Compared:
        return ROWS[self.key]

    @property
    def name(self) -> str:
        return f"{self.key}-{self.seed}"

    @property
    def weights(self) -> str:
        """Name of the run whose weights it follows with: its own, or that of its network."""
        return self.name if self.compared.way == "plain" else f"{self.compared.network}-{self.seed}"


def all_rows() -> list[Row]:
    """The first seed of everything, then the other seeds of the two ends: an early stop leaves a whole table."""
    return [Row(key, SEEDS[0]) for key in ROWS] + [Row(end, seed) for seed in SEEDS[1:] for end in ENDS]


def training(row: Row, steps: int) -> TrainConfig:
    """The same for every row: 128 x 224, clips of 4 to 8 frames, half of them real, the camera drawing nearer or away
    in 0.3 of those (which is not the paper's). Eq. 5 and 7 with lambda 0.8; b of eq. 5 is capped at 0.9, which is below
    what it would be wherever the object covers less than a tenth of the frame."""
    videos = SourceConfig("davis", "davis2016", 0.5, "train", exclude=HELD_OUT, dolly_odds=0.3)
    return TrainConfig(
        network=f"{row.compared.network}@small",
        stages=(Stage(steps, (128, 224), 4, 8, 4, 4e-4, (videos, *photos(0.5))),),
        loss=LossConfig(0.8, 0.0, 0.2, balance_limit=0.9, learned_weights=row.compared.learned_weights),
        ema=0.995,
        seed=row.seed,
    )
