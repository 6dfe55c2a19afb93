"""Fixtures of the data tests: tiny datasets in a temporary folder, and the real ones where they are."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_datasets import moving_square, save_clean, save_davis_sequence, save_grey, save_split


@pytest.fixture
def davis_2016(tmp_path: Path) -> Path:
    """Four single-object sequences with 0/255 annotations."""
    root = tmp_path / "davis2016"
    for name in ("ape", "bee", "cat", "dog"):
        save_davis_sequence(root, name, [moving_square(t, 255) for t in range(6)], indexed=False)
    save_split(root, "480p", "train", ["ape", "bee", "cat", "dog"])
    return root


@pytest.fixture
def colour_stills(tmp_path: Path) -> Path:
    """A red shape on green, and a blue one on blue to lend occluders, distractors and other backdrops."""
    root = tmp_path / "stills"
    shape = np.zeros((200, 300), np.uint8)
    cv2.ellipse(shape, (150, 100), (70, 45), 20, 0, 360, 1, -1)
    red_on_green = np.where(shape[..., None] == 1, (230, 20, 20), (20, 200, 20)).astype(np.uint8)
    save_clean(root / "images" / "a-red.jpg", red_on_green)
    save_clean(root / "images" / "b-blue.jpg", np.full((200, 300, 3), (20, 20, 220), np.uint8))
    for stem in ("a-red", "b-blue"):
        save_grey(root / "masks" / f"{stem}.png", shape * np.uint8(255))
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    default = Path(__file__).resolve().parents[5] / "shared" / "data"
    folder = Path(os.environ.get("S2SPP_DATA", default))
    if not (folder / "davis2016").is_dir():
        pytest.skip(f"no real data at {folder} (set S2SPP_DATA)")
    return folder
