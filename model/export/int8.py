"""A float bundle to int8: static quantisation (activations uint8, weights int8 per channel), calibrated on real clips.

Nothing is scaled by what is in a batch, so an object's mask does not depend on who shares the run. h, c and what is
remembered of the previous frame are rounded to 8 bits (float cells gained nothing)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from model.data.sequence import Sequence as Video
from model.export.bundle import MANIFEST, complete, seal, write_beside
from model.export.calibration import Feed, calibrate
from model.export.int8_attention import attend_in_bytes
from model.export.int8_states import states_in_bytes
from model.export.onnx_files import HALF
from model.export.stem import widen_stem

# What stands between two convolutions is quantised too, else every one of them would go to float and back. Gates are
# split as the bytes that they are, and then go to float: the same to the bit, and a quarter of what is moved.
_OPERATORS = ["Conv", "Add", "Clip", "Relu", "Concat", "Resize", "Gather", "Transpose", "Reshape", "Split"]
# The stem's input is (pixel - 128) / 127.5: a scale and a zero point that take the frame's own bytes as they are.
_STEM_SCALE, _STEM_ZERO = 1 / 127.5, 128


@dataclass(frozen=True)
class Int8Report:
    folder: Path
    digest: str
    megabytes: float
    feeds: int
    convolutions: int
    states_in_bytes: tuple[str, ...]


def quantise_bundle(
    source: Path, folder: Path, name: str, videos: Sequence[Video], scores: Mapping[str, float] | None = None
) -> Int8Report:
    """Write the int8 bundle `folder` of the float bundle `source`, calibrated on the first frames of `videos`. Its init
    graph, which runs once in a session, has 8-bit weights and float arithmetic. `scores`: its own, where they have been
    measured; those of the float model are not. Raises ValueError for a source that cannot be quantised, DataError for
    unreadable videos."""
    manifest: dict[str, Any] = json.loads((source / MANIFEST).read_text())
    if "quantised_from" in manifest:
        raise ValueError(f"{source} is an int8 bundle already")
    seen = calibrate(source, manifest, videos)
    if not seen.steps:
        raise ValueError("nothing to calibrate on: no video shows an object for three frames")
    with write_beside(folder.absolute(), source) as work:
        step = _quantised(source / "step.onnx", seen.steps)
        init = _stored_as_int8(source / "init.onnx", step)
        in_bytes = states_in_bytes(step, init, seen.starts)
        widen_stem(step)
        _write(step, work / "step.onnx")
        _write(init, work / "init.onnx")
        complete(work)
        manifest |= {"name": name, "quantised_from": manifest["digest"], "scores": dict(scores or {})}
        manifest["states"] = [
            spec | {"dtype": "uint8"} if spec["name"] in in_bytes else spec for spec in manifest["states"]
        ]
        digest, megabytes = seal(work, manifest)
    convolutions = sum(node.op_type == "Conv" for node in step.graph.node)
    return Int8Report(folder, digest, megabytes, len(seen.steps), convolutions, tuple(in_bytes))


def _quantised(source: Path, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """The step graph, its convolutions and attention in 8 bits."""
    with tempfile.TemporaryDirectory(prefix="s2spp-int8-") as folder:
        whole, prepared, quantised = (Path(folder) / f"{name}.onnx" for name in ("whole", "prepared", "quantised"))
        # The tools lose weights that lie in a file of their own.
        onnx.save(onnx.load(source), whole)
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        model = onnx.load(prepared)
        pixels = _normalised_frame(model.graph)
        _gather_whole_pixels(model.graph)
        onnx.save(model, prepared)
        stem = {"scale": np.array(_STEM_SCALE, np.float32), "zero_point": np.array(_STEM_ZERO, np.uint8)}
        quantize_static(
            prepared,
            quantised,
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=_of_no_convolution(model.graph),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"TensorQuantOverrides": {pixels: [stem]}},
        )
        model = onnx.load(quantised)
    attend_in_bytes(model)
    _feed_bytes(model.graph, pixels)
    return model


def _stored_as_int8(source: Path, step: onnx.ModelProto) -> onnx.ModelProto:
    """The init graph with 8-bit weights and float arithmetic: it runs once in a session, so that only its size counts.
    The encoder's weights are those of the int8 `step` graph, which are then stored once for both."""
    taken = {tensor.name: tensor for tensor in step.graph.initializer}
    model = onnx.load(source)
    graph = model.graph
    casts = {node.input[0]: node for node in graph.node if node.op_type == "Cast" and node.input[0].endswith(HALF)}
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor).astype(np.float32)
        if tensor.name not in casts or values.ndim != 4:
            continue
        name = tensor.name.removesuffix(HALF)
        parts = [taken[part] for part in (f"{name}_quantized", f"{name}_scale") if part in taken]
        if not parts:
            scale = np.maximum(np.abs(values).max(axis=(1, 2, 3)), 1e-12) / 127
            steps = np.round(values / scale[:, None, None, None])
            parts = [
                numpy_helper.from_array(steps.astype(np.int8), f"{name}_quantized"),
                numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"),
            ]
        graph.initializer.remove(tensor)
        graph.initializer.extend(parts)
        cast = casts[tensor.name]
        restored = helper.make_node("DequantizeLinear", [part.name for part in parts], list(cast.output), axis=0)
        graph.node.insert(list(graph.node).index(cast), restored)
        graph.node.remove(cast)
    return model


