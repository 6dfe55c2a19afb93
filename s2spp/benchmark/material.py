"""What is segmented: a clip rendered from nothing, at 854 x 480, and masks with as many objects as it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from s2spp.demo_clip import render_demo_clip
from s2spp.geometry import frame_to_model, mask_to_model, model_size
from service.core.types import ModelInfo

SIZE = (480, 854)
"""Height and width of the usual material, pixels."""


@dataclass(frozen=True)
class Material:
    """Frames RGB and as JPEG, played forth and back. `size`: their height and width."""

    frames: Sequence[NDArray[np.uint8]]
    jpegs: Sequence[bytes]
    size: tuple[int, int]

    @staticmethod
    def rendered(frames: int = 48, size: tuple[int, int] = SIZE) -> Material:
        pictures = [frame for frame, _ in render_demo_clip(frames, size)]
        jpegs = [
            cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            for frame in pictures
        ]
        return Material(pictures, jpegs, size)

    def turn(self, index: int) -> int:
        """Which picture frame `index` is, forth and back without a jump."""
        last = len(self.jpegs) - 1
        place = index % (2 * last)
        return place if place <= last else 2 * last - place

    def jpeg(self, index: int) -> bytes:
        """Frame `index`, as it is sent."""
        return self.jpegs[self.turn(index)]

    def mask(self, objects: int) -> NDArray[np.uint8]:
        return grid_of_objects(*self.size, objects)

    def mask_png(self, objects: int) -> bytes:
        return cv2.imencode(".png", self.mask(objects))[1].tobytes()

    def for_model(self, info: ModelInfo) -> ModelMaterial:
        size = model_size(*self.size, info.pixel_budget, info.multiple)
        return ModelMaterial(self, size, [frame_to_model(frame, size) for frame in self.frames])


@dataclass(frozen=True)
class ModelMaterial:
    """The same as a model takes it, resized beforehand to `size`, its grid."""

    material: Material
    size: tuple[int, int]
    frames: Sequence[NDArray[np.uint8]]

    def frame(self, index: int) -> NDArray[np.uint8]:
        return self.frames[self.material.turn(index)]

    def masks(self, objects: int) -> NDArray[np.uint8]:
        """[objects, h, w], 0/1."""
        labels = self.material.mask(objects)
        return np.stack([mask_to_model((labels == n).astype(np.uint8), self.size) for n in range(1, objects + 1)])


def grid_of_objects(height: int, width: int, objects: int) -> NDArray[np.uint8]:
    """Rectangles with the ids 1, 2, ...: large ones in two rows for up to ten, as many rows as it takes for more."""
    rows = 2 if objects <= 10 else math.ceil(math.sqrt(objects / 2))
    columns = max(5, math.ceil(objects / rows))
    tall, wide = height / rows, width / columns
    labels = np.zeros((height, width), np.uint8)
    for index in range(objects):
        row, column = divmod(index, columns)
        top, left = int((0.24 + row) * tall), int((0.2 + column) * wide)
        labels[top : top + int(tall / 2), left : left + int(wide * 0.625)] = index + 1
    return labels
