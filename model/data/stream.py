"""The deterministic stream of training batches: the same step gives the same batch, on every run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.data.absence import SHORTEST, cut_away, look_away
from model.data.augment import corrupt_mask
from model.data.clip import Clip, ClipSource, NotVisibleError
from model.data.read import DataError

TRIES = 100
"""Draws per item before the stream gives up: sources this poor are a mistake in the set-up."""


@dataclass(frozen=True)
class ClipBatch:
    """B clips of T frames. `first_masks_BHW` is what the initializer sees: the first masks, possibly worn."""

    frames_BTHWC: NDArray[np.uint8]
    masks_BTHW: NDArray[np.uint8]
    first_masks_BHW: NDArray[np.uint8]
    names: tuple[str, ...]


@dataclass(frozen=True)
class GrowingLength:
    """Clip length grown in equal parts from `first` to `last`, inclusive, over `steps` (paper: 5 to 12)."""

    first: int
    last: int
    steps: int

    def __call__(self, step: int) -> int:
        done = min(step / max(self.steps, 1), 1.0)
        return min(self.last, self.first + int(done * (self.last - self.first + 1)))


@dataclass(frozen=True)
class StreamConfig:
    """What a stream draws: weighted sources, items per batch, frame size (H, W), clip length at a step; the odds that
    the first mask is worn, and that the object is out of sight for a while."""

    sources: tuple[tuple[ClipSource, float], ...]
    batch: int
    seed: int
    size: tuple[int, int]
    length: Callable[[int], int]
    corrupt_odds: float = 0.0
    absence_odds: float = 0.0


class ClipStream:
    """Batches as a pure function of (seed, step): a resumed run goes on with the batches it would have had.

    Every item of a batch is one object of a DIFFERENT sequence (paper section IV-E).
    """

    def __init__(self, config: StreamConfig) -> None:
        self.config = config
        weights = np.array([weight for _, weight in config.sources], dtype=np.float64)
        if not len(weights) or (weights < 0).any() or weights.sum() <= 0:
            raise ValueError("a stream needs a source with a weight above 0, and no weight below 0")
        self._shares = weights / weights.sum()
        drawn = [source for source, weight in config.sources if weight > 0]
        names = {source.sequence(i) for source in drawn for i in range(len(source))}
        # One more, that another shot may be cut in from.
        needed = config.batch + (config.absence_odds > 0)
        if len(names) < needed:
            raise ValueError(
                f"a batch of {config.batch} needs {needed} different sequences, but the sources hold {len(names)}: "
                "lower the batch size or add data"
            )

    def batch(self, step: int) -> ClipBatch:
        """Draw the batch of `step`. DataError: an unusable file, or no usable clip in TRIES draws."""
        length = self.config.length(step)
        clips: list[Clip] = []
        first_masks = []
        for item in range(self.config.batch):
            rng = np.random.default_rng([self.config.seed, step, item])
            taken = {clip.name for clip in clips}
            clip = self._draw(length, taken, rng)
            # Without odds nothing is drawn: older runs go on with the batches they would have had.
            odds = self.config.absence_odds
            if odds and length >= SHORTEST and rng.random() < odds:
                clip = self._gone_for_a_while(clip, taken, rng)
            worn = rng.random() < self.config.corrupt_odds
            first_masks.append(corrupt_mask(clip.masks_THW[0], rng) if worn else clip.masks_THW[0])
            clips.append(clip)
        return ClipBatch(
            np.stack([clip.frames_THWC for clip in clips]),
            np.stack([clip.masks_THW for clip in clips]),
            np.stack(first_masks),
            tuple(clip.name for clip in clips),
        )

    def _gone_for_a_while(self, clip: Clip, taken: set[str], rng: np.random.Generator) -> Clip:
        if rng.random() < 0.5:
            return look_away(clip, rng)
        return cut_away(clip, self._draw(len(clip.masks_THW), taken | {clip.name}, rng), rng)

    def _draw(self, length: int, taken: set[str], rng: np.random.Generator) -> Clip:
        for _ in range(TRIES):
            source = self.config.sources[int(rng.choice(len(self._shares), p=self._shares))][0]
            index = int(rng.integers(len(source)))
            if source.sequence(index) in taken:
                continue
            try:
                clip = source.clip(index, length, self.config.size, rng)
            except NotVisibleError:
                continue
            if clip.starts_visible:
                return clip
        names = ", ".join(source.name for source, _ in self.config.sources)
        raise DataError(
            f"no usable clip in {TRIES} draws from {names}: their objects leave the first frame or are too "
            f"small at {self.config.size[0]} x {self.config.size[1]}, or too few sequences are left"
        )
