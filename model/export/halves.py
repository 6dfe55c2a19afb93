"""The step graph in two: what a frame gives to every object on it, which needs no state, and what each object makes of
it. So serving can work on the frames to come while the one before them is stepped (see service.runtime)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from onnx import helper, shape_inference

STEP, ENCODE, RECUR = "step.onnx", "encode.onnx", "recur.onnx"
_FRAME = "frame"


def write_halves(folder: Path) -> None:
    """folder/step.onnx -> folder/encode.onnx and folder/recur.onnx, their weights inside. `encode` takes `frame`
    [F,H,W,3] and gives features, `recur` takes those and all else that `step` takes, and gives what `step` gives."""
    for name, model in zip((ENCODE, RECUR), split_step(onnx.load(folder / STEP)), strict=True):
        onnx.checker.check_model(model)
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))


def split_step(step: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """(encode, recur): cut where a node that sees objects reads what comes of the frame alone. 8-bit features are
    handed over as such, and scaled to float behind the cut."""
    nodes = list(step.graph.node)
    sees = _inputs_seen(step.graph)
    of_frame = [sees_of == {_FRAME} for sees_of in sees]
    made_by = {name: place for place, node in enumerate(nodes) for name in node.output}
    read = dict.fromkeys(
        name for node, early in zip(nodes, of_frame, strict=True) if not early for name in node.input if name in made_by
    )
    handed = [name for name in read if of_frame[made_by[name]]]
    scaling = {made_by[name] for name in handed if nodes[made_by[name]].op_type == "DequantizeLinear"}
    features = dict.fromkeys(nodes[made_by[name]].input[0] if made_by[name] in scaling else name for name in handed)
    names = {name: f"feature{number}" for number, name in enumerate(features, start=1)}
    types = _types(step)
    cut = [helper.make_value_info(name, types[feature]) for feature, name in names.items()]
    frame = [value for value in step.graph.input if value.name == _FRAME]
    others = [value for value in step.graph.input if value.name != _FRAME]
    first = [node for node, seen in zip(nodes, sees, strict=True) if seen <= {_FRAME}]
    second = [node for place, node in enumerate(nodes) if not of_frame[place] or place in scaling]
    return (
        _part(step, "encode", first, frame, cut, names),
        _part(step, "recur", second, [*others, *cut], list(step.graph.output), names),
    )


def _inputs_seen(graph: onnx.GraphProto) -> list[set[str]]:
    """For each node the graph's inputs that it depends on; none for constants."""
    seen = {value.name: {value.name} for value in graph.input}
    found = []
    for node in graph.node:
        found.append(set().union(*(seen.get(name, set()) for name in node.input)))
        seen |= dict.fromkeys(node.output, found[-1])
    return found


def _types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    # What a converter did not bring up to date would be believed.
    del bare.graph.value_info[:]
    return {value.name: value.type for value in shape_inference.infer_shapes(bare).graph.value_info}


def _part(
    step: onnx.ModelProto,
    name: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    renamed: Mapping[str, str],
) -> onnx.ModelProto:
    """Those of `nodes` that the outputs need, as a model of its own."""
    kept, needed = [], {value.name for value in outputs}
    for given in reversed(nodes):
        node = onnx.NodeProto()
        node.CopyFrom(given)
        for names in (node.input, node.output):
            names[:] = [renamed.get(each, each) for each in names]
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            kept.append(node)
    weights = [tensor for tensor in step.graph.initializer if tensor.name in needed]
    graph = helper.make_graph(kept[::-1], name, inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=step.opset_import, ir_version=step.ir_version)
