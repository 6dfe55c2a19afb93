"""The shipped bundle on onnxruntime: the contract of DESIGN's word EQUAL, and bundles that cannot be used."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from service.core.ports import Runtime, StepResult
from service.core.state import State
from service.runtime import BundleError, DeviceRuntime, OnnxRuntime, find_bundle, load_bundle

SIZE = (128, 224)


@pytest.fixture(scope="module", params=["s2spp-light", "s2spp-light-int8", "as on a device"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param == "as on a device":
        return DeviceRuntime(load_bundle("s2spp-light"), max_batch=16, provider="cpu")
    return OnnxRuntime(load_bundle(request.param), threads=2)


@pytest.fixture(scope="module")
def on_cpu() -> OnnxRuntime:
    runtime = OnnxRuntime(load_bundle("s2spp-light"), threads=2)
    runtime.warm_up()
    return runtime


def _scene(seed: int, size: tuple[int, int] = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Smooth noise and a rectangle of it as the object."""
    rng = np.random.default_rng(seed)
    frame = cv2.resize(rng.integers(0, 255, (6, 9, 3), np.uint8), (size[1], size[0]))
    mask = np.zeros(size, np.uint8)
    top, left = rng.integers(10, size[0] // 2), rng.integers(10, size[1] // 2)
    mask[top : top + 40, left : left + 50] = 1
    return frame, mask


def _run(runtime: Runtime, seeds: list[int], steps: int = 3) -> list[StepResult]:
    """Of each scene, run together."""
    frames, masks = zip(*(_scene(seed) for seed in seeds), strict=True)
    states = runtime.initialise(frames, [mask[None] for mask in masks])
    for step in range(1, steps + 1):
        results = runtime.step([np.roll(frame, 4 * step, axis=1) for frame in frames], states)
        states = [result.state for result in results]
    return results


def _tensors(state: State) -> dict[str, NDArray[np.generic]]:
    return {**state.changing.tensors(), **state.constant.tensors()}


@pytest.mark.parametrize("count", [2, 5, 16])
def test_batched_is_bit_identical_to_alone(runtime: Runtime, count: int) -> None:
    for seed, together in enumerate(_run(runtime, list(range(count)))):
        (alone,) = _run(runtime, [seed])
        assert np.array_equal(together.probability, alone.probability)
        for name, tensor in _tensors(alone.state).items():
            assert np.array_equal(_tensors(together.state)[name], tensor), name


def test_order_in_the_batch_changes_nothing(runtime: Runtime) -> None:
    forward, backward = _run(runtime, [0, 1, 2, 3, 4]), _run(runtime, [4, 3, 2, 1, 0])
    for one, other in zip(forward, reversed(backward), strict=True):
        assert np.array_equal(one.probability, other.probability)


def test_objects_share_a_frame(runtime: Runtime) -> None:
    """Three objects on one frame, encoded once, get what each gets alone on that frame."""
    frame, _ = _scene(0)
    masks = np.stack([_scene(seed)[1] for seed in range(3)])
    (result,) = runtime.step([frame], runtime.initialise([frame], [masks]))
    for n in range(3):
        (alone,) = runtime.step([frame], runtime.initialise([frame], [masks[n : n + 1]]))
        assert np.array_equal(result.probability[n], alone.probability[0])


def test_a_part_of_a_batch_does_not_keep_the_batch_alive(on_cpu: OnnxRuntime) -> None:
    frames, masks = zip(*(_scene(seed) for seed in range(3)), strict=True)
    states = on_cpu.initialise(frames, [mask[None] for mask in masks])
    for state, result in zip(states, on_cpu.step(frames, states), strict=True):
        made = [*_tensors(state).values(), *result.state.changing.tensors().values(), result.probability]
        # (What onnxruntime made owns its memory by a base of its own, which is no array.)
        assert all(not isinstance(array.base, np.ndarray) for array in made)
        assert all(array.base is None for array in _tensors(state).values())
        assert result.state.constant is state.constant, "constant states stay the session's own"


@pytest.mark.parametrize("bundle", ["s2spp-light", "s2spp-light-int8"])
def test_a_step_is_the_same_on_all_cores_on_one_beside_others_and_encoded_ahead(bundle: str) -> None:
    runtime = OnnxRuntime(load_bundle(bundle), threads=2)
    frame, mask = _scene(0)
    (state,) = runtime.initialise([frame], [np.stack([mask, np.roll(mask, 30, axis=1)])])
    (expected,) = runtime.step([frame], [state])

    def stepped(wide: bool, ahead: bool) -> StepResult:
        seen = runtime.encode(frame, wide=wide) if ahead else frame
        return runtime.step([seen], [state], wide=wide)[0]

    with ThreadPoolExecutor(2) as threads:
        beside = [*threads.map(lambda _: stepped(False, True), range(6))]
    for result in [stepped(True, True), stepped(False, False), *beside]:
        assert np.array_equal(result.probability, expected.probability)
        for name, tensor in _tensors(expected.state).items():
            assert np.array_equal(_tensors(result.state)[name], tensor), name


def test_states_are_what_the_manifest_says(runtime: Runtime) -> None:
    (before,), (after,) = _run(runtime, [0], steps=1), _run(runtime, [0], steps=2)
    earlier, later = _tensors(before.state), _tensors(after.state)
    for spec in runtime.info.states:
        shape = [1] + [
            side if isinstance(side, int) else SIZE["HW".index(side[0])] // int(side.split("/")[1])
            for side in spec.shape
        ]
        assert list(earlier[spec.name].shape) == shape and earlier[spec.name].dtype == np.dtype(spec.dtype)
        assert np.array_equal(earlier[spec.name], later[spec.name]) == spec.constant, spec.name


@pytest.mark.parametrize("size", [(224, 128), (160, 160), (96, 384)])
def test_any_multiple_of_the_stride_runs(runtime: Runtime, size: tuple[int, int]) -> None:
    frame, mask = _scene(3, size)
    (result,) = runtime.step([frame], runtime.initialise([frame], [mask[None]]))
    assert result.probability.shape == (1, size[0] // 2, size[1] // 2)
    assert result.probability.min() >= 0 and result.probability.max() <= 1 and result.compute_ms > 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the C library keeps what is freed, by its own rules")
def test_opening_sessions_leaves_their_state_and_no_working_memory(on_cpu: OnnxRuntime) -> None:
    scenes = [_scene(seed, (256, 448)) for seed in range(8)]
    frames, masks = zip(*scenes, strict=True)
    process = psutil.Process()
    before = process.memory_info().rss
    for _ in range(2):  # what the first leaves in pieces the second uses
        states = on_cpu.initialise(frames, [mask[None] for mask in masks])
    left = process.memory_info().rss - before - sum(state.nbytes for state in states)
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


@pytest.mark.parametrize("change", [{"dtype": "uint8"}, {"name": "other"}])
def test_graphs_of_other_states_than_the_manifest_says_are_refused(copied: Path, change: dict[str, str]) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["states"][0] |= change
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="not those of the manifest's states"):
        OnnxRuntime(load_bundle(str(copied)), threads=1)


def test_a_provider_that_is_not_there_is_said() -> None:
    with pytest.raises(BundleError, match="s2spp\\[gpu\\]"):
        DeviceRuntime(load_bundle("s2spp-light"), max_batch=16)
