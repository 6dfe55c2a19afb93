"""Which shipped bundle serves where, and the stored step that has the last word."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from service.bootstrap import load_runtime
from service.runtime import BundleError, OnnxRuntime, check_stored_step, choose, find_bundle, load_bundle
from service.settings import Settings

ZEN = "processor\t: 0\nflags\t\t: fpu sse2 avx2 avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu sse2 avx2 avx512_vnni\n"
HASWELL = "processor\t: 0\nflags\t\t: fpu sse2 avx2 fma\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\n"


@pytest.mark.skipif(sys.platform == "darwin", reason="reads /proc/cpuinfo, which macOS has not")
@pytest.mark.parametrize(("text", "expected"), [(ZEN, True), (HASWELL, False), (GRAVITON, True), ("", False)])
def test_what_the_processor_says_of_itself(text: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert choose.has_dot_products(tmp_path / "cpuinfo") is expected
    assert not choose.has_dot_products(tmp_path / "nothing")


needs_dot_products = pytest.mark.skipif(
    not choose.has_dot_products(), reason="this processor has no 8-bit dot products: int8 is not for it"
)


@pytest.mark.parametrize(
    ("has", "expected"),
    [pytest.param(True, "s2spp-light-int8", marks=needs_dot_products), (False, "s2spp-light")],
)
def test_auto_takes_int8_where_it_is_fast(has: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_dot_products", lambda: has)
    info = load_runtime(Settings.load(bundle="auto")).info
    assert info.name == expected and "8-bit dot products" in info.chosen
    assert choose.suitable("cuda")[0] == "s2spp-light"


def test_a_bundle_that_was_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_dot_products", lambda: True)
    info = load_runtime(Settings.load(bundle="s2spp-light")).info
    assert (info.name, info.chosen) == ("s2spp-light", "named in the settings")


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """The shipped int8 bundle as a machine sees it whose arithmetic is slightly another one: a cell to the side."""
    folder = Path(shutil.copytree(find_bundle("s2spp-light-int8"), tmp_path / "spoilt"))
    path = folder / "check.safetensors"
    stored = load_file(path)
    save_file(stored | {"probability": np.roll(stored["probability"], 1, axis=2)}, path)
    return folder


def test_a_machine_that_computes_something_else_is_found_out(spoilt: Path) -> None:
    bundle = load_bundle(str(spoilt))
    with pytest.raises(BundleError, match="a stored step comes out differently on this machine"):
        check_stored_step(OnnxRuntime(bundle), bundle.folder)
    with pytest.raises(BundleError, match="comes out differently"):
        load_runtime(Settings.load(bundle=str(spoilt)))


def test_auto_falls_back_to_float_and_says_so(
    spoilt: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(choose, "has_dot_products", lambda: True)
    monkeypatch.setattr(choose, "INT8", str(spoilt))
    with caplog.at_level(logging.WARNING):
        info = load_runtime(Settings.load(bundle="auto")).info
    assert info.name == "s2spp-light" and "comes out differently" in info.chosen
    # The reason goes to everybody who asks, the details to the log.
    assert "of the object" not in info.chosen and "of the object" in caplog.text


def test_auto_does_not_hide_a_damaged_bundle(spoilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_dot_products", lambda: True)
    monkeypatch.setattr(choose, "INT8", str(spoilt))
    with (spoilt / "weights.bin").open("r+b") as weights:
        weights.seek(1000)
        weights.write(b"spoilt")
    with pytest.raises(BundleError, match="damaged"):
        load_runtime(Settings.load(bundle="auto"))


def test_a_manifest_that_lists_no_graphs_is_refused(spoilt: Path) -> None:
    path = spoilt / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": []}))
    with pytest.raises(BundleError, match="does not list encode"):
        load_bundle(str(spoilt))


@pytest.mark.parametrize("name", ["s2spp-light", pytest.param("s2spp-light-int8", marks=needs_dot_products)])
def test_the_stored_step_of_a_shipped_bundle_holds_here(name: str) -> None:
    bundle = load_bundle(name)
    assert (bundle.folder / "check.safetensors").exists()
    check_stored_step(OnnxRuntime(bundle), bundle.folder)


def test_a_damaged_stored_step_is_said(spoilt: Path) -> None:
    (spoilt / "check.safetensors").write_bytes(b"no tensors")
    bundle = load_bundle(str(spoilt))
    with pytest.raises(BundleError, match="no stored step of this bundle"):
        check_stored_step(OnnxRuntime(bundle), bundle.folder)
