"""The one geometry: any frame shape to the model's grid and back, in training, evaluation and serving alike.

A model has a pixel budget (256 x 448 for the shipped ones), not a fixed shape: a frame is resized to the grid
of about that many pixels, its sides multiples of the encoder's stride, whose aspect ratio is nearest the frame's
own. So portrait and square videos are neither squeezed nor padded. Knows numpy and OpenCV only; both sides
import it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def merge_to_frame(
    probability: NDArray[np.float32], object_ids: Sequence[int], height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Per-object probability [N,h',w'] -> label map uint8 [H,W] and the winner's probability float32 [H,W].

    Each object's probability is resized to the frame BEFORE the most probable one takes the pixel, background counting
    as 0.5 (section IV-E); the first of equals wins. One object at a time: many objects in a large frame would be
    gigabytes."""
    labels = np.zeros((height, width), np.uint8)
    best = np.full((height, width), 0.5, np.float32)
    for row, object_id in zip(probability, object_ids, strict=True):
        candidate = to_frame(row, height, width)
        labels[candidate > best] = object_id
        np.maximum(best, candidate, out=best)
    return labels, best
