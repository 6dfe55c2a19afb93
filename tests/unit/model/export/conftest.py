"""Bundles exported once for all tests: `light` as it is shipped, and a tiny network without attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from tiny_bundles import CARD, TINY_VGG, Exported, checkpoint_of, tiny

from model.config import NetworkConfig
from model.data.davis import DavisDataset
from model.export import export_bundle, parity
from model.export.int8 import Int8Report, quantise_bundle
from model.network import encoders
from model.recipes import recipe


@pytest.fixture(autouse=True)
def tiny_vgg(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test at a time: a wider scope would reach the tests of other folders."""
    monkeypatch.setattr(encoders, "_VGG_BLOCKS", TINY_VGG)


@pytest.fixture(scope="package")
def export() -> Callable[[NetworkConfig, Path], Exported]:
    def run(config: NetworkConfig, folder: Path) -> Exported:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(encoders, "_VGG_BLOCKS", TINY_VGG)
            checkpoint = checkpoint_of(config)
            return checkpoint, export_bundle(checkpoint, folder, "a-name", CARD)

    return run


@pytest.fixture(scope="package")
def light(export: Callable[[NetworkConfig, Path], Exported], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    with pytest.MonkeyPatch.context() as patch:
        # Half a clip is enough for a test; parity over whole clips is what `s2spp export` does.
        patch.setattr(parity, "_FRAMES", 5)
        return export(recipe("light"), tmp_path_factory.mktemp("bundles") / "light")


@pytest.fixture(scope="package")
def plain(export: Callable[[NetworkConfig, Path], Exported], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(tiny(), tmp_path_factory.mktemp("bundles") / "plain")


@pytest.fixture(scope="package")
def videos(tmp_path_factory: pytest.TempPathFactory) -> DavisDataset:
    """Two short videos of a blob."""
    root = tmp_path_factory.mktemp("davis")
    for name, seed in (("one", 1), ("two", 2)):
        frames, mask = parity.parity_clip(10, (72, 128), seed)
        images, annotations = root / "JPEGImages/480p" / name, root / "Annotations/480p" / name
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        for index, frame in enumerate(frames):
            cv2.imwrite(str(images / f"{index:05d}.jpg"), frame[..., ::-1])
        cv2.imwrite(str(annotations / "00000.png"), mask * 255)
    return DavisDataset(root, None)


@pytest.fixture(scope="package")
def int8(light: Exported, videos: DavisDataset, tmp_path_factory: pytest.TempPathFactory) -> Int8Report:
    folder = tmp_path_factory.mktemp("bundles") / "light-int8"
    return quantise_bundle(light[1].folder, folder, "light-int8", videos.sequences)
