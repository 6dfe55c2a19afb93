"""The kustomizations of deploy/kubernetes, each built once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.unit.deploy.kustomize import Kustomization

_FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
_README = (_FOLDER / "README.md").read_text()


@pytest.fixture(scope="module", params=["base", "overlays/gpu", "overlays/mine"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those that are there, and the one that the README tells to write."""
    if request.param != "overlays/mine":
        return Path(_FOLDER / request.param)
    copied = tmp_path_factory.mktemp("deploy") / "kubernetes"
    shutil.copytree(_FOLDER, copied)
    mine = copied / request.param
    mine.mkdir()
    (block,) = re.findall(r"<!-- built by [^>]*-->\n```yaml\n(.*?)```", _README, re.DOTALL)
    (mine / "kustomization.yaml").write_text(block)
    return mine


@pytest.fixture(scope="module")
def built(folder: Path) -> Kustomization:
    return Kustomization(folder)
