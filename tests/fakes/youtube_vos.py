"""A made-up YouTube-VOS folder of 64 x 96 frames, whose objects are squares of 20 x 20 pixels.

The tiny bundle's model follows them predictably: in GREY videos every given mask stays for ever; in BLACK ones it stays
for three frames and is empty from the fourth on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2spp.labels import save_labels

GREY, BLACK = 128, 0


@dataclass(frozen=True)
class Square:
    """The (left, top) corner in every frame; None where the object is not there."""

    category: str | None
    corners: list[tuple[int, int] | None]


@dataclass(frozen=True)
class Video:
    brightness: int
    objects: Mapping[int, Square]


def write_split(folder: Path, videos: Mapping[str, Video], *, first_masks_only: bool = False) -> Path:
    """Frames are 00000, 00005, ...; `first_masks_only` as in the real validation split."""
    for name, video in videos.items():
        (folder / "JPEGImages" / name).mkdir(parents=True)
        shown = {number: _stems(square) for number, square in video.objects.items()}
        length = len(next(iter(video.objects.values())).corners)
        for index in range(length):
            stem = f"{5 * index:05d}"
            frame = np.full((64, 96, 3), video.brightness, np.uint8)
            Image.fromarray(frame).save(folder / "JPEGImages" / name / f"{stem}.jpg")
            drawn = {n: square for n, square in video.objects.items() if not first_masks_only or shown[n][0] == stem}
            if drawn:
                save_labels(folder / "Annotations" / name / f"{stem}.png", labels(drawn, index))
    write_meta(folder / "meta.json", videos)
    return folder


def write_meta(path: Path, videos: Mapping[str, Video]) -> Path:
    listed = {
        name: {"objects": {str(n): _entry(s) for n, s in video.objects.items()}} for name, video in videos.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"videos": listed}))
    return path


def labels(objects: Mapping[int, Square], index: int) -> NDArray[np.uint8]:
    """The label map [64,96] of frame `index`."""
    drawn = np.zeros((64, 96), np.uint8)
    for number, square in objects.items():
        if (corner := square.corners[index]) is not None:
            left, top = corner
            drawn[top : top + 20, left : left + 20] = number
    return drawn


def _stems(square: Square) -> list[str]:
    return [f"{5 * index:05d}" for index, corner in enumerate(square.corners) if corner is not None]


def _entry(square: Square) -> dict[str, object]:
    return {"frames": _stems(square)} | ({} if square.category is None else {"category": square.category})
