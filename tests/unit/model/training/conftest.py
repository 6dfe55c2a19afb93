"""Tiny training problems: a network of a few thousand weights, and photos made on the spot."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_training import TINY_VGG, tiny_network

from model import recipes
from model.network import encoders


@pytest.fixture(autouse=True)
def tiny_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_VGG_BLOCKS", TINY_VGG)
    monkeypatch.setitem(recipes.RECIPES, "tiny", tiny_network)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with stills/shapes: five photos of a bright shape on a dark texture."""
    root = tmp_path_factory.mktemp("data")
    for name in ("images", "masks"):
        (root / "stills" / "shapes" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(5):
        mask = np.zeros((80, 120), np.uint8)
        cv2.ellipse(mask, (50 + 5 * number, 40), (22 + 2 * number, 16), 20 * number, 0, 360, 1, -1)
        ground = cv2.resize(rng.integers(0, 90, (8, 12, 3), np.uint8), (120, 80))
        skin = cv2.resize(rng.integers(150, 255, (5, 8, 3), np.uint8), (120, 80))
        Image.fromarray(np.where(mask[..., None] > 0, skin, ground)).save(
            root / "stills" / "shapes" / "images" / f"{number}.jpg", quality=95
        )
        Image.fromarray(mask * np.uint8(255)).save(root / "stills" / "shapes" / "masks" / f"{number}.png")
    return root
