"""300 frames and what happens to their objects on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from service.client import Draw, Remove
from service.client.feed import TrackItem
from tests.e2e.material import rendered_clip

FRAMES = 300
ADDED_AT, CORRECTED_AT, REMOVED_AT = 60, 150, 220


@dataclass(frozen=True)
class Story:
    """JPEG frames and the first one's labels. An object is added, drawn anew, and removed, by `items`."""

    name: str
    jpegs: list[bytes]
    labels: NDArray[np.uint8]

    def items(self) -> Iterator[TrackItem]:
        for index, jpeg in enumerate(self.jpegs):
            yield jpeg
            if index == ADDED_AT:
                yield Draw(self._box(9, 0.1))
            if index == CORRECTED_AT:
                yield Draw(self._box(9, 0.5))
            if index == REMOVED_AT:
                yield Remove(9)

    def _box(self, object_id: int, left: float) -> NDArray[np.uint8]:
        height, width = self.labels.shape
        labels = np.zeros((height, width), np.uint8)
        x = round(left * width)
        labels[height // 4 : height // 2, x : x + width // 5] = object_id
        return labels


def story(frames: int = FRAMES) -> Story:
    """Real video of the research data, forth and back; where there is none, the rendered clip."""
    data = Path(os.environ.get("S2SPP_DATA", "data")) / "davis2016"
    if not data.is_dir():
        clip = rendered_clip(frames)
        return Story(f"the rendered clip (no research video at {data}; set S2SPP_DATA)", clip.jpegs, clip.labels)
    from model.data.davis import DavisDataset

    sequence = next(iter(DavisDataset(data, "tune").sequences))
    files = sequence.frame_paths
    order = [*range(len(files)), *range(len(files) - 2, 0, -1)]
    jpegs = [files[order[index % len(order)]].read_bytes() for index in range(frames)]
    return Story(f"{sequence.name}, forth and back", jpegs, sequence.labels(0))


def mask_png(labels: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", labels)[1].tobytes()
