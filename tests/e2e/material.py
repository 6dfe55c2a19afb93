"""Clips for the end-to-end tests, rendered: nothing here needs the research data."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from s2spp.demo_clip import render_demo_clip


@dataclass(frozen=True)
class Clip:
    """JPEG frames and the first one's labels."""

    jpegs: list[bytes]
    labels: NDArray[np.uint8]

    @property
    def mask_png(self) -> bytes:
        return cv2.imencode(".png", self.labels)[1].tobytes()


def jpeg(frame: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def rendered_clip(frames: int, size: tuple[int, int] = (240, 424), objects: int = 1, seed: int = 7) -> Clip:
    """The demo's clip; further objects are rectangles beside the fish."""
    rendered = list(render_demo_clip(frames, size, seed))
    labels = rendered[0][1].copy()
    height, width = size
    for extra in range(2, objects + 1):
        left = (extra * width) // (objects + 2)
        labels[height * 2 // 3 : height * 5 // 6, left : left + width // 10] = extra
    return Clip([jpeg(frame) for frame, _ in rendered], labels)
