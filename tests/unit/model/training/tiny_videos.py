"""A DAVIS folder of tiny videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_davis(root: Path, split: str, names: Sequence[str]) -> Path:
    """Three frames of a square each."""
    for name in names:
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            folder = root / kind / "480p" / name
            folder.mkdir(parents=True, exist_ok=True)
            for t in range(3):
                picture = np.zeros((60, 100), np.uint8)
                picture[20:40, 10 + t : 34 + t] = 255
                Image.fromarray(picture).save(folder / f"{t:05d}.{suffix}")
    listed = root / "ImageSets" / "480p" / f"{split}.txt"
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("\n".join(names) + "\n")
    return root
