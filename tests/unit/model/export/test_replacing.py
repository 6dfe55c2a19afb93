"""A bundle is replaced as a whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_bundles import CARD, Exported, checkpoint_of, tiny

from model.export import bundle, export_bundle, folder, parity
from model.export.folder import replace_folder


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the exporter handles it."""


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A former bundle, with a model card beside its files."""
    path = tmp_path / "shelf" / "bundle"
    (path / "pictures").mkdir(parents=True)
    for name in (
        "init.onnx",
        "step.onnx",
        "encode.onnx",
        "recur.onnx",
        "weights.bin",
        "check.safetensors",
        "manifest.json",
        "README.md",
        "pictures/one.png",
    ):
        (path / name).write_text(f"former {name}")
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs and parity that cost nothing: what is tested here is what happens around them."""

    def write(network: Any, work: Path, say: bundle.Say) -> list[tuple[int, int]]:
        for part in ("init.onnx", "step.onnx"):
            (work / part).write_text(f"new {part}")
        return [(12, 32), (12, 32), (8, 16), (8, 16)]

    monkeypatch.setattr(bundle, "_write_graphs", write)

    def complete(work: Path) -> None:
        for part in ("encode.onnx", "recur.onnx", "weights.bin"):
            (work / part).write_text(f"new {part}")

    monkeypatch.setattr(bundle, "complete", complete)
    monkeypatch.setattr(bundle, "write_check", lambda work, multiple: (work / "check.safetensors").write_text("new"))
    monkeypatch.setattr(bundle, "check_parity", lambda *args: [parity.Parity(1, 12, 0.0, 0.0, 0.0)])


