"""What a graph takes at once, of several frames with objects of their own on each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from service.core.types import ImageU8


def stacked(frames: Sequence[ImageU8]) -> NDArray[np.uint8]:
    """Frames [F,h,w,3]. A single one is not copied."""
    return frames[0][None] if len(frames) == 1 else np.stack(frames)


def frame_rows(objects: Sequence[int]) -> NDArray[np.int64]:
    """For each object the row of its frame, there being so many on each."""
    return np.repeat(np.arange(len(objects), dtype=np.int64), objects)


def parts(objects: Sequence[int]) -> list[range]:
    """For each frame the rows of its objects."""
    return [range(start, stop) for start, stop in pairwise([0, *accumulate(objects)])]
