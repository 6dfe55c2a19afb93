"""The one geometry: any frame shape to the model's grid and back, in training, evaluation and serving alike.

A model has a pixel budget (256 x 448 for the shipped ones), not a fixed shape: a frame is resized to the grid
of about that many pixels, its sides multiples of the encoder's stride, whose aspect ratio is nearest the frame's
own. So portrait and square videos are neither squeezed nor padded. Knows numpy and OpenCV only; both sides
import it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

_Pixel = TypeVar("_Pixel", np.uint8, np.float32)

# Beyond 4:1 a frame is squeezed: thinner grids leave the networks too few cells across.
_MAX_ASPECT = 4.0


def model_size(height: int, width: int, pixel_budget: int, multiple: int) -> tuple[int, int]:
    """Grid (h, w) for a frame of `height` x `width`: multiples of `multiple`, h * w near the budget."""
    if height < 1 or width < 1:
        raise ValueError(f"a frame needs at least one pixel, got {height} x {width}")
    aspect = min(max(width / height, 1 / _MAX_ASPECT), _MAX_ASPECT)

    def snap(side: float) -> int:
        return max(multiple, round(side / multiple) * multiple)

    return snap(math.sqrt(pixel_budget / aspect)), snap(math.sqrt(pixel_budget * aspect))


def frame_to_model(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB uint8 [H,W,3] -> [h,w,3]: linear, but areas are averaged along a side that shrinks by two or more,
    where linear sampling would skip pixels."""
    height, width = frame.shape[:2]
    halved = (size[0] if height >= 2 * size[0] else height, size[1] if width >= 2 * size[1] else width)
    return _resized(_resized(frame, halved, cv2.INTER_AREA), size, cv2.INTER_LINEAR)


def mask_to_model(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Binary uint8 [H,W] (0/1) -> [h,w] (0/1): cells at least half covered. A mask with any pixel keeps at
    least its densest cell, so a tiny object is never lost here."""
    if mask.shape == size:
        return mask
    # Averaging first along every side that shrinks, so that each pixel counts somewhere.
    shrunk = (min(mask.shape[0], size[0]), min(mask.shape[1], size[1]))
    cover = _resized(_resized(mask.astype(np.float32), shrunk, cv2.INTER_AREA), size, cv2.INTER_LINEAR)
    peak = float(cover.max())
    return (cover >= min(0.5, peak)).astype(np.uint8) if peak > 0 else np.zeros(size, np.uint8)


def _resized(image: NDArray[_Pixel], size: tuple[int, int], method: int) -> NDArray[_Pixel]:
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=method), image.dtype)


def to_frame(probability: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """One object's probability [h',w'] -> [H,W]: linear, pixel centres aligned."""
    return np.asarray(cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


@dataclass(frozen=True)
class Merged:
    """`labels` uint8 [H,W]. `best` float32: the winner's probability of each labelled pixel, in `box` (rows and columns
    of the frame), which holds them all."""

    labels: NDArray[np.uint8]
    box: tuple[slice, slice]
    best: NDArray[np.float32]


def merge_to_frame(probability: NDArray[np.float32], object_ids: Sequence[int], height: int, width: int) -> Merged:
    """Per-object probability [N,h',w'] -> whose each pixel of the frame is.

    Each object's probability is resized to the frame BEFORE the most probable one takes the pixel, background counting
    as 0.5 (section IV-E); the first of equals wins. One object at a time: many objects in a large frame would be
    gigabytes. All but the resizing looks only where the object can be: passes over whole frames are what takes time."""
    boxes = [_reach(row, height, width) for row in probability]
    labels = np.zeros((height, width), np.uint8)
    if len(boxes) == 1:  # most often; half the passes do then
        (box,) = boxes
        best = to_frame(probability[0], height, width)[box]
        np.multiply(best > 0.5, np.uint8(object_ids[0]), out=labels[box])
        return Merged(labels, box, best)
    box, everywhere = _around(boxes), np.empty((height, width), np.float32)
    everywhere[box] = 0.5
    for row, object_id, own in zip(probability, object_ids, boxes, strict=True):
        if labels[own].size:
            candidate, best = to_frame(row, height, width)[own], everywhere[own]
            np.copyto(labels[own], np.uint8(object_id), where=candidate > best)
            np.maximum(best, candidate, out=best)
    return Merged(labels, box, everywhere[box])


def _reach(probability: NDArray[np.float32], height: int, width: int) -> tuple[slice, slice]:
    """Where `to_frame` can give more than 0.5: around the cells [h',w'] that have more. Empty where none has."""
    # Somewhat less than 0.5, since resizing rounds.
    x, y, columns, rows = cv2.boundingRect((probability > 0.499).view(np.uint8))
    across, down = width / probability.shape[1], height / probability.shape[0]
    return _reached(y, rows, down, height), _reached(x, columns, across, width)


def _reached(first: int, count: int, scale: float, side: int) -> slice:
    """Pixels of one side whose two nearest cells are not all outside of `count` cells from `first` on."""
    if not count:
        return slice(0, 0)
    start, end = math.floor((first - 0.5) * scale) - 1, math.ceil((first + count + 0.5) * scale) + 1
    return slice(max(0, start), min(side, end))


def _around(boxes: Sequence[tuple[slice, slice]]) -> tuple[slice, slice]:
    """The smallest box that holds all that are not empty."""
    held = [box for box in boxes if box[0].stop] or [np.s_[0:0, 0:0]]
    rows, columns = (
        slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*held, strict=True)
    )
    return rows, columns
