"""The page of overlays: failures are looked for, not met by luck."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from model.data.davis import DavisDataset
from s2spp.report import SequenceReport, evenly, worst_moments, write_report
from tests.unit.s2spp.test_seen_unseen import _davis


def test_the_worst_moments_are_apart_from_each_other() -> None:
    by_frame = {index: 0.9 for index in range(100)} | {40: 0.1, 41: 0.05, 42: 0.2, 80: 0.3, 99: 0.4}
    assert worst_moments(by_frame, 100) == [41, 80, 99]
    assert worst_moments({5: 0.5}, 100) == [5] and worst_moments({}, 100) == []


def test_pictures_go_from_the_first_frame_to_the_last() -> None:
    assert evenly(1000)[0] == 0 and evenly(1000)[-1] == 999 and len(evenly(1000)) == 8
    assert evenly(3) == [0, 1, 2]


def test_a_page_begins_with_the_worst_sequence_and_its_worst_frames(tmp_path: Path) -> None:
    sequences = []
    for name in ("good", "bad", "unknown"):
        video = DavisDataset(_davis(tmp_path / name, 20, 20), None).sequences[0]
        object.__setattr__(video, "name", name)
        sequence = SequenceReport(video)
        for index in range(20):
            sequence.add(video.labels(index) if index != 13 else np.zeros((64, 96), np.uint8))
        sequences.append(sequence)
    frame_j = {"good": {index: 0.9 for index in range(20)}, "bad": {index: float(index != 13) for index in range(20)}}
    rows = [("all", 0.7, 0.7), ("good", 0.9, 0.9), ("bad", 0.5, 0.5)]
    write_report(tmp_path / "page.html", "title", rows, sequences, frame_j)
    page = (tmp_path / "page.html").read_text()
    assert re.findall(r"<h2>(\w+)", page) == ["bad", "good", "unknown"]
    captions = re.findall(r"<figcaption>([^<]*)", page)
    assert captions[0] == "frame 13, J 0.00" and "frame 19" in captions
    assert page.count("where it is worst") == 2
    # The frame without its mask looks otherwise than the others.
    assert sequences[1].picture(13) != sequences[1].picture(12)
