"""Which videos `s2spp quantise` calibrates on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.data.davis import TUNE
from model.export import int8
from s2spp.commands.quantise import quantise


@pytest.fixture
def picked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of quantising: the videos it was asked to calibrate on."""
    names: list[str] = []

    def note(source: Path, folder: Path, name: str, videos: Any, scores: Any) -> Any:
        names[:] = [video.name for video in videos]
        return int8.Int8Report(folder, "0" * 64, megabytes=1.0, feeds=1, convolutions=1, states_in_bytes=())

    monkeypatch.setattr(int8, "quantise_bundle", note)
    return names


def _folder(root: Path, names: list[str]) -> Path:
    for name in names:
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            path = root / "davis2016" / kind / "480p" / name / f"00000.{suffix}"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((20, 30), 255, np.uint8)).save(path)
    return root


def test_videos_are_picked_evenly_from_the_first_to_the_last(tmp_path: Path, picked: list[str]) -> None:
    data = _folder(tmp_path, [f"v{number:02d}" for number in range(26)])
    quantise(tmp_path / "float", tmp_path / "int8", data, videos=12)
    assert len(picked) == len(set(picked)) == 12 and picked[0] == "v00" and picked[-1] == "v25"
    steps = np.diff([int(name[1:]) for name in picked])
    assert set(steps) == {2, 3}
    quantise(tmp_path / "float", tmp_path / "int8", data, videos=100)
    assert len(picked) == 26


def test_videos_that_choose_between_models_calibrate_none(tmp_path: Path, picked: list[str]) -> None:
    quantise(tmp_path / "float", tmp_path / "int8", _folder(tmp_path / "a", ["bear", *TUNE]), videos=12)
    assert picked == ["bear"]
    with pytest.raises(ValueError, match="only videos of the tune split"):
        quantise(tmp_path / "float", tmp_path / "int8", _folder(tmp_path / "b", [*TUNE]), videos=12)
