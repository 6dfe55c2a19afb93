"""The shipped bundle on onnxruntime: the contract of DESIGN's word EQUAL, and bundles that cannot be used."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from service.core.types import State
from service.runtime import BundleError, OnnxRuntime, find_bundle, load_bundle

SIZE = (128, 224)


@pytest.fixture(scope="module", params=["s2spp-light", "s2spp-light-int8"])
def runtime(request: pytest.FixtureRequest) -> OnnxRuntime:
    return OnnxRuntime(load_bundle(request.param), threads=2)


def _scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Smooth noise and a rectangle of it as the object."""
    rng = np.random.default_rng(seed)
    frame = cv2.resize(rng.integers(0, 255, (6, 9, 3), np.uint8), (size[1], size[0]))
    mask = np.zeros(size, np.uint8)
    top, left = rng.integers(10, size[0] // 2), rng.integers(10, size[1] // 2)
    mask[top : top + 40, left : left + 50] = 1
    return frame, mask


def _run(runtime: OnnxRuntime, seeds: list[int], row: list[int], steps: int = 3) -> tuple[NDArray[np.float32], State]:
    """`row[n]`: which of the scenes' frames object n is on; its mask is scene n's own."""
    scenes = [_scene(seed) for seed in seeds]
    frames = np.stack([frame for frame, _ in scenes[: max(row) + 1]])
    masks = np.stack([mask for _, mask in scenes])
    rows = np.array(row, np.int64)
    state = runtime.initialise(frames, masks, rows)
    for step in range(1, steps + 1):
        result = runtime.step(np.ascontiguousarray(np.roll(frames, 4 * step, axis=2)), rows, state)
        state = result.state
    return result.probability, state


@pytest.mark.parametrize("count", [2, 5, 16])
def test_batched_is_bit_identical_to_alone(runtime: OnnxRuntime, count: int) -> None:
    seeds = list(range(count))
    together, states = _run(runtime, seeds, seeds)
    for n in seeds:
        alone, own = _run(runtime, [n], [0])
        assert np.array_equal(together[n], alone[0])
        for name in own:
            assert np.array_equal(states[name][n], own[name][0]), name


def test_order_in_the_batch_changes_nothing(runtime: OnnxRuntime) -> None:
    forward, _ = _run(runtime, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    backward, _ = _run(runtime, [4, 3, 2, 1, 0], [0, 1, 2, 3, 4])
    assert np.array_equal(forward, backward[::-1])


def test_objects_share_a_frame(runtime: OnnxRuntime) -> None:
    """Three objects on one frame, encoded once, get what each gets alone on that frame."""
    frame, _ = _scene(0)
    masks = np.stack([_scene(seed)[1] for seed in range(3)])
    shared = runtime.initialise(frame[None], masks, np.zeros(3, np.int64))
    result = runtime.step(frame[None], np.zeros(3, np.int64), shared)
    for n in range(3):
        state = runtime.initialise(frame[None], masks[n : n + 1], np.zeros(1, np.int64))
        alone = runtime.step(frame[None], np.zeros(1, np.int64), state)
        assert np.array_equal(result.probability[n], alone.probability[0])


def test_states_are_what_the_manifest_says(runtime: OnnxRuntime) -> None:
    _, before = _run(runtime, [0], [0], steps=1)
    _, after = _run(runtime, [0], [0], steps=2)
    for spec in runtime.info.states:
        shape = [1] + [
            side if isinstance(side, int) else SIZE["HW".index(side[0])] // int(side.split("/")[1])
            for side in spec.shape
        ]
        assert list(before[spec.name].shape) == shape and before[spec.name].dtype == np.dtype(spec.dtype)
        assert np.array_equal(before[spec.name], after[spec.name]) == spec.constant, spec.name


@pytest.mark.parametrize("size", [(224, 128), (160, 160), (96, 384)])
def test_any_multiple_of_the_stride_runs(runtime: OnnxRuntime, size: tuple[int, int]) -> None:
    frame, mask = _scene(3, size)
    row = np.zeros(1, np.int64)
    result = runtime.step(frame[None], row, runtime.initialise(frame[None], mask[None], row))
    assert result.probability.shape == (1, size[0] // 2, size[1] // 2)
    assert result.probability.min() >= 0 and result.probability.max() <= 1 and result.compute_ms > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the C library keeps what is freed, by its own rules")
def test_opening_sessions_leaves_their_state_and_no_working_memory(runtime: OnnxRuntime) -> None:
    scenes = [_scene(seed, (256, 448)) for seed in range(8)]
    frames, masks = (np.stack(part) for part in zip(*scenes, strict=True))
    process = psutil.Process()
    before = process.memory_info().rss
    state = runtime.initialise(frames, masks, np.arange(8))
    left = process.memory_info().rss - before - sum(tensor.nbytes for tensor in state.values())
    assert left < 20e6, "working on eight frames takes 170 MB"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(find_bundle("s2spp-light"), tmp_path / "bundle"))


def test_a_bundle_by_folder(copied: Path) -> None:
    assert load_bundle(str(copied)).digest == load_bundle("s2spp-light").digest


def test_a_damaged_graph_is_refused(copied: Path) -> None:
    graph = bytearray((copied / "step.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (copied / "step.onnx").write_bytes(graph)
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(str(copied))


def test_what_is_missing_is_named(copied: Path) -> None:
    with pytest.raises(BundleError, match="s2spp-light"):
        load_bundle("no-such-model")
    (copied / "init.onnx").unlink()
    with pytest.raises(BundleError, match=r"init\.onnx"):
        load_bundle(str(copied))
    (copied / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match="not a bundle manifest"):
        load_bundle(str(copied))


def test_another_format_is_refused(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(BundleError, match="format 99"):
        load_bundle(str(copied))


def test_a_provider_that_is_not_there_is_said() -> None:
    with pytest.raises(BundleError, match="s2spp\\[gpu\\]"):
        OnnxRuntime(load_bundle("s2spp-light"), provider="cuda")
