"""What commands refuse before they begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from s2spp.cli import app
from s2spp.commands.evaluate import evaluate
from s2spp.commands.segment import segment
from s2spp.commands.train import train
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


def test_a_recipe_that_goes_on_needs_what_it_goes_on_from(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    with pytest.raises(ValueError, match=r"light_cpu_refine goes on from a trained network: .* --init-from"):
        train("light_cpu_refine", data=nothing, out=tmp_path / "run")
    # Given that, or begun before, it comes as far as the data.
    with pytest.raises(ValueError, match="--data names"):
        train("light_cpu_refine", data=nothing, out=tmp_path / "run", init_from=tmp_path / "bundle")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").touch()
    with pytest.raises(ValueError, match="--data names"):
        train("light_cpu_refine", data=nothing, out=tmp_path / "run")
    with pytest.raises(ValueError, match="--init-from"):
        train("light_cpu_refine", data=nothing, out=tmp_path / "run", resume=False)


def test_a_network_that_there_is_not_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no network 'nope'; there are .*paper"):
        train("smoke", network="nope", data=tmp_path)


@pytest.mark.parametrize("command", ["train", "ablate"])
def test_no_time_is_less_than_none(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--max-minutes", "-1"])
    assert done.exit_code == 2 and "--max-minutes" in done.output
