"""The one geometry: any frame shape to the model's grid and back, the same in training, evaluation and serving.

A model has a pixel budget (256 x 448 for the shipped ones), not a fixed shape: a frame is resized to the grid of about
that many pixels, its sides multiples of the encoder's stride, whose aspect ratio is nearest the frame's own. So
portrait and square videos are neither squeezed nor padded. Knows numpy and OpenCV only; both sides import it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

# Beyond 4:1 a frame is squeezed: thinner grids leave the networks too few cells across.
_MAX_ASPECT = 4.0


def model_size(height: int, width: int, pixel_budget: int, multiple: int) -> tuple[int, int]:
    """Grid (h, w) for a frame of `height` x `width` pixels: both multiples of `multiple`, h * w near the budget."""
    if height < 1 or width < 1:
        raise ValueError(f"a frame needs at least one pixel, got {height} x {width}")
    aspect = min(max(width / height, 1 / _MAX_ASPECT), _MAX_ASPECT)

    def snap(side: float) -> int:
        return max(multiple, round(side / multiple) * multiple)

    return snap(math.sqrt(pixel_budget / aspect)), snap(math.sqrt(pixel_budget * aspect))


def frame_to_model(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """RGB uint8 [H,W,3] -> [h,w,3]. Averages where it shrinks by two or more: linear sampling would skip pixels."""
    height, width = frame.shape[:2]
    if (height, width) == size:
        return frame
    shrink = min(height / size[0], width / size[1])
    method = cv2.INTER_AREA if shrink >= 2 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=method), np.uint8)


def mask_to_model(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Binary uint8 [H,W] (0/1) -> [h,w] (0/1): cells at least half covered. A mask with any pixel keeps at least its
    densest cell, so a tiny object is never lost here."""
    if mask.shape == size:
        return mask
    shrinks = mask.shape[0] >= size[0] and mask.shape[1] >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    cover = cv2.resize(mask.astype(np.float32), (size[1], size[0]), interpolation=method)
    peak = float(cover.max())
    return (cover >= min(0.5, peak)).astype(np.uint8) if peak > 0 else np.zeros(size, np.uint8)


def probability_to_frame(probability: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """float32 [N,h',w'] -> [N,H,W], linear, pixel centres aligned."""
    frame = np.empty((len(probability), height, width), np.float32)
    for source, target in zip(probability, frame, strict=True):
        cv2.resize(source, (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
    return frame


def merge_objects(probability: NDArray[np.float32], object_ids: Sequence[int]) -> NDArray[np.uint8]:
    """Per-object probability [N,H,W] -> label map uint8 [H,W]: the most probable object takes the pixel, background
    counting as 0.5 (section IV-E). The first of equals wins."""
    labels = np.zeros(probability.shape[1:], np.uint8)
    best = np.full(probability.shape[1:], 0.5, np.float32)
    for row, object_id in zip(probability, object_ids, strict=True):
        wins = row > best
        labels[wins] = object_id
        if len(object_ids) > 1:
            best[wins] = row[wins]
    return labels
