"""Bundles exported once for all tests: `light` as it is shipped, and a tiny network without attention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bundles import CARD, TINY_VGG, Exported, checkpoint_of, tiny

from model.config import NetworkConfig
from model.export import export_bundle, parity
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
