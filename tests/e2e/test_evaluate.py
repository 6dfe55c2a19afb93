"""`s2spp evaluate` on a YouTube-VOS folder, as a person runs it; every score is worked out by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes.youtube_vos import BLACK, GREY, Square, Video, labels, write_meta, write_split
from tests.integration.tiny_bundle import write_tiny_bundle

# A 20 x 20 square's boundary is a ring of 21 x 21 with 80 pixels. Of two rings 10 pixels apart, 12 pixels of the upper
# side, 12 of the lower one and 2 of the side between lie within a pixel of the other (0.008 of the diagonal, rounded
# up). So a square 10 pixels off has J = 10/30 and F = 26/80; one far away has 0 and 0.
AT, TEN_OFF, FAR = (10, 20), (20, 20), (60, 20)
LATE_AT, LATE_TEN_OFF = (70, 40), (70, 30)
# The frame that gives an object and the last one do not count.
HELD_OUT = {
    # cat: J (1 + 1/3 + 0) / 3, F (1 + 26/80 + 0) / 3. owl, which enters later: J (1 + 1/3) / 2, F (1 + 26/80) / 2.
    "0a": Video(
        GREY,
        {
            1: Square("cat", [AT, AT, TEN_OFF, FAR, AT]),
            2: Square("owl", [None, LATE_AT, LATE_AT, LATE_TEN_OFF, LATE_AT]),
        },
    ),
    # Three frames of five are followed: J and F 3/5; with the first mask copied they are 1.
    "0b": Video(BLACK, {1: Square("cat", [AT] * 7)}),
    # J and F 1/2.
    "0c": Video(GREY, {1: Square("owl", [AT, FAR, AT, AT])}),
}
CATS = {"t": Video(GREY, {1: Square("cat", [AT])})}
OWLS = {"t": Video(GREY, {1: Square("owl", [AT])})}

J_CAT, J_OWL = (4 / 9 + 3 / 5) / 2, (2 / 3 + 1 / 2) / 2
F_CAT, F_OWL = ((1 + 26 / 80) / 3 + 3 / 5) / 2, ((1 + 26 / 80) / 2 + 1 / 2) / 2
OVERALL = (J_CAT + J_OWL + F_CAT + F_OWL) / 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def _evaluate(bundle: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "s2spp.cli", "evaluate", "--bundle", str(bundle), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def _scores(stdout: str, start: str) -> list[float]:
    """The numbers of the table row that begins with `start`."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in stdout.splitlines() if "│" in line]
    (row,) = (row for row in rows if row[0].startswith(start))
    return [float(cell) for cell in row[1:] if cell]


def test_overall_with_the_train_split_beside(bundle: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "held-out", HELD_OUT)
    train = write_meta(tmp_path / "train" / "meta.json", CATS)
    table, page = tmp_path / "table.json", tmp_path / "page.html"
    done = _evaluate(bundle, "--data", tmp_path, "--split", "held-out", "--json", table, "--report", page)
    assert done.returncode == 0, done.stderr

    expected = {"J_seen": J_CAT, "J_unseen": J_OWL, "F_seen": F_CAT, "F_unseen": F_OWL, "overall": OVERALL}
    assert all(name in done.stdout for name in expected)
    assert _scores(done.stdout, str(bundle)[:8]) == pytest.approx(list(expected.values()), abs=6e-4)
    assert f"seen: the categories of {train}" in done.stdout
    # The mean over objects, beside it: both cats and both owls.
    assert _scores(done.stdout, "mean")[:2] == pytest.approx([(J_CAT + J_OWL) / 2, (F_CAT + F_OWL) / 2], abs=6e-4)

    written = json.loads(table.read_text())
    assert written["youtube_vos"] == {**{k: pytest.approx(v) for k, v in expected.items()}, "train_meta": str(train)}
    copied = written["copy_first_mask"]["youtube_vos"]
    assert copied["J_seen"] == pytest.approx((4 / 9 + 1) / 2) and copied["J_unseen"] == pytest.approx(J_OWL)
    assert written["without_truth"] == []

    html = page.read_text()
    assert f"seen categories<td>{J_CAT:.3f}<td>{F_CAT:.3f}" in html
    assert f"unseen categories<td>{J_OWL:.3f}<td>{F_OWL:.3f}" in html