@pytest.mark.parametrize("weight", [0.05, float("nan")])
@pytest.mark.parametrize("part", ["init.onnx", "step.onnx"])
def test_a_graph_that_computes_something_else_is_refused(
    part: str, weight: float, plain: Exported, former: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One convolution of one graph has `weight` everywhere."""

    def write(network: Any, work: Path, say: bundle.Say) -> list[tuple[int, int]]:
        for name in ("init.onnx", "step.onnx"):
            # Weights inside, as an export has them at this point.
            onnx.save(onnx.load(plain[1].folder / name), work / name)
        model = onnx.load(work / part)
        tensor = next(t for t in model.graph.initializer if t.name.endswith("encoder.blocks.0.0.weight"))
        tensor.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(tensor), weight), tensor.name))
        (work / part).write_bytes(model.SerializeToString())
        return []

    before = contents(former)
    monkeypatch.setattr(bundle, "_write_graphs", write)
    with pytest.raises(ValueError, match="disagree"):
        export_bundle(plain[0], former, "new", CARD)
    assert contents(former) == before
    assert os.listdir(former.parent) == ["bundle"]


@pytest.mark.usefixtures("tiny_vgg", "quick")
def test_nothing_is_left_of_a_first_export_that_fails_parity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "check_parity", lambda *args: [parity.Parity(5, 12, 0.0, 0.0, 0.01)])
    with pytest.raises(ValueError, match="disagree"):
        export_bundle(checkpoint_of(tiny()), tmp_path / "bundle", "new", CARD)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("state", "probability", "pixels", "holds"),
    [
        (0.001, 0.01, 0.0005, True),
        (0.03, 0.0, 0.0, False),
        (0.0, 0.06, 0.0, False),
        (0.0, 0.0, 0.002, False),
        (float("nan"), 0.0, 0.0, False),
        (0.0, float("nan"), 0.0, False),
    ],
)
def test_what_parity_means(state: float, probability: float, pixels: float, holds: bool) -> None:
    assert parity.Parity(1, 12, state, probability, pixels).holds is holds


@pytest.mark.usefixtures("tiny_vgg", "quick")
def test_a_new_bundle_takes_the_place_of_the_former_beside_its_model_card(former: Path) -> None:
    export_bundle(checkpoint_of(tiny()), former, "new", CARD)
    after = contents(former)
    assert after["init.onnx"] == b"new init.onnx" and after["step.onnx"] == b"new step.onnx"
    assert b'"name": "new"' in after["manifest.json"]
    assert after["README.md"] == b"former README.md" and after["pictures/one.png"] == b"former pictures/one.png"
    assert os.listdir(former.parent) == ["bundle"]


@pytest.mark.usefixtures("tiny_vgg", "quick")
def test_an_export_that_was_killed_left_the_former_bundle_and_the_next_one_works(
    former: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(former)

    def killed(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(bundle, "replace_folder", killed)
        # What a killed process leaves is not cleaned up.
        patch.setattr(bundle.shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(Killed):
            export_bundle(checkpoint_of(tiny()), former, "new", CARD)
    assert contents(former) == before
    assert len(os.listdir(former.parent)) == 2
    export_bundle(checkpoint_of(tiny()), former, "new", CARD)
    assert contents(former)["init.onnx"] == b"new init.onnx"
    assert os.listdir(former.parent) == ["bundle"]


@pytest.mark.usefixtures("tiny_vgg", "quick")
def test_a_folder_of_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no bundle"):
        export_bundle(checkpoint_of(tiny()), tmp_path, "new", CARD)
    assert contents(tmp_path) == {"diary.txt": b"mine"}
    (tmp_path / "empty").mkdir()
    export_bundle(checkpoint_of(tiny()), tmp_path / "empty", "new", CARD)
    assert (tmp_path / "empty" / "manifest.json").exists()


def two_folders(root: Path) -> tuple[Path, Path]:
    new, target = root / "new", root / "target"
    for path in (new, target):
        path.mkdir()
        (path / "file").write_text(path.name)
    return new, target


def test_where_folders_cannot_be_exchanged_they_are_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_exchange", lambda one, other: False)
    new, target = two_folders(tmp_path)
    replace_folder(new, target)
    assert contents(tmp_path) == {"target/file": b"new"}


_REPLACER = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("folder", sys.argv[1])
folder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(folder)
new, target = Path(sys.argv[2]) / "new", Path(sys.argv[2]) / "target"
for number in range(10**9):
    new.mkdir()
    for part in "ab":
        (new / part).write_text(str(number))
    folder.replace_folder(new, target)
"""


def test_whoever_looks_sees_one_whole_folder_even_after_a_kill(tmp_path: Path) -> None:
    new, target = two_folders(tmp_path)
    if not folder._exchange(new, target):
        pytest.skip("this file system cannot exchange two folders")
    for path in (new, target):
        (path / "file").unlink()
    new.rmdir()
    for part in "ab":
        (target / part).write_text("0")
    replacer = subprocess.Popen([sys.executable, "-c", _REPLACER, folder.__file__, str(tmp_path)])
    seen = set()
    try:
        deadline = time.monotonic() + 30
        while len(seen) < 50 and time.monotonic() < deadline:
            view = os.open(target, os.O_RDONLY)  # never raises: target is always there
            try:
                parts = [_read_at(view, part) for part in "ab"]
            except FileNotFoundError:
                continue  # this one has been replaced, and removed, since it was opened
            finally:
                os.close(view)
            assert parts[0] == parts[1]
            seen.add(parts[0])
    finally:
        replacer.send_signal(signal.SIGKILL)
        replacer.wait()
    assert len(seen) == 50
    assert (target / "a").read_text() == (target / "b").read_text() != ""


def _read_at(view: int, name: str) -> str:
    with open(os.open(name, os.O_RDONLY, dir_fd=view)) as file:
        return file.read()


@pytest.mark.usefixtures("tiny_vgg")
def test_every_stage_is_told_as_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command prints them: an export takes a minute or two."""
    there: list[tuple[str, set[str]]] = []
    work = tmp_path / ".bundle.partial"

    def note(stage: str) -> None:
        there.append((stage.split()[0], {path.suffix for path in work.iterdir()}))

    monkeypatch.setattr(bundle, "write_onnx", lambda *args: args[-1].write_bytes(b"graph"))
    monkeypatch.setattr(bundle, "complete", lambda work: (work / "weights.bin").touch())
    monkeypatch.setattr(bundle, "check_parity", lambda *args: [])
    monkeypatch.setattr(bundle, "seal", lambda *args: ("0" * 64, 1.0))
    export_bundle(checkpoint_of(tiny()), tmp_path / "bundle", "new", CARD, note)
    assert there == [
        ("tracing", set()),
        ("tracing", {".onnx"}),
        ("cutting", {".onnx"}),
        ("comparing", {".onnx", ".bin"}),
        ("storing", {".onnx", ".bin"}),
    ]
