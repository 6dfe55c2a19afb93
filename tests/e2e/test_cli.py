"""The `s2spp` program as a person runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2spp.embedded import EmbeddedServer
from s2spp.video import open_frames
from tests.e2e.material import Clip

COMMANDS = ("serve", "segment", "demo", "evaluate", "bench", "train", "export", "quantise", "halve", "ablate")


def _run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "s2spp.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)


@pytest.fixture
def frames(tmp_path: Path, clip: Clip) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, jpeg in enumerate(clip.jpegs[:6]):
        (folder / f"{index:05d}.jpg").write_bytes(jpeg)
    (tmp_path / "first.png").write_bytes(clip.mask_png)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(command: str) -> None:
    done = _run(command, "--help")
    assert done.returncode == 0 and f"s2spp {command}" in done.stdout and "Example" in done.stdout


def test_serving_imports_no_torch_and_no_training_code() -> None:
    code = (
        "import sys, service.bootstrap, service.transport.rest, service.transport.grpc, service.runtime\n"
        "import s2spp.inprocess\n"
        "found = {m.split('.')[0] for m in sys.modules} & {'torch', 'onnx', 'model', 'onnxscript'}\n"
        "sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_bare_client_imports_no_server_side_package() -> None:
    code = (
        "import sys; from s2spp import Client; found = {m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'onnx', 'onnxruntime', 'fastapi', 'redis', 'model', 'uvicorn'}; sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_segment_in_process_and_over_a_server_write_the_same_masks(
    frames: Path, tmp_path: Path, server: EmbeddedServer, clip: Clip
) -> None:
    mask, here, there = str(tmp_path / "first.png"), tmp_path / "here", tmp_path / "there"
    video = tmp_path / "overlay.mp4"
    done = _run("segment", str(frames), "--mask", mask, "-o", str(here), "--overlay", str(video))
    assert done.returncode == 0, done.stderr
    done = _run("segment", str(frames), "--mask", mask, "-o", str(there), "--server", server.grpc)
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in here.iterdir())
    assert names == [f"{index:05d}.png" for index in range(6)]
    for name in names:
        ours, theirs = (np.array(Image.open(folder / name)) for folder in (here, there))
        assert ours.shape == clip.labels.shape and np.array_equal(ours, theirs)
    assert np.array_equal(np.array(Image.open(here / "00000.png")), clip.labels)
    assert sum(1 for _ in open_frames(video)) == 6


def test_an_interrupted_run_over_a_server_goes_on(tmp_path: Path, server: EmbeddedServer, clip: Clip) -> None:
    folder, mask = tmp_path / "frames", tmp_path / "first.png"
    folder.mkdir()
    jpegs = clip.jpegs * 3  # long enough to be hit in the middle, however busy the machine is
    for index, data in enumerate(jpegs):
        (folder / f"{index:05d}.jpg").write_bytes(data)
    mask.write_bytes(clip.mask_png)
    here, there = tmp_path / "here", tmp_path / "there"
    command = ("segment", str(folder), "--mask", str(mask), "--server", server.grpc)
    assert _run(*command, "-o", str(here)).returncode == 0
    finished = _run(*command, "-o", str(here), "--resume")
    assert finished.returncode == 0 and "nothing is left to do" in finished.stdout
    anew = _run(*command, "-o", str(here))
    assert anew.returncode == 1 and "masks of another run" in anew.stderr
    # By kill -9, and by being told to end (as by Ctrl-C, which a shell's background job does not hear).
    for number, blow in ((20, signal.SIGKILL), (60, signal.SIGTERM)):
        more = ("--resume",) if number == 60 else ()
        run = subprocess.Popen(
            [sys.executable, "-m", "s2spp.cli", *command, "-o", str(there), *more], stderr=subprocess.PIPE, text=True
        )
        while not (there / f"{number:05d}.png").exists():
            assert run.poll() is None, run.stderr.read() if run.stderr else ""
            time.sleep(0.002)
        run.send_signal(blow)
        _, said = run.communicate(timeout=60)
        assert run.returncode != 0
    assert "--resume goes on" in said and "Traceback" not in said
    forgotten = _run(*command, "-o", str(there))
    assert forgotten.returncode != 0 and "add --resume" in forgotten.stderr
    done = _run(*command, "-o", str(there), "--resume")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in here.iterdir())
    assert names == sorted(path.name for path in there.iterdir()) and len(names) == len(jpegs)
    for name in names:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name


def test_what_cannot_be_done_is_said_in_one_line(frames: Path, tmp_path: Path) -> None:
    first = str(tmp_path / "first.png")
    cases = [
        ("segment", "nowhere.mp4", "--mask", first, "-o", str(tmp_path / "o")),
        ("segment", str(frames), "--mask", str(tmp_path / "none.png"), "-o", str(tmp_path / "o")),
        ("segment", str(frames), "--mask", first, "-o", str(tmp_path)),
        ("segment", str(frames), "--mask", first, "-o", first),
        ("segment", str(frames), "--mask", str(frames / "00000.jpg"), "-o", str(tmp_path / "o")),
        ("segment", str(frames), "--mask", first, "-o", str(tmp_path / "o"), "--resume"),
        ("segment", str(frames), "--mask", first, "-o", str(tmp_path / "o"), "--server", "h:1", "--bundle", "auto"),
        ("evaluate", "--data", str(tmp_path), "--split", "val"),
        ("train", "--recipe", "nothing"),
        ("train", "--recipe", "smoke", "--data", str(tmp_path / "no-data"), "--out", str(tmp_path / "r")),
        ("ablate", "--table-only", "--out", str(tmp_path / "typo")),
        ("export", str(tmp_path / "none.pt"), "-o", str(tmp_path / "b")),
        ("serve", "--bundle", "nothing", "--data-dir", str(tmp_path / "d")),
        ("bench", "--paths", "smoke-signals"),
        ("bench", "--compare", str(tmp_path / "none.json")),
        ("bench", "--report", str(tmp_path / "page.html")),
        ("bench", "--from", str(tmp_path / "bench.json"), "--seconds", "3", "--no-store"),
    ]
    for case in cases:
        done = _run(*case)
        assert done.returncode == 1, (case, done.stdout, done.stderr)
        assert "error:" in done.stderr and "Traceback" not in done.stderr, (case, done.stderr)
        assert "Errno" not in done.stderr, (case, done.stderr)


def test_demo_follows_the_fish_on_both_ways(tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = _run("demo", "-o", str(output), "--frames", "24", "--json", str(tmp_path / "demo.json"))
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "demo.json").read_text())
    assert table["identical"] and [run["frames"] for run in table["runs"]] == [24, 24]
    # The look-alike and the lily pads come later. The first mask copied would score below 0.5.
    assert min(run["J"] for run in table["runs"]) > 0.4
    assert len(list((output / "masks").glob("*.png"))) == 24
    assert sum(1 for _ in open_frames(output / "overlay.mp4")) == 24
    # What the README's snippets start from.
    assert sum(1 for _ in open_frames(output / "frames")) == 24
    assert (output / "first.png").read_bytes() == (output / "masks" / "00000.png").read_bytes()


def test_bench_writes_its_table(tmp_path: Path) -> None:
    path, page = tmp_path / "bench.json", tmp_path / "page.md"
    small = ("--sessions", "1,2", "--objects", "1", "--seconds", "0.6", "--memory-frames", "20")
    done = _run("bench", *small, "--json", str(path), timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(path.read_text())
    assert {(run["path"], run["sessions"]) for run in result["runs"]} == {
        (way, count) for way in ("raw", "engine", "grpc", "ws", "rest") for count in (1, 2)
    }
    for run in result["runs"]:
        assert run["fps"] > 0 and 0 < run["ms_p50"] <= run["ms_p95"] and len(run["ms_slices"]) == 1
    assert result["memory"]["frames"][-1] == 20 and min(result["memory"]["rss_mb"]) > 10
    starts = {row["what"]: row["s_p50"] for row in result["start"]}
    assert 0 < starts["python alone"] < starts["imports of s2spp serve"] < starts["s2spp serve, until it answers"]
    stored = {(row["what"], row["objects"]): row["bytes_p50"] for row in result["store"]["rows"]}
    assert 0 < stored["commit", 1] < stored["resume", 1] and {objects for _, objects in stored} == {1}
    if result["runs"][0]["bundle"] == "s2spp-light-int8":  # float state packs worse once it has changed
        assert stored["commit", 1] < stored["opening commit", 1]
    # Against itself, without measuring again.
    done = _run("bench", "--from", str(path), "--compare", str(path), "--report", str(page))
    assert done.returncode == 0 and "faster" not in done.stdout.replace("faster or slower", ""), done.stdout
    assert "--memory-frames 20" in page.read_text() and page.with_suffix(".svg").exists()
    assert f"{page}, {page.with_suffix('.svg')}" in done.stdout
