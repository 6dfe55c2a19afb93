"""Small objects seen larger: the network looks through a window that follows the object.

The window moves by whole cells of the coarsest memory, and what the network remembers moves along by as many cells of
each level: the recurrence goes on as if the frame had been shifted, and nothing is computed anew."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.data.augment import GREY
from model.network import RecurrentState

_COVER = 0.08
"""The share of the window that an object covers when it is marked."""
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
        zoom = max(float(np.sqrt(mask_HW.mean() / _COVER)), _SMALLEST)
        if zoom > _WHOLE:
            return Window(1.0, 0.0, 0.0, (height, width), grid)
        y, x = _middle(mask_HW)
        top = float(np.clip(y - zoom * height / 2, 0, (1 - zoom) * height))
        left = float(np.clip(x - zoom * width / 2, 0, (1 - zoom) * width))
        return Window(zoom, top, left, (height, width), grid)

    @property
    def cell(self) -> tuple[float, float]:
        """Frame pixels (down, right) of a cell of the coarsest memory."""
        (height, width), (h, w) = self.frame, self.grid
        return self.zoom * height / h * _CELL, self.zoom * width / w * _CELL

    def crop(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """frame RGB [H,W,3] -> what the window shows, on the model's grid; grey beyond the frame."""
        h, w = self.grid
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        shown = cv2.warpAffine(frame, self._to_frame(h, w), (w, h), flags=flags, borderValue=GREY)
        return np.asarray(shown, np.uint8)

    def back(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        """probability [h',w'] in the window -> in the frame, [H,W]; 0 outside the window."""
        height, width = self.frame
        onto = self._to_frame(*probability.shape)
        return np.asarray(cv2.warpAffine(probability, onto, (width, height), flags=cv2.INTER_LINEAR), np.float32)

    def _to_frame(self, rows: int, columns: int) -> NDArray[np.float64]:
        """The map [2,3] of the window's pixels, rows x columns of them, to the frame's; pixel centres."""
        down, right = self.zoom * self.frame[0] / rows, self.zoom * self.frame[1] / columns
        return np.array([[right, 0, self.left + right / 2 - 0.5], [0, down, self.top + down / 2 - 0.5]])

    def steps_to(self, mask_HW: NDArray[np.uint8]) -> tuple[int, int]:
        """Whole cells (down, right) that bring the object of a mask to the window's middle, as far as the frame goes;
        none where nothing is seen of it."""
        if self.zoom == 1.0 or not mask_HW.any():
            return 0, 0
        steps = []
        places = zip(_middle(mask_HW), (self.top, self.left), self.frame, self.cell, strict=True)
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


def _middle(mask_HW: NDArray[np.uint8]) -> tuple[float, float]:
    ys, xs = np.nonzero(mask_HW)
    return float(ys.mean()), float(xs.mean())


def as_batch(image: NDArray[np.uint8]) -> Tensor:
    """[h,w,3] -> [1,3,h,w]."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].float()
