"""Label maps as files: indexed PNG with the DAVIS palette, the layout in which the benchmarks take results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s2spp.overlay import PALETTE


def save_labels(path: Path, labels: NDArray[np.uint8]) -> None:
    """labels uint8 [H,W]: the pixel's value is the object's id. A file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    image.putpalette(PALETTE.tobytes())
    draft = path.with_suffix(".partial")
    image.save(draft, "PNG")
    draft.replace(path)