def _write(model: onnx.ModelProto, path: Path) -> None:
    _drop_unused(model.graph)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def _normalised_frame(graph: onnx.GraphProto) -> str:
    """The tensor that the frame is normalised into: frame -> Transpose -> Cast -> Div -> Sub. Whoever asks for its
    shape only does not count."""
    name = "frame"
    for kind in ("Transpose", "Cast", "Div", "Sub"):
        found = [node for node in graph.node if name in node.input and node.op_type != "Shape"]
        if len(found) != 1 or found[0].op_type != kind:
            raise ValueError(f"expected one {kind} of {name!r} in the step graph: only MobileNetV2 can be quantised")
        name = found[0].output[0]
    return name


def _of_no_convolution(graph: onnx.GraphProto) -> list[str]:
    """The operators that see nothing of a convolution: distances between cells, which in 8 bits go up by threes and
    fours where those of neighbours count."""
    made: set[str] = set()
    others = []
    for node in graph.node:
        if node.op_type == "Conv" or not made.isdisjoint(node.input):
            made.update(node.output)
        else:
            others.append(node.name)
    return others


def _gather_whole_pixels(graph: onnx.GraphProto) -> None:
    """Let the features of each object's frame be picked with a pixel's channels side by side, as onnxruntime's 8-bit
    convolutions make and take them: else it turns every object's copy around, byte by byte, on one thread."""
    fixed = {tensor.name for tensor in graph.initializer}
    for gather in [node for node in graph.node if node.op_type == "Gather" and node.input[1] not in fixed]:
        features, picked = gather.input[0], gather.output[0]
        turned, turned_back = f"{gather.name}_pixels", f"{gather.name}_picked"
        gather.input[0], gather.output[0] = turned, turned_back
        place = list(graph.node).index(gather)
        back = helper.make_node("Transpose", [turned_back], [picked], f"{gather.name}_to_planes", perm=(0, 3, 1, 2))
        graph.node.insert(place + 1, back)
        to = helper.make_node("Transpose", [features], [turned], f"{gather.name}_to_pixels", perm=(0, 2, 3, 1))
        graph.node.insert(place, to)


def _feed_bytes(graph: onnx.GraphProto, pixels: str) -> None:
    """Let the stem read the frame's bytes: what normalising and quantising would make of them again, off by the 0.004
    between 127.5 and 128."""
    transposed = next(node for node in graph.node if node.op_type == "Transpose" and "frame" in node.input)
    quantise = [node for node in graph.node if node.op_type == "QuantizeLinear" and pixels in node.input]
    if len(quantise) != 1:
        raise ValueError(f"{pixels!r} is quantised {len(quantise)} times, not once")
    (given,) = quantise
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == given.output[0]:
                node.input[place] = transposed.output[0]
    _drop_unused(graph)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Nodes whose results nobody reads."""
    read = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if read.isdisjoint(node.output):
            continue
        read.update(node.input)
        kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    held = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(held)
