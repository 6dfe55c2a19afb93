"""Reading pictures from disk. Whatever is wrong with a file is told as a `DataError` that names it."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

VOID = 255
"""The value that marks "do not care" pixels in DAVIS and YouTube-VOS label maps."""


class DataError(ValueError):
    """A dataset's folder or file cannot be used; the message names it and says what is wrong."""


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a photo as [H,W,3] RGB, as stored: no EXIF rotation, since masks lie on the stored pixels."""
    with _opened(path) as image:
        return np.array(image.convert("RGB"), dtype=np.uint8)


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read an annotation as a [H,W] map of stored values: palette INDICES, not the palette's colours.

    A few files of DAVIS-2016 are stored as RGB although they are grey; other colour pictures are refused.
    """
    with _opened(path) as image:
        if image.mode in ("1", "L", "P"):
            return np.array(image, dtype=np.uint8)
        if image.mode in ("RGB", "RGBA"):
            colours = np.array(image, dtype=np.uint8)[..., :3]
            if (colours == colours[..., :1]).all():
                return np.ascontiguousarray(colours[..., 0])
        raise DataError(f"{path}: not a label map but mode {image.mode}: an indexed, grey or 1-bit PNG is needed")


def read_lines(path: Path) -> list[str]:
    """Read the non-empty lines of a text file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _opened(path: Path) -> Image.Image:
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error
    return image
