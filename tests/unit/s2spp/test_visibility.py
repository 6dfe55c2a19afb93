"""Counting how often `visible` is right, and what `s2spp evaluate` does with it."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from model.data.youtube_vos import YoutubeVosDataset
from s2spp import score_tables
from s2spp.evaluation import Prediction, predict, score
from s2spp.visibility import Visibility
from tests.fakes.youtube_vos import GREY, Square, Video, write_split

AT, FAR = (10, 20), (60, 20)


def test_objects_are_counted_by_what_is_said_and_by_their_pixels() -> None:
    """Of six objects, those of ids 1 to 3 are there and 4 to 6 are not; 2 and 5 have no pixel in the mask."""
    truth, labels = np.array([[1, 2, 3, 0]], np.uint8), np.array([[1, 3, 4, 6]], np.uint8)
    found = Visibility.of([1, 2, 3, 4, 5, 6], {1, 3, 4}, labels, truth)
    assert found == Visibility(absent=3, absent_found=2, absent_empty=1, there=3, there_found=2, there_drawn=2)
    assert found + found == Visibility(6, 4, 2, 6, 4, 4)


def _results(tmp_path: Path, visible: list[frozenset[int] | None]) -> score_tables.Results:
    """A square that is gone in frames 2 and 3 of five, followed by a tracker that never moves it and says `visible`."""
    videos = {"0a": Video(GREY, {1: Square("cat", [AT, AT, None, None, AT])})}
    (video,) = YoutubeVosDataset(write_split(tmp_path / "split", videos)).sequences

    def stays(frames: Iterable[NDArray[np.uint8]], first: NDArray[np.uint8]) -> Iterator[Prediction]:
        return (Prediction(first, said) for _, said in zip(frames, visible, strict=True))

    return {video.name: score(video, predict(video, stays))}


def _printed(results: score_tables.Results) -> str:
    console = Console(file=io.StringIO(), width=100)
    score_tables.print_visible(console, results)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_video_is_scored_by_what_the_tracker_says(tmp_path: Path) -> None:
    there = frozenset({1})
    results = _results(tmp_path, [there, there, frozenset(), there, frozenset()])
    expected = {
        "absent": 2, "absent_found": 1, "absent_empty": 0, "there": 2, "there_found": 1, "there_drawn": 2,
    }  # fmt: skip
    assert score_tables.json_table("s", "b", results, None)["visible"] == expected
    row = next(line for line in _printed(results).splitlines() if "0a" in line)
    assert [cell.strip() for cell in row.split("│")[2:-1]] == ["2", "1", "0", "2", "1", "2"]


def test_a_tracker_that_does_not_say_is_not_counted(tmp_path: Path) -> None:
    results = _results(tmp_path, [None] * 5)
    assert "visible" not in score_tables.json_table("s", "b", results, None) and _printed(results) == ""


def test_late_objects_are_counted_after_the_frame_that_gives_them(tmp_path: Path) -> None:
    videos = {"0a": Video(GREY, {1: Square("cat", [AT] * 5), 2: Square("owl", [None, FAR, FAR, None, FAR])})}
    (video,) = YoutubeVosDataset(write_split(tmp_path / "split", videos)).sequences

    def stays(frames: Iterable[NDArray[np.uint8]], first: NDArray[np.uint8]) -> Iterator[Prediction]:
        return (Prediction(first, frozenset(np.unique(first[first > 0]).tolist())) for _ in frames)

    scored = score(video, predict(video, stays))
    assert scored is not None
    assert scored.visible == Visibility(absent=1, absent_found=0, absent_empty=0, there=6, there_found=6, there_drawn=6)
