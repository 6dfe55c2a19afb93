"""Label maps made visible: the DAVIS palette, and masks drawn over frames."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def davis_palette() -> NDArray[np.uint8]:
    """uint8 [256,3] RGB: the colours of PASCAL VOC and DAVIS label images (0 black, 1 red, 2 green ...).

    Bit 3k + c of a label becomes bit 7 - k of channel c, so neighbouring labels get colours far apart.
    """
    labels = np.arange(256, dtype=np.uint16)
    palette = np.zeros((256, 3), dtype=np.uint16)
    for k in range(8):
        for channel in range(3):
            palette[:, channel] |= ((labels >> (3 * k + channel)) & 1) << (7 - k)
    return palette.astype(np.uint8)


PALETTE = davis_palette()


def overlay(
    frame_rgb: NDArray[np.uint8], labels: NDArray[np.uint8], alpha: float = 0.5, outline: bool = True
) -> NDArray[np.uint8]:
    """A new frame, uint8 [H,W,3] RGB, with every object of `labels` (uint8 [H,W], 0 = background) coloured.

    `alpha` 0..1 is the colour's share; `outline` draws a white line just inside each object's edge.

    Raises:
        ValueError: the label map is not of the frame's size, or `alpha` is out of range.
    """
    if frame_rgb.ndim != 3 or frame_rgb.shape[2] != 3 or labels.shape != frame_rgb.shape[:2]:
        raise ValueError(f"labels of shape {labels.shape} do not lie over a frame of shape {frame_rgb.shape}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, not {alpha}")
    drawn = frame_rgb.copy()
    inside = labels != 0
    colours = PALETTE[labels[inside]].astype(np.float32)
    drawn[inside] = np.rint(frame_rgb[inside] * np.float32(1 - alpha) + colours * np.float32(alpha))
    if outline:
        # A line of one pixel is lost on a large frame.
        width = max(1, round(min(labels.shape) / 360))
        square = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
        edge = inside & ((cv2.erode(labels, square) != labels) | (cv2.dilate(labels, square) != labels))
        drawn[edge] = 255
    return drawn
