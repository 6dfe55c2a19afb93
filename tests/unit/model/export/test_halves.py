"""A step in two halves is the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from model.export.check import write_check
from model.export.halves import ENCODE, RECUR, STEP, split_step, write_halves
from model.export.parity import open_graphs, parity_clip
from service.runtime import find_bundle
from tests.integration.tiny_bundle import write_tiny_bundle

Arrays = dict[str, NDArray[np.generic]]


def opened(folder: Path, name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(folder / name, options, providers=["CPUExecutionProvider"])


def in_halves(folder: Path, given: Arrays) -> list[NDArray[np.generic]]:
    encode, recur = opened(folder, ENCODE), opened(folder, RECUR)
    names = [value.name for value in encode.get_outputs()]
    features = dict(zip(names, encode.run(None, {"frame": given["frame"]}), strict=True))
    taken = {value.name for value in recur.get_inputs()}
    assert "frame" not in taken and taken == set(features) | (given.keys() - {"frame"})
    assert [value.name for value in recur.get_outputs()] == [value.name for value in opened(folder, STEP).get_outputs()]
    return list(recur.run(None, {**features, **{name: value for name, value in given.items() if name != "frame"}}))


def first_step(folder: Path, size: tuple[int, int]) -> Arrays:
    """Three objects on two frames, as they come to their first step."""
    frames, mask = parity_clip(3, size, seed=1)
    row = np.array([0, 1, 0], np.int64)
    init, step = open_graphs(folder)
    masks = np.stack([np.roll(mask, 7 * n, axis=1) for n in range(3)])
    states = init.run(None, {"frame": frames[:2], "mask": masks, "frame_row": row})
    names = [value.name for value in init.get_outputs()]
    taken = {value.name for value in step.get_inputs()}
    return {"frame": frames[1:], "frame_row": row} | {
        name: state for name, state in zip(names, states, strict=True) if name in taken
    }


@pytest.mark.parametrize("bundle", ["s2spp-light", "s2spp-light-int8"])
def test_both_halves_together_are_the_step(bundle: str) -> None:
    folder = find_bundle(bundle)
    given = first_step(folder, (128, 224))
    whole = opened(folder, STEP).run(None, given)
    for one, other in zip(in_halves(folder, given), whole, strict=True):
        assert one.dtype == other.dtype
        # onnxruntime joins other operators at the cut, so that float sums may round otherwise.
        assert np.abs(one.astype(np.float32) - other.astype(np.float32)).max() < 0.01


@pytest.mark.parametrize("bundle", ["s2spp-light", "s2spp-light-int8"])
def test_shipped_halves_are_those_of_the_shipped_step(bundle: str) -> None:
    folder = find_bundle(bundle)
    for name, made in zip((ENCODE, RECUR), split_step(onnx.load(folder / STEP)), strict=True):
        shipped = onnx.load(folder / name)
        assert [node.SerializeToString() for node in shipped.graph.node] == [
            node.SerializeToString() for node in made.graph.node
        ]


def test_what_sees_objects_is_all_in_the_second_half() -> None:
    folder = find_bundle("s2spp-light-int8")
    encode, recur = (onnx.load(folder / name, load_external_data=False).graph for name in (ENCODE, RECUR))
    assert [value.name for value in encode.input] == ["frame"]
    convolutions = [sum(node.op_type == "Conv" for node in graph.node) for graph in (encode, recur)]
    whole = onnx.load(folder / STEP, load_external_data=False).graph
    assert sum(convolutions) == sum(node.op_type == "Conv" for node in whole.node) and min(convolutions) > 10
    late = [node.input[1] for node in recur.node if node.op_type == "Conv"]
    assert not [name for name in late if name.startswith(("network.encoder", "network.neck", "network.key"))]
    bytes_first = [value.type.tensor_type.elem_type for value in encode.output if value.type.tensor_type.elem_type != 7]
    assert set(bytes_first) == {onnx.TensorProto.UINT8}, "8-bit features are handed over as bytes"


def test_a_graph_without_weights_in_a_file_of_their_own(tmp_path: Path) -> None:
    folder = write_tiny_bundle(tmp_path / "tiny")
    write_halves(folder)
    given = first_step(folder, (32, 48))
    for one, other in zip(in_halves(folder, given), opened(folder, STEP).run(None, given), strict=True):
        assert np.array_equal(one, other)


def test_halves_of_another_step_are_not_sealed(tmp_path: Path) -> None:
    one, other = (write_tiny_bundle(tmp_path / name, gain=gain) for name, gain in (("one", 0.2), ("other", 0.9)))
    write_check(one, 16)
    (one / RECUR).write_bytes((other / RECUR).read_bytes())
    with pytest.raises(ValueError, match="off from"):
        write_check(one, 16)
