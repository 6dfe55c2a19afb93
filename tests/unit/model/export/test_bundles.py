"""What an exported bundle promises."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from safetensors.numpy import load_file
from tiny_bundles import Exported, tiny

from model.config import NetworkConfig
from model.export import parity
from model.export.bundle import round_weights
from model.export.weights import bundle_weights

BUNDLES = ["light", "plain"]


@pytest.fixture(params=BUNDLES)
def exported(request: pytest.FixtureRequest) -> Exported:
    found: Exported = request.getfixturevalue(request.param)
    return found


def random_clip(frames: int, count: int, objects: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], ...]:
    """`frames` steps of `count` pictures, and the first masks of `objects`."""
    clips = [parity.parity_clip(frames, size, seed)[0] for seed in range(count)]
    masks = np.zeros((objects, *size), np.uint8)
    for number in range(objects):
        y, x = 5 + 3 * number % (size[0] // 2), 4 + 5 * number % (size[1] // 2)
        masks[number, y : y + size[0] // 3, x : x + size[1] // 3] = 1
    return np.stack(clips, axis=1), masks


def test_parity_is_checked_for_one_object_and_for_five_on_mixed_frames(exported: Exported) -> None:
    report = exported[1].parity
    assert [result.batch for result in report] == [1, 5]
    assert all(result.holds and max(result.probability, result.state) < 2e-3 for result in report)


@pytest.mark.parametrize("size", [(64, 96), (160, 64), (96, 96)], ids=["wide", "portrait", "square"])
@pytest.mark.parametrize("frame_row", [[0, 0], [1, 0, 1]], ids=["two of one", "three of two"])
def test_any_size_and_any_number_of_objects_gives_what_torch_gives(
    exported: Exported, size: tuple[int, int], frame_row: list[int]
) -> None:
    checkpoint, report = exported
    network = checkpoint.model()
    round_weights(network)
    rows = np.array(frame_row, np.int64)
    frames, masks = random_clip(4, int(rows.max()) + 1, len(rows), size)
    _, ours = parity.run_onnx(*parity.open_graphs(report.folder), frames, masks, rows)
    stride = checkpoint.network.output_stride
    assert ours.shape == (3, len(rows), size[0] // stride, size[1] // stride)
    assert ours.min() >= 0 and ours.max() <= 1
    np.testing.assert_allclose(ours, parity.run_torch(network, frames, masks, rows)[1], rtol=0, atol=2e-3)


def test_an_object_is_the_same_to_the_bit_alone_and_in_any_batch(exported: Exported) -> None:
    init, step = parity.open_graphs(exported[1].folder)
    frames, masks = random_clip(4, 3, 16, (64, 96))

    def run(objects: list[int]) -> NDArray[np.float32]:
        rows = np.array([number % 3 for number in objects], np.int64)
        return parity.run_onnx(init, step, frames, masks[objects], rows)[1]

    alone = np.concatenate([run([number]) for number in range(16)], axis=1)
    assert not np.array_equal(alone[:, 0], alone[:, 3])
    for objects in ([4, 9], [0, 15, 7, 3, 11], list(range(16)), list(range(15, -1, -1))):
        np.testing.assert_array_equal(run(objects), alone[:, objects])


def test_the_manifest_says_what_the_graphs_take_and_give(exported: Exported) -> None:
    checkpoint, report = exported
    manifest = json.loads((report.folder / "manifest.json").read_text())
    config = checkpoint.network
    assert manifest["format"] == 3 and manifest["name"] == "a-name" and manifest["steps_trained"] == 7
    assert manifest["pixel_budget"] == 256 * 448 and manifest["multiple"] == 32
    assert manifest["output_stride"] == config.output_stride
    assert (manifest["training_data"], manifest["licence"], manifest["scores"]) == (
        "photos of nothing",
        "none",
        {"tune/J": 0.5},
    )
    assert NetworkConfig.from_dict(manifest["network"]) == config
    files = b"".join((report.folder / part).read_bytes() for part in manifest["files"])
    assert manifest["files"] == ["init.onnx", "step.onnx", "encode.onnx", "recur.onnx", "weights.bin"]
    assert manifest["digest"] == report.digest == hashlib.sha256(files).hexdigest()
    init, step = parity.open_graphs(report.folder)
    names = [state["name"] for state in manifest["states"]]
    changing = [state["name"] for state in manifest["states"] if not state["constant"]]
    assert [value.name for value in init.get_inputs()] == ["frame", "mask", "frame_row"]
    assert [value.name for value in init.get_outputs()] == names
    assert [value.name for value in step.get_inputs()] == ["frame", "frame_row", *names]
    assert [value.name for value in step.get_outputs()] == ["probability", *(f"next_{name}" for name in changing)]
    frames, masks = random_clip(1, 1, 2, (64, 96))
    states = init.run(None, {"frame": frames[0], "mask": masks, "frame_row": np.zeros(2, np.int64)})
    for state, described in zip(states, manifest["states"], strict=True):
        channels, height, width = described["shape"]
        assert str(state.dtype) == described["dtype"] == "float16"
        assert state.shape == (2, channels, 64 // int(height.removeprefix("H/")), 96 // int(width.removeprefix("W/")))


def test_what_never_changes_is_constant(light: Exported) -> None:
    manifest = json.loads((light[1].folder / "manifest.json").read_text())
    constant = [state["name"] for state in manifest["states"] if state["constant"]]
    assert constant == ["reference_key", "reference_value"]


def test_weights_are_stored_as_float16(exported: Exported) -> None:
    report = exported[1]
    for part in ("init.onnx", "step.onnx"):
        initializers = onnx.load(report.folder / part).graph.initializer
        assert all(np.prod(t.dims) < 256 for t in initializers if t.data_type == TensorProto.FLOAT)
    size = sum(path.stat().st_size for path in report.folder.iterdir())
    assert report.megabytes == pytest.approx(size / 1e6)


def test_no_weight_is_stored_twice(light: Exported) -> None:
    """The encoder is in both graphs."""
    parameters = sum(p.numel() for p in light[0].model().parameters())
    assert (light[1].folder / "weights.bin").stat().st_size < 2 * parameters * 1.02


def test_training_goes_on_from_a_bundle(exported: Exported) -> None:
    """Every weight comes back, as float16 rounded it."""
    checkpoint, report = exported
    weights, expected = bundle_weights(report.folder), checkpoint.model().state_dict()
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight.half().float(), rtol=0, atol=0)


def test_the_stored_step_is_what_the_graphs_give(exported: Exported) -> None:
    stored = load_file(exported[1].folder / "check.safetensors")
    expected = stored.pop("probability")
    _, step = parity.open_graphs(exported[1].folder)
    np.testing.assert_array_equal(step.run(["probability"], stored)[0], expected)
    assert 0 < (expected > 0.5).mean() < 1


def test_a_light_bundle_is_small_enough_to_ship(light: Exported) -> None:
    assert light[1].megabytes < 20


def test_no_path_and_no_source_line_of_this_machine_gets_into_a_bundle(exported: Exported) -> None:
    checkout = str(Path(__file__).resolve().parents[4]).encode()
    for path in exported[1].folder.iterdir():
        content = path.read_bytes()
        for trace in (checkout, str(Path.home()).encode(), b"site-packages", b".py", b"forward("):
            assert trace not in content, (path.name, trace)


def test_mask_guidance_is_exported_without_a_word_and_served_by_the_same_contract(
    export: Callable[[NetworkConfig, Path], Exported],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    """Its init graph needs the mask alone, and is fed like any other."""
    _, report = export(tiny(recurrence="mask_guidance", distance=None), tmp_path / "guided")
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []
    manifest = json.loads((report.folder / "manifest.json").read_text())
    assert [state["name"] for state in manifest["states"]] == ["previous_mask"]
    assert all(result.probability < 1e-3 for result in report.parity)
