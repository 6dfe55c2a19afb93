"""What commands refuse before they begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s2spp.commands.evaluate import evaluate
from s2spp.commands.segment import segment
from s2spp.labels import save_labels


@pytest.mark.parametrize("name", ["out.gif", "out.txt", "out"])
def test_an_overlay_is_an_mp4(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"--overlay writes an mp4 video, NAME\.mp4; got .*{name}$"):
        segment("video.mp4", tmp_path / "first.png", tmp_path / "masks", overlay=tmp_path / name)


def test_an_overlay_never_takes_the_place_of_its_video(tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    video.write_bytes(b"whole")
    save_labels(tmp_path / "first.png", np.ones((4, 6), np.uint8))
    with pytest.raises(ValueError, match="is the video that is read"):
        segment(str(video), tmp_path / "first.png", tmp_path / "masks", overlay=video)
    assert video.read_bytes() == b"whole"


def test_a_report_is_an_html_page(tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    picture.write_bytes(b"a picture")
    with pytest.raises(ValueError, match=r"--report writes an HTML page, NAME\.html; got .*page\.png"):
        evaluate(tmp_path, report=picture)
    assert picture.read_bytes() == b"a picture"
