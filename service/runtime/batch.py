"""What a graph takes at once, of several frames with objects of their own on each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from s2spp.geometry import model_size
from service.core.ports import Runtime
from service.core.state import State
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


def warm_up(runtime: Runtime, frames: int, ways: Sequence[bool] = (True,)) -> list[State]:
    """An initialise and two steps of so many frames at the usual size, an object on each. The states after them.
    `ways`: whether the steps are wide; two of each."""
    height, width = model_size(480, 854, runtime.info.pixel_budget, runtime.info.multiple)
    frame, mask = np.zeros((height, width, 3), np.uint8), np.ones((1, height, width), np.uint8)
    states = runtime.initialise([frame] * frames, [mask] * frames)
    for wide in [*ways, *ways]:
        states = [result.state for result in runtime.step([frame] * frames, states, wide=wide)]
    return states
