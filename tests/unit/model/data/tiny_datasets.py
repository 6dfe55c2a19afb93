"""Writers of tiny datasets in the layouts of the real ones."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

U8 = NDArray[np.uint8]
# All 256 entries: with fewer, values beyond the palette (void) would not survive.
PALETTE = [value for i in range(256) for value in (i * 61 % 256, i * 97 % 256, i * 151 % 256)]


def save_photo(path: Path, frame: U8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(path, quality=95)


def save_indexed(path: Path, labels: U8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette(PALETTE)
    image.save(path)


def save_grey(path: Path, values: U8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def moving_square(t: int, value: int = 1, left: int = 10) -> U8:
    labels = np.zeros((60, 100), np.uint8)
    labels[20:40, left + 2 * t : left + 20 + 2 * t] = value
    return labels


def texture(seed: int, height: int = 60, width: int = 100) -> U8:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 10 + 1, width // 10 + 1, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def save_davis_sequence(root: Path, name: str, labels: list[U8], *, indexed: bool, resolution: str = "480p") -> None:
    for t, label in enumerate(labels):
        save_photo(root / "JPEGImages" / resolution / name / f"{t:05d}.jpg", texture(t))
        save = save_indexed if indexed else save_grey
        save(root / "Annotations" / resolution / name / f"{t:05d}.png", label)


def save_split(root: Path, folder: str, split: str, lines: list[str]) -> None:
    path = root / "ImageSets" / folder / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def save_clean(path: Path, frame: U8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(path, quality=100, subsampling=0)
