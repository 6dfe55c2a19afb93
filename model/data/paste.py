"""One video's object pasted into another's clip: a look-alike or a stranger that moves and bends as real ones do.

DAVIS-2016 marks the one thing that moves in each video. A network that saw only that would learn to find what moves,
and not to tell the marked object from others."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from model.data.clip import VISIBLE_PIXELS, Clip

# Of the first mask: what has to stay in sight for the initializer to know what is meant.
_LEFT_OF_FIRST = 0.5


def paste(clip: Clip, other: Clip, rng: np.random.Generator) -> Clip:
    """`clip`, with the object of `other` (same length and size) crossing its way: in front of the marked object, whose
    mask loses what is covered, or behind it. As it was, where too little of the first mask would be left."""
    length, height, width = clip.masks_THW.shape
    in_front = bool(rng.random() < 0.5)
    paths = _paths(clip.masks_THW, other.masks_THW, rng)
    frames, masks = clip.frames_THWC.copy(), clip.masks_THW.copy()
    for t in range(length):
        alpha = cv2.warpAffine(other.masks_THW[t] * np.uint8(255), paths[t], (width, height), flags=cv2.INTER_LINEAR)
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), 0.8), np.float32) / 255
        if in_front:
            masks[t][alpha > 0.5] = 0
        else:
            alpha[masks[t] > 0] = 0
        colours = cv2.warpAffine(other.frames_THWC[t], paths[t], (width, height), flags=cv2.INTER_LINEAR)
        frames[t] = cv2.blendLinear(np.asarray(colours), clip.frames_THWC[t], alpha, 1 - alpha)
    left = masks[0].sum()
    if left < max(VISIBLE_PIXELS, _LEFT_OF_FIRST * clip.masks_THW[0].sum()):
        return clip
    return Clip(clip.name, frames, masks)


def _paths(own_THW: NDArray[np.uint8], other_THW: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float64]:
    """Affine maps [T,2,3] that lead the other object, in a straight line, near the own one at some frame."""
    length, _, width = own_THW.shape
    meeting = int(rng.integers(length))
    scale = float(np.exp(rng.uniform(np.log(0.5), np.log(1.2))))
    over = _middle(own_THW[meeting]) + rng.normal(0, 0.15 * width, 2)
    angle, speed = rng.uniform(0, 2 * np.pi), width * rng.uniform(0, 0.04)
    step = speed * np.array([np.cos(angle), np.sin(angle)])
    at = _middle(other_THW[meeting])
    shifts = over - scale * at + np.arange(-meeting, length - meeting)[:, None] * step
    return np.stack([np.column_stack([scale * np.eye(2), shift]) for shift in shifts])


def _middle(mask_HW: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(x, y) of the object's middle, or the picture's where it is out of sight."""
    ys, xs = np.nonzero(mask_HW)
    if not len(xs):
        return np.array([mask_HW.shape[1] / 2, mask_HW.shape[0] / 2])
    return np.array([xs.mean(), ys.mean()])
