"""The int8 form of a bundle. What it costs in accuracy is measured on video (`s2spp evaluate`), not here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tiny_bundles import Exported

from model.data.davis import DavisDataset
from model.export import parity
from model.export.int8 import Int8Report, quantise_bundle
from service.runtime.choose import has_dot_products

needs_dot_products = pytest.mark.skipif(
    not has_dot_products(), reason="on this processor 8-bit sums overflow: it is served the float bundle"
)


def manifest(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "manifest.json").read_text())
    return found


def run(folder: Path, objects: list[int]) -> NDArray[np.float32]:
    init, step = parity.open_graphs(folder)
    clips = [parity.parity_clip(4, (64, 96), seed) for seed in range(3)]
    frames = np.stack([pictures for pictures, _ in clips], axis=1)
    rows = np.array([number % 3 for number in objects], np.int64)
    masks = np.stack([np.roll(clips[number % 3][1], 2 * number, axis=1) for number in objects])
    return parity.run_onnx(init, step, frames, masks, rows)[1]


def test_every_convolution_of_the_step_is_in_eight_bits(int8: Int8Report) -> None:
    graph = onnx.load(int8.folder / "step.onnx").graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == int8.convolutions > 50
    assert all(made_by[name] == "DequantizeLinear" for conv in convolutions for name in conv.input[:2])


def test_the_frame_is_read_as_the_bytes_that_it_is(int8: Int8Report) -> None:
    graph = onnx.load(int8.folder / "step.onnx").graph
    kinds, name = [], "frame"
    for _ in range(4):
        (node,) = (node for node in graph.node if name in node.input and node.op_type != "Shape")
        kinds.append(node.op_type)
        name = node.output[0]
    assert kinds == ["Reshape", "Transpose", "DequantizeLinear", "Conv"]


def test_distances_between_cells_stay_in_float(int8: Int8Report) -> None:
    """In 8 bits those of neighbours would be told apart by whole steps of the farthest ones."""
    graph = onnx.load(int8.folder / "step.onnx").graph
    squares = {name for node in graph.node if node.op_type == "Pow" for name in node.output}
    assert squares
    reached: set[str] = set(squares)
    for node in graph.node:
        if not reached.isdisjoint(node.input) and node.op_type in ("Unsqueeze", "Add", "Reshape", "Mul"):
            reached.update(node.output)
    assert len(reached) > len(squares) + 2
    assert not [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in reached]


def test_an_objects_features_are_picked_with_a_pixels_channels_together(int8: Int8Report) -> None:
    """Several times faster with many objects: see `_gather_whole_pixels`."""
    graph = onnx.load(int8.folder / "step.onnx").graph
    made_by = {name: node for node in graph.node for name in node.output}
    read_by = {name: node for node in graph.node for name in node.input}

    def beyond(by: dict[str, onnx.NodeProto], name: str) -> onnx.NodeProto:
        found = by[name]
        while found.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found = by[found.input[0] if by is made_by else found.output[0]]
        return found

    fixed = {tensor.name for tensor in graph.initializer}
    gathers = [
        node
        for node in graph.node
        if node.op_type == "Gather" and node.input[1] not in fixed and not node.name.startswith("attend")
    ]
    assert len(gathers) > 4
    for node in gathers:
        to, back = beyond(made_by, node.input[0]), beyond(read_by, node.output[0])
        assert [list(turn.attribute[0].ints) for turn in (to, back)] == [[0, 2, 3, 1], [0, 3, 1, 2]]


def test_gates_are_split_as_bytes(int8: Int8Report) -> None:
    """The runtime leaves out what restores them and rounds them again, by one scale."""
    graph = onnx.load(int8.folder / "step.onnx").graph
    made_by = {name: node for node in graph.node for name in node.output}
    splits = [node for node in graph.node if node.op_type == "Split" and not node.name.startswith("attend")]
    assert len(splits) == 3
    for split in splits:
        restored = made_by[split.input[0]]
        rounded = [node for name in split.output for node in graph.node if name in node.input]
        assert [node.op_type for node in (restored, *rounded)] == ["DequantizeLinear", *["QuantizeLinear"] * 4]
        assert {tuple(node.input[1:]) for node in rounded} == {tuple(restored.input[1:])}


@needs_dot_products
def test_masks_stay_close_to_the_float_ones(light: Exported, int8: Int8Report) -> None:
    """With random weights: a trained network is closer still."""
    ours, floats = run(int8.folder, [0, 1, 2]), run(light[1].folder, [0, 1, 2])
    assert np.abs(ours - floats).mean() < 0.1
    assert not np.array_equal(ours, floats)


def test_an_object_is_the_same_to_the_bit_alone_and_in_any_batch(int8: Int8Report) -> None:
    alone = np.concatenate([run(int8.folder, [number]) for number in range(16)], axis=1)
    assert not np.array_equal(alone[:, 0], alone[:, 3])
    for objects in ([4, 9], [0, 15, 7, 3, 11], list(range(16))):
        np.testing.assert_array_equal(run(int8.folder, objects), alone[:, objects])


def test_it_says_what_it_is_made_of_and_is_half_as_large(light: Exported, int8: Int8Report) -> None:
    ours, floats = manifest(int8.folder), manifest(light[1].folder)
    assert ours["quantised_from"] == floats["digest"] != ours["digest"] == int8.digest
    assert [state | {"dtype": ""} for state in ours["states"]] == [state | {"dtype": ""} for state in floats["states"]]
    assert int8.states_in_bytes == tuple(spec["name"] for spec in ours["states"] if spec["dtype"] == "uint8") != ()
    assert ours["name"] == "light-int8" and ours["scores"] == {}
    assert int8.megabytes < 0.6 * light[1].megabytes


@pytest.mark.parametrize(
    ("exact", "tolerance"), [(True, 0.0), pytest.param(False, 0.1, marks=needs_dot_products)], ids=["float", "8 bits"]
)
def test_its_stored_step_was_worked_out_in_float(int8: Int8Report, exact: bool, tolerance: float) -> None:
    """By which a processor is found out whose 8-bit sums overflow, the one that made the bundle included."""
    stored = load_file(int8.folder / "check.safetensors")
    expected = stored.pop("probability")
    _, step = parity.open_graphs(int8.folder, exact=exact)
    found = step.run(["probability"], stored)[0]
    assert np.abs(found - expected).sum() <= tolerance * expected.sum()


def test_what_cannot_be_quantised_is_refused(
    int8: Int8Report, plain: Exported, videos: DavisDataset, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="int8 bundle already"):
        quantise_bundle(int8.folder, tmp_path / "again", "again", videos.sequences)
    with pytest.raises(ValueError, match="only MobileNetV2"):
        quantise_bundle(plain[1].folder, tmp_path / "vgg", "vgg", videos.sequences)
    with pytest.raises(ValueError, match="nothing to calibrate on"):
        quantise_bundle(plain[1].folder, tmp_path / "none", "none", [])
    assert not any(tmp_path.iterdir())
