"""Signed truncated distance to the object's boundary and its classes (section III-B, eq. 6)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from model.config import DistanceConfig

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


def signed_distance(mask: NDArray[np.uint8], radius: int) -> NDArray[np.float32]:
    """Eq. 6: D(p) = s_p * min(min over boundary pixels q of ||p - q||, R); s_p is +1 on the object, -1 off
    it.

    mask [H,W] 0/1 -> float32 [H,W]. The boundary is the object's pixels with a side neighbour off the object;
    the picture's own edge is no boundary. Without a boundary every pixel is R away from it.
    """
    sign = np.where(mask > 0, 1.0, -1.0).astype(np.float32)
    eroded = cv2.erode(mask, _CROSS, borderType=cv2.BORDER_REPLICATE)
    boundary = mask - eroded
    if not boundary.any():
        return sign * radius
    distance = cv2.distanceTransform(1 - boundary, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(sign * np.minimum(distance, radius), np.float32)


def distance_classes(mask: NDArray[np.uint8], config: DistanceConfig) -> NDArray[np.uint8]:
    """Uniform bins of size s over (-R, R), and one class for each side beyond: 2 R / s + 2 classes, the
    farthest outside being 0 and the farthest inside the last."""
    radius, size = config.radius, config.bin_size
    distance = signed_distance(mask, radius)
    classes = np.floor((distance + radius) / size).astype(np.int64) + 1
    classes[distance <= -radius] = 0
    classes[distance >= radius] = config.classes - 1
    return classes.astype(np.uint8)


def distance_target(mask: NDArray[np.uint8], config: DistanceConfig) -> NDArray[np.uint8] | NDArray[np.float32]:
    """What the distance head learns from `mask`: classes, or the distance itself where it is regressed."""
    return distance_classes(mask, config) if config.kind == "classes" else signed_distance(mask, config.radius)
