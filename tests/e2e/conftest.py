"""Fixtures of the end-to-end tests: real servers as processes, the shipped bundle, real video where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.data.davis import DavisDataset
from model.data.sequence import Sequence
from s2spp.embedded import EmbeddedServer
from tests.e2e.material import Clip, rendered_clip

_CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def davis() -> Path:
    root = Path(os.environ.get("S2SPP_DATA", _CHECKOUT.parent / "shared" / "data")) / "davis2016"
    if not root.is_dir():
        pytest.skip(f"no research video at {root}; set S2SPP_DATA to run this test")
    return root


@pytest.fixture(scope="session")
def tune_split(davis: Path) -> dict[str, Sequence]:
    return {sequence.name: sequence for sequence in DavisDataset(davis, "tune").sequences}


@pytest.fixture(scope="session")
def clip() -> Clip:
    return rendered_clip(101)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server")) as running:
        yield running
