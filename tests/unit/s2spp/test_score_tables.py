"""What `s2spp evaluate` sums up of a long run, and which of its files a bundle takes scores from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.data.read import DataError
from model.data.youtube_vos import YoutubeVosDataset
from s2spp.evaluation import Prediction, open_dataset, score
from s2spp.score_tables import lasting, read_scores
from tests.fakes.youtube_vos import GREY, Square, Video, labels, write_split
from tests.unit.s2spp.test_seen_unseen import _davis

TABLE = {"split": "tune", "bundle": "bundles/mine", "J": 0.82149, "F": 0.79, "JF": 0.806}


def test_lasting_compares_frames_20_to_120_with_the_last_100() -> None:
    by_frame = {index: 0.0 for index in range(200)}
    by_frame |= {20: 1.0, 120: 1.0, 121: 1.0, 99: 1.0, 100: 1.0, 199: 1.0}
    # 20, 99, 100, 120 of 101 frames; 100, 120, 121, 199 of the last hundred.
    assert lasting(by_frame) == pytest.approx((4 / 101, 4 / 100))


def test_lasting_takes_the_frames_that_are_annotated() -> None:
    assert lasting({0: 1.0, 19: 1.0, 20: 0.5, 60: 0.7, 900: 0.3, 901: 0.2, 1000: 0.4}) == pytest.approx((0.6, 0.3))


def test_scores_of_the_very_model_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(TABLE))
    expected = {"tune/J": 0.8215, "tune/F": 0.79, "tune/JF": 0.806}
    assert read_scores(path, Path("runs/other.pt"), Path("bundles/mine")) == expected
    assert read_scores(path, str(Path("bundles/mine").resolve())) == expected
    with pytest.raises(ValueError, match=r"has the scores of bundles/mine, not of bundles/yours or yours"):
        read_scores(path, Path("bundles/yours"), "yours")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"loop": 1000}, "evaluate without --loop"),
        ({"crop": "1:1"}, "evaluate without --crop"),
        ({"way": "refined"}, "what is served is plain.*evaluate without --way"),
    ],
)
def test_scores_of_something_else_than_the_split_are_refused(
    more: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(TABLE | more))
    with pytest.raises(ValueError, match=message):
        read_scores(path, "bundles/mine")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", json.dumps({"steps": [1000], "rows": []}), json.dumps(TABLE | {"J": None})],
)
def test_another_file_is_said_to_be_one(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is not what `s2spp evaluate --json` writes"):
        read_scores(path, "bundles/mine")


def test_a_davis_folder_is_found_in_the_folder_of_all_data_sets(tmp_path: Path) -> None:
    """What S2SPP_DATA names is that folder, for every command."""
    root = _davis(tmp_path / "data" / "davis2016", 4, 4)
    (tmp_path / "data" / "stills").mkdir()
    for folder in (root, tmp_path / "data"):
        dataset = open_dataset(folder, None)
        assert dataset.root == root and [video.name for video in dataset.sequences] == ["a"]
    with pytest.raises(DataError, match="stills/JPEGImages: not a DAVIS folder"):
        open_dataset(tmp_path / "data" / "stills", None)


def test_j_of_a_frame_is_the_mean_over_its_objects(tmp_path: Path) -> None:
    """A small object that is lost counts as much as a large one that is held."""
    large, small = Square("cat", [(10, 20)] * 4), Square("owl", [None, (70, 40), (70, 40), (70, 40)])
    video = Video(GREY, {1: large, 2: small})
    sequence = YoutubeVosDataset(write_split(tmp_path, {"0a": video})).sequences[0]
    predictions = [Prediction(labels({1: large}, index)) for index in range(4)]
    found = score(sequence, predictions)
    # The second object is given in frame 1; before, it does not count.
    assert found is not None and found.frame_j == {0: 1.0, 1: 0.5, 2: 0.5, 3: 0.5}
    with pytest.raises(ValueError, match="0a, frame 0: prediction is"):
        score(sequence, [Prediction(drawn.labels[:40]) for drawn in predictions])