def test_videos_looped_and_cropped(bundle: Path, tmp_path: Path) -> None:
    """Two objects, which the square about the middle of both shows whole. Each has a J of its own, of which the frame
    has the mean: all pixels together would be right in 600 of 1,000, not 2/3."""
    videos = {"0a": Video(GREY, {1: Square("cat", [AT] * 6), 2: Square("owl", [(40, 20)] * 5 + [(40, 30)])})}
    split = write_split(tmp_path / "held-out", videos)
    write_meta(tmp_path / "train" / "meta.json", CATS)
    table, page = tmp_path / "table.json", tmp_path / "page.html"
    done = _evaluate(bundle, "--data", split, "--loop", "140", "--crop", "1:1", "--json", table, "--report", page)
    assert done.returncode == 0, done.stderr
    written = json.loads(table.read_text())
    assert written["loop"] == 140 and written["crop"] == "1:1"
    # Every tenth frame has the second object ten pixels off: J of both is (1 + 1/3) / 2 there.
    off = [1 - (1 / 3 if index % 10 == 5 else 0) for index in range(140)]
    expected = {"J_20_120": sum(off[20:121]) / 101, "J_last_100": sum(off[40:]) / 100}
    assert written["lasting"]["0a"] == pytest.approx(expected)
    assert "does it last?" in done.stdout and "1:1, looped to 140 frames" in " ".join(done.stdout.split())
    # The worst moments are shown, far from each other.
    assert page.read_text().count("J 0.67") >= 3


def test_train_meta_says_what_is_seen(bundle: Path, tmp_path: Path) -> None:
    split = write_split(tmp_path / "held-out", HELD_OUT)
    write_meta(tmp_path / "train" / "meta.json", CATS)
    named = write_meta(tmp_path / "elsewhere.json", OWLS)
    table = tmp_path / "table.json"
    done = _evaluate(bundle, "--data", split, "--train-meta", named, "--json", table)
    assert done.returncode == 0, done.stderr
    scores = json.loads(table.read_text())["youtube_vos"]
    assert (scores["J_seen"], scores["J_unseen"]) == pytest.approx((J_OWL, J_CAT))
    assert scores["overall"] == pytest.approx(OVERALL) and scores["train_meta"] == str(named)


def test_without_an_unseen_category_there_is_no_overall(bundle: Path, tmp_path: Path) -> None:
    split = write_split(tmp_path / "train", HELD_OUT)
    table = tmp_path / "table.json"
    done = _evaluate(bundle, "--data", tmp_path, "--split", "train", "--json", table)
    assert done.returncode == 0, done.stderr
    assert "no YouTube-VOS overall score" in done.stdout and "--train-meta" in done.stdout
    written = json.loads(table.read_text())
    assert written["J"] == pytest.approx((J_CAT + J_OWL) / 2) and "youtube_vos" not in written

    # Asked for, it is an error, before anything is run.
    done = _evaluate(bundle, "--data", split, "--train-meta", split / "meta.json", "--json", tmp_path / "none.json")
    assert done.returncode == 1 and "lists every category" in done.stderr and "frames" not in done.stderr
    assert not (tmp_path / "none.json").exists()


def test_first_masks_alone_are_never_scored(bundle: Path, tmp_path: Path) -> None:
    late = {1: Square("cat", [AT] * 5), 2: Square("owl", [None, LATE_AT, *[LATE_AT] * 3])}
    # Three annotated frames, each of which only gives an object: they once made a score of 0.
    late[3] = Square("owl", [None, None, (40, 0), (40, 0), (40, 0)])
    videos = {"0a": Video(GREY, {1: Square("cat", [AT] * 4)}), "0b": Video(GREY, late)}
    split = write_split(tmp_path / "valid", videos, first_masks_only=True)
    write_meta(tmp_path / "train" / "meta.json", CATS)

    table, out = tmp_path / "table.json", tmp_path / "submission" / "Annotations"
    for wanted in ([], ["--json", table], ["--json", table, "--out", out]):
        done = _evaluate(bundle, "--data", split, *wanted)
        assert done.returncode == 1 and "no ground truth" in done.stderr and "--out FOLDER" in done.stderr
        assert not table.exists() and not out.exists()

    done = _evaluate(bundle, "--data", split, "--out", out, "--report", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert f"no score: {split} has no ground truth" in done.stdout and "│" not in done.stdout
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert written == sorted(str(p.relative_to(split / "JPEGImages").with_suffix(".png")) for p in split.rglob("*.jpg"))
    for index in range(5):
        image = Image.open(out / "0b" / f"{5 * index:05d}.png")
        assert image.mode == "P" and np.array_equal(np.array(image), labels(late, index))
    assert "<table>" not in (tmp_path / "page.html").read_text()


def test_a_video_without_truth_among_others_counts_for_nothing(bundle: Path, tmp_path: Path) -> None:
    split = write_split(tmp_path / "held-out", HELD_OUT)
    for path in sorted((split / "Annotations" / "0b").iterdir())[1:]:
        path.unlink()
    table = tmp_path / "table.json"
    done = _evaluate(bundle, "--data", split, "--json", table, "--out", tmp_path / "masks")
    assert done.returncode == 0, done.stderr
    assert "1 of 3 sequences have no ground truth" in done.stdout and _scores(done.stdout, "0b") == []
    written = json.loads(table.read_text())
    assert written["without_truth"] == ["0b"] and [s["name"] for s in written["sequences"]] == ["0a", "0c"]
    assert written["J"] == pytest.approx((4 / 9 + 2 / 3 + 1 / 2) / 3)
    assert len(list((tmp_path / "masks" / "0b").iterdir())) == 7
