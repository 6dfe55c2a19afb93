"""A mask's edge at the frame's own resolution, by the frame's own edges."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from s2spp.geometry import to_frame

_RADIUS = 8
# Of brightness in 0..1: weaker edges than about the root of it are smoothed over.
_SMOOTH = 1e-4


def refine(probability: NDArray[np.float32], frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Guided filter (He, Sun and Tang 2013): probability [h,w] of any size, frame RGB [H,W,3] -> [H,W]. In every window
    it is fitted as a linear function of the frame's brightness, so that it bends where the frame does."""
    height, width = frame.shape[:2]
    p = to_frame(probability, height, width)
    guide = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), np.float32) / np.float32(255)
    mean_guide, mean_p = _mean(guide), _mean(p)
    slope = (_mean(guide * p) - mean_guide * mean_p) / (_mean(guide * guide) - mean_guide * mean_guide + _SMOOTH)
    return np.asarray(_mean(slope) * guide + _mean(mean_p - slope * mean_guide), np.float32)


def _mean(values: NDArray[Any]) -> NDArray[Any]:
    side = 2 * _RADIUS + 1
    return np.asarray(cv2.blur(values, (side, side)), np.float32)
