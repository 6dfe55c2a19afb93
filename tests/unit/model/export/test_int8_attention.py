"""Attention in 8 bits, in the shipped int8 bundle and in one that is made now: as good as in float, and once for
objects that ask the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from model.export.int8 import Int8Report
from model.export.int8_attention import attend_in_bytes, products_in_float
from model.export.parity import open_graphs, parity_clip
from service.runtime import find_bundle
from service.runtime.choose import has_dot_products

Arrays = dict[str, NDArray[Any]]
SIZE = (128, 224)
CELLS = 8 * 14  # of stride 16
# attend0 reads the reference, attend1 the previous frame, which prefers what is near.
READS = ("attend0", "attend1")

needs_dot_products = pytest.mark.skipif(
    not has_dot_products(), reason="on this processor 8-bit sums overflow: it is served the float bundle"
)


@pytest.fixture(params=["shipped", "made now"])
def folder(request: pytest.FixtureRequest) -> Path:
    if request.param == "shipped":
        return find_bundle("s2spp-light-int8")
    made: Int8Report = request.getfixturevalue("int8")
    return made.folder


def inside(folder: Path, names: list[str], feed: Arrays, *, exact: bool) -> Arrays:
    """Tensors from within the step graph."""
    model = onnx.load(folder / "step.onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if exact:
        products_in_float(model.graph)
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    step = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, step.run(names, feed), strict=True))


def opened(folder: Path, frame: NDArray[np.uint8], masks: NDArray[np.uint8]) -> Arrays:
    """States of objects marked on one frame."""
    init, _ = open_graphs(folder)
    row = np.zeros(len(masks), np.int64)
    found = init.run(None, {"frame": frame[None], "mask": masks, "frame_row": row})
    return dict(zip((value.name for value in init.get_outputs()), found, strict=True))


def marked(count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frames, and masks of `count` objects."""
    frames, mask = parity_clip(4, SIZE, seed=3)
    return frames, np.stack([np.roll(mask, 9 * n, axis=1) for n in range(count)])


def fed(states: Arrays, frame: NDArray[np.uint8]) -> Arrays:
    """Inputs of the step in which all objects are on one frame."""
    row = np.zeros(len(states["rnn1_h"]), np.int64)
    return {"frame": frame[None], "frame_row": row, **states}


def stepped(folder: Path, feed: Arrays) -> Arrays:
    _, step = open_graphs(folder)
    return dict(zip((value.name for value in step.get_outputs()), step.run(None, feed), strict=True))


def after_a_step(folder: Path, states: Arrays, frame: NDArray[np.uint8]) -> Arrays:
    given = stepped(folder, fed(states, frame))
    return {name: given.get(f"next_{name}", state) for name, state in states.items()}


def joined(*parts: Arrays) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("exact", [True, pytest.param(False, marks=needs_dot_products)], ids=["float", "8 bits"])
@pytest.mark.parametrize("read", READS)
def test_what_is_read_is_close_to_what_float_reads(folder: Path, read: str, exact: bool) -> None:
    graph = onnx.load(folder / "step.onnx").graph
    nodes = {node.name: node for node in graph.node}
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scale, zero = (held[name] for name in nodes[f"{read}_likeness"].input[3:5])
    key, value = nodes[f"{read}_key"].input[0], nodes[f"{read}_value"].input[0]
    distances = [nodes[f"{read}_nearness"].input[1]] if f"{read}_nearness" in nodes else []
    assert bool(distances) == (read == "attend1")
    frames, masks = marked(2)
    names = [f"{read}_query", key, value, *distances, f"{read}_likeness", f"{read}_sums", f"{read}_largest"]
    found = inside(folder, names, fed(opened(folder, frames[0], masks), frames[2]), exact=exact)
    query = (found[f"{read}_query"].astype(np.float64) - zero) * scale
    root = query.shape[2] ** 0.5
    # A key is off by half a step at most, and as often this way as that.
    off = found[f"{read}_likeness"] - query @ found[key].astype(np.float64) / root
    assert np.all(np.abs(off) <= np.abs(query).sum(axis=2, keepdims=True) * scale / 2 / root + 1e-3)
    assert np.abs(off).mean() < 2 * np.linalg.norm(query, axis=2).mean() * scale / 12**0.5 / root
    likeness = found[f"{read}_likeness"].astype(np.float64)
    if distances:
        likeness = likeness - found[distances[0]]
    weights = np.exp(likeness - likeness.max(axis=-1, keepdims=True))
    expected = (weights / weights.sum(axis=-1, keepdims=True)) @ found[value].transpose(0, 2, 1)
    # Not of the mean itself: behind it is what an 8-bit convolution reads, of a range of its own.
    sums = found[f"{read}_sums"]
    mean = sums[..., :-1] / sums[..., -1:] * found[f"{read}_largest"]
    assert np.linalg.norm(mean - expected) < 0.03 * np.linalg.norm(expected)


def test_objects_marked_together_ask_once(folder: Path) -> None:
    frames, masks = marked(3)
    feed = fed(opened(folder, frames[0], masks), frames[1])
    names = [f"{read}_{name}" for read in READS for name in ("likeness", "of_objects")]
    assert [array.shape for array in inside(folder, names, feed, exact=True).values()] == [
        (1, CELLS, CELLS),
        (3, CELLS, CELLS),
    ] * 2


def test_objects_marked_later_ask_for_themselves_and_nobody_notices(folder: Path) -> None:
    """Of the reference they have another key than the first object, of the previous frame, after a step, the same."""
    frames, masks = marked(4)
    early = after_a_step(folder, opened(folder, frames[0], masks[:2]), frames[1])
    late = after_a_step(folder, opened(folder, frames[1], masks[2:]), frames[1])
    together = fed(joined(early, late), frames[2])
    asked = inside(folder, [f"{read}_likeness" for read in READS], together, exact=False)
    assert [len(likeness) for likeness in asked.values()] == [3, 1]
    whole = stepped(folder, together)
    for objects, alone in (([0, 1], early), ([2, 3], late)):
        for name, found in stepped(folder, fed(alone, frames[2])).items():
            np.testing.assert_array_equal(found, whole[name][objects])


def test_objects_on_different_frames_do_not_share(folder: Path) -> None:
    frames, masks = marked(2)
    states = opened(folder, frames[0], masks)  # the same keys, but what compares them with these are different frames
    feed: Arrays = {"frame": frames[1:3], "frame_row": np.array([0, 1]), **states}
    whole = stepped(folder, feed)
    for place in range(2):
        alone = {name: state[place : place + 1] for name, state in states.items()}
        for name, found in stepped(folder, fed(alone, frames[1 + place])).items():
            np.testing.assert_array_equal(found[0], whole[name][place])


def test_an_attention_of_another_form_is_refused() -> None:
    model = onnx.load(find_bundle("s2spp-light") / "step.onnx")
    with pytest.raises(ValueError, match="expected DequantizeLinear to make"):
        attend_in_bytes(model)
