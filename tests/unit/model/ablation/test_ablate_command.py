"""`s2spp ablate`: rows that are run once, share weights where they should, and make one table."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from model.ablation import scoring
from model.ablation.rows import HELD_OUT
from model.config import DistanceConfig, MemoryConfig, NetworkConfig
from model.network import S2Spp
from model.training import loop
from model.training.checkpoint import Checkpoint
from model.training.config import TRAIN_RECIPES, TrainConfig
from s2spp.commands.ablate import ablate

NETWORK = NetworkConfig(
    "mobilenet_v2", (MemoryConfig(32, 4, 3),), (4, 4, 4), 3, distance=DistanceConfig(2, 1), pixel_budget=64 * 96
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The held-out videos and a tune split, 6 frames of a moving square each."""
    root = tmp_path / "data" / "davis2016"
    for split, names in (("train", HELD_OUT), ("tune", ("one", "two"))):
        for name in names:
            for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
                folder = root / kind / "480p" / name
                folder.mkdir(parents=True)
                for t in range(6):
                    picture = np.zeros((60, 100), np.uint8)
                    picture[20:40, 10 + 3 * t : 34 + 3 * t] = 255
                    cv2.imwrite(str(folder / f"{t:05d}.{suffix}"), picture)
        listed = root / "ImageSets" / "480p" / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names) + "\n")
    return tmp_path / "data"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Instead of training: a network of random weights. The runs that asked for it."""
    asked: list[str] = []

    def train(config: TrainConfig, options: loop.RunOptions) -> Any:
        path = options.out / "checkpoint.pt"
        if not path.exists():
            asked.append(options.out.name)
            torch.manual_seed(config.seed)
            weights = S2Spp(NETWORK).state_dict()
            Checkpoint(NETWORK, TRAIN_RECIPES["smoke"](), config.steps, weights, None, {}, {}).save(path)
        return SimpleNamespace(finished=True)

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(scoring, "_COMPOSITES", 2)
    return asked


def test_a_row_is_run_once_and_ways_follow_with_the_weights_of_their_network(
    data: Path, trained: list[str], tmp_path: Path
) -> None:
    out, table = tmp_path / "runs", tmp_path / "table.json"
    ablate(data, out, steps=5, only=["base", "paper", "refined"], json_file=table)
    assert trained == ["base-0", "paper-0", "base-1", "paper-1", "base-2", "paper-2"]
    ablate(data, out, steps=5, only=["base", "following"])
    assert len(trained) == 6
    rows = {row["row"]: row for row in json.loads(table.read_text())["rows"]}
    assert list(rows) == ["base", "paper", "refined"]
    assert len(rows["base"]["seeds"]) == 3 and len(set(rows["base"]["seeds"])) > 1
    assert rows["refined"]["difference"]["less"] == "paper" and rows["paper"]["difference"] is None
    assert rows["refined"]["difference"]["seeds"] == [0]
    assert json.loads(table.read_text())["ends"]["seeds"] == [0, 1, 2]
    saved = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/result.json")}
    assert len(saved["refined-0"]["videos"]) == len(HELD_OUT) + 2
    # The same weights, other edges.
    assert saved["refined-0"]["videos"] != saved["paper-0"]["videos"]
    ablate(data, out, table_only=True, json_file=table)
    assert list(row["row"] for row in json.loads(table.read_text())["rows"])[-1] == "following"


def test_what_does_not_compare_is_refused_before_anything_is_trained(
    data: Path, trained: list[str], tmp_path: Path
) -> None:
    ablate(data, tmp_path, steps=5, only=["base"])
    for again in ("one_skip", "base"):
        with pytest.raises(ValueError, match=r"trained for \[5\] steps, not 6"):
            ablate(data, tmp_path, steps=6, only=[again])
    with pytest.raises(ValueError, match="no row nothing; there are base"):
        ablate(data, tmp_path, only=["nothing"])
    with pytest.raises(ValueError, match="leave --only out"):
        ablate(data, tmp_path, only=["base"], table_only=True)
    assert trained == ["base-0", "base-1", "base-2"]


def test_no_results_are_an_error_and_not_an_empty_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="typo: no saved result in it"):
        ablate(tmp_path, tmp_path / "typo", table_only=True)


def test_a_way_trains_nothing(data: Path, trained: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even for a moment: a finished run that is trained again writes its checkpoint anew."""
    ablate(data, tmp_path, steps=5, only=["paper"])

    def refuse(config: TrainConfig, options: loop.RunOptions) -> Any:
        raise AssertionError(f"{options.out} is trained again")

    monkeypatch.setattr(loop, "train", refuse)
    ablate(data, tmp_path, steps=5, only=["refined", "following"])
    assert all((tmp_path / f"{row}-0" / "result.json").exists() for row in ("refined", "following"))


def test_a_way_waits_for_its_weights(
    data: Path, trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process may be training them."""
    ablate(data, tmp_path, steps=5, only=["refined"])
    assert trained == [] and "waits for paper-0" in capsys.readouterr().out
