"""The object is gone for a while and comes back: what a model must find again, by what it looked like at first.

DAVIS-2016's objects hardly ever leave the picture. A network that saw only them learns to follow, not to find."""

from __future__ import annotations

import cv2
import numpy as np

from model.data.augment import GREY
from model.data.clip import Clip

SHORTEST = 4
"""Frames of a clip that can have an absence: the first, one to follow the object in, one without, one to find it."""


def cut_away(clip: Clip, other: Clip, rng: np.random.Generator) -> Clip:
    """`clip`, for some frames in the middle of which there is another shot: `other` (same length and size)."""
    away = _middle(len(clip.masks_THW), rng)
    frames, masks = clip.frames_THWC.copy(), clip.masks_THW.copy()
    frames[away], masks[away] = other.frames_THWC[away], 0
    return Clip(clip.name, frames, masks)


def look_away(clip: Clip, rng: np.random.Generator) -> Clip:
    """`clip`, for some frames in the middle of which the camera points past the object, which is out of sight beyond
    one of the four borders. (Grey is what the camera would see there, and nobody filmed.)"""
    away = _middle(len(clip.masks_THW), rng)
    height, width = clip.masks_THW.shape[1:]
    shown = clip.masks_THW[away].max(axis=0)
    ys, xs = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(xs):
        return clip
    frames, masks = clip.frames_THWC.copy(), clip.masks_THW.copy()
    shifts = [(-(xs[-1] + 1), 0), (width - xs[0], 0), (0, -(ys[-1] + 1)), (0, height - ys[0])]
    # The nearest border or the one after: beyond the others there would be little left to see.
    shifts.sort(key=lambda shift: abs(shift[0]) / width + abs(shift[1]) / height)
    x, y = shifts[int(rng.integers(2))]
    onto = np.array([[1, 0, x], [0, 1, y]], np.float64)
    for t in range(*away.indices(len(frames))):
        frames[t] = cv2.warpAffine(frames[t], onto, (width, height), flags=cv2.INTER_NEAREST, borderValue=GREY)
        masks[t] = 0
    return Clip(clip.name, frames, masks)


def _middle(length: int, rng: np.random.Generator) -> slice:
    """A random stretch of a clip with a frame or more to follow before it, and one or more after it."""
    if length < SHORTEST:
        raise ValueError(f"a clip of {length} frames has no middle to be absent in: {SHORTEST} or more")
    first = int(rng.integers(2, length - 1))
    return slice(first, int(rng.integers(first + 1, length)))
