"""A training clip, one object over T frames, and what can make one."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.data.read import DataError

VISIBLE_PIXELS = 16
"""An object with fewer pixels in a clip's first frame gives the initializer nothing to start from."""


class NotVisibleError(DataError):
    """An object too small to be followed at the size asked for: draw another one."""


@dataclass(frozen=True)
class Clip:
    """One object over T frames.

    `frames_THWC` is RGB; `masks_THW` is 0/1. The object may be absent in later frames, never in frame 0.
    """

    name: str
    frames_THWC: NDArray[np.uint8]
    masks_THW: NDArray[np.uint8]

    @property
    def starts_visible(self) -> bool:
        """Whether frame 0 shows enough of the object to start from."""
        return int(self.masks_THW[0].sum()) >= VISIBLE_PIXELS


class ClipSource(Protocol):
    """Something that clips are drawn from. A clip is a pure function of (index, length, size, rng)."""

    @property
    def name(self) -> str:
        """What error messages and logs call this source."""

    def __len__(self) -> int:
        """Number of (sequence, object) pairs, or of photos."""

    def sequence(self, index: int) -> str:
        """Name of the sequence of pair `index`; a batch never holds one name twice."""

    def clip(self, index: int, length: int, size: tuple[int, int], rng: np.random.Generator) -> Clip:
        """Draw a clip of `length` frames of `size` = (height, width); raises DataError on
        unusable files, NotVisibleError where the object cannot be seen."""
