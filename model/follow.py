"""Small objects seen larger: the network looks through a window that follows the object.

The window moves by whole cells of the coarsest memory, and what the network remembers moves along by as many cells of
each level: the recurrence goes on as if the frame had been shifted, and nothing is computed anew. Its size is that of
the first frame for ever: an object that comes nearer outgrows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.network import RecurrentState
from s2spp.geometry import frame_to_model, mask_to_model, to_frame

_COVER = 0.08
"""The share of the window that an object covers when it is marked."""
_ROOM = 1.5
"""The window's sides are no less than so many times the object's."""
_SMALLEST = 0.35
_WHOLE = 0.85
"""A window nearly as large as the frame is the frame."""
_CELL = 32


@dataclass(frozen=True)
class Window:
    """`zoom`: the window's sides as a share of the frame's. `top`, `left`: frame pixels. `frame`, `grid`: (height,
    width) of the frame and of the model's grid."""

    zoom: float
    top: float
    left: float
    frame: tuple[int, int]
    grid: tuple[int, int]

    @staticmethod
    def around(mask_HW: NDArray[np.uint8], grid: tuple[int, int]) -> Window:
        """Of the size that suits the object of a 0/1 mask, about its middle, within the frame."""
        height, width = mask_HW.shape
        top, left, high, wide = _box(mask_HW)
        cover = float(np.sqrt(mask_HW.mean() / _COVER))
        zoom = max(cover, _ROOM * high / height, _ROOM * wide / width, _SMALLEST)
        if zoom > _WHOLE:
            return Window(1.0, 0.0, 0.0, (height, width), grid)
        y, x = top + high / 2 - zoom * height / 2, left + wide / 2 - zoom * width / 2
        inside = float(np.clip(y, 0, (1 - zoom) * height)), float(np.clip(x, 0, (1 - zoom) * width))
        return Window(zoom, *inside, (height, width), grid)

    @property
    def cell(self) -> tuple[float, float]:
        """Frame pixels (down, right) of a cell of the coarsest memory."""
        (height, width), (h, w) = self.frame, self.grid
        return self.zoom * height / h * _CELL, self.zoom * width / w * _CELL

    def frame_seen(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """frame RGB [H,W,3] -> what the window shows of it, on the model's grid."""
        return frame_to_model(self._cut(frame), self.grid)

    def mask_seen(self, mask_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same of a 0/1 mask."""
        return mask_to_model(self._cut(mask_HW), self.grid)

    def _cut(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The window's pixels, rounded to whole ones; beyond the frame its border goes on."""
        top, bottom, left, right = self._edges
        rows = np.clip(np.arange(top, bottom), 0, self.frame[0] - 1)
        columns = np.clip(np.arange(left, right), 0, self.frame[1] - 1)
        return np.ascontiguousarray(picture[rows[:, None], columns])

    def back(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        """probability [h',w'] in the window -> in the frame, [H,W]; 0 outside the window."""
        top, bottom, left, right = self._edges
        there = to_frame(probability, bottom - top, right - left)
        height, width = self.frame
        found = np.zeros(self.frame, np.float32)
        y, x = np.s_[max(top, 0) : min(bottom, height)], np.s_[max(left, 0) : min(right, width)]
        found[y, x] = there[y.start - top : y.stop - top, x.start - left : x.stop - left]
        return found

    @property
    def _edges(self) -> tuple[int, int, int, int]:
        """Top, bottom, left, right, in whole frame pixels."""
        height, width = (round(self.zoom * side) for side in self.frame)
        top, left = round(self.top), round(self.left)
        return top, top + height, left, left + width

    def steps_to(self, mask_HW: NDArray[np.uint8]) -> tuple[int, int]:
        """Whole cells (down, right) that bring the object of a mask to the window's middle, as far as the frame goes;
        none where nothing is seen of it."""
        if self.zoom == 1.0 or not mask_HW.any():
            return 0, 0
        ys, xs = np.nonzero(mask_HW)
        steps = []
        places = zip((ys.mean(), xs.mean()), (self.top, self.left), self.frame, self.cell, strict=True)
        for middle, corner, side, cell in places:
            # Half a cell beyond the frame, so that rounding never hides its border.
            wanted = np.clip(middle - self.zoom * side / 2, -cell / 2, (1 - self.zoom) * side + cell / 2)
            steps.append(round(float(wanted - corner) / cell))
        return steps[0], steps[1]

    def moved(self, steps: tuple[int, int]) -> Window:
        down, right = self.cell
        return replace(self, top=self.top + steps[0] * down, left=self.left + steps[1] * right)


def moved_state(state: RecurrentState, steps: tuple[int, int], grid: tuple[int, int]) -> RecurrentState:
    """The state as a window moved by `steps` whole cells sees it: nothing is known yet of what comes into it. Constant
    tensors are of the first frame, where it was."""

    def moved(tensor: Tensor) -> Tensor:
        cells = tensor.shape[-2] * _CELL // grid[0]
        down, right = steps[0] * cells, steps[1] * cells
        return F.pad(tensor, (-right, right, -down, down))

    if steps == (0, 0):
        return state
    return RecurrentState({name: moved(tensor) for name, tensor in state.changing.items()}, state.constant)


def _box(mask_HW: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Top, left, height, width."""
    x, y, width, height = cv2.boundingRect(mask_HW)
    return y, x, height, width
