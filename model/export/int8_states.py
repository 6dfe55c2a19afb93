"""States of an int8 bundle that cross its graphs as the bytes that they are: half of float16's, to keep and to store.

What the step graph hands on was rounded to 8 bits, by one scale and zero point; they become those of the state. What
was not rounded (the previous mask) stays as it is, and so does what is written once, at the opening."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

_NEXT, _UNROUNDED = "next_", "_unrounded"


@dataclass(frozen=True)
class _Steps:
    """The 8-bit tensor that is handed on, and the constants that say what its steps mean."""

    name: str
    scale: onnx.TensorProto
    zero: onnx.TensorProto

    @property
    def numbers(self) -> list[str]:
        return [self.scale.name, self.zero.name]


def states_in_bytes(step: onnx.ModelProto, init: onnx.ModelProto) -> list[str]:
    """Let every state whose next value `step` rounds to 8 bits enter and leave both graphs so; returns their names.
    What nobody reads any more is left for the caller to drop."""
    found = {
        output.name.removeprefix(_NEXT): steps
        for output in step.graph.output
        if output.name.startswith(_NEXT) and (steps := _handed_on(step.graph, output.name)) is not None
    }
    for state, steps in found.items():
        _give(step.graph, f"{_NEXT}{state}", steps)
        _take(step.graph, state, steps)
        init.graph.initializer.extend([steps.scale, steps.zero])
        _start(init.graph, state, steps)
    return list(found)


def _handed_on(graph: onnx.GraphProto, name: str) -> _Steps | None:
    """Where output `name` is Cast(DequantizeLinear(bytes))."""
    made = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    restore = made.get(made[name].input[0])
    if made[name].op_type != "Cast" or restore is None or restore.op_type != "DequantizeLinear":
        return None
    given, scale, zero = restore.input
    if constants[zero].data_type != TensorProto.UINT8 or constants[zero].dims:
        return None
    return _Steps(given, constants[scale], constants[zero])


def _give(graph: onnx.GraphProto, output: str, steps: _Steps) -> None:
    """The bytes themselves are the output: under its name, which others then read too."""
    graph.node.remove(_made_by_cast(graph, output))
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [output if name == steps.name else name for name in names]
    _retype(graph.output, output)


def _take(graph: onnx.GraphProto, state: str, steps: _Steps) -> None:
    """Whoever would round it anew, and makes a sum without a bias of it, whose scale would be another, takes its
    bytes."""
    cast = next(node for node in graph.node if node.op_type == "Cast" and node.input[0] == state)
    restored = cast.output[0]
    place = list(graph.node).index(cast)
    graph.node.remove(cast)
    graph.node.insert(place, helper.make_node("DequantizeLinear", [state, *steps.numbers], [restored], cast.name))
    for rounding in [node for node in _readers(graph, restored) if node.op_type == "QuantizeLinear"]:
        for again in [node for node in _readers(graph, rounding.output[0]) if node.op_type == "DequantizeLinear"]:
            for reader in _readers(graph, again.output[0]):
                if reader.op_type == "Conv" and len(reader.input) == 2:
                    reader.input[0] = restored
    _retype(graph.input, state)


def _start(graph: onnx.GraphProto, state: str, steps: _Steps) -> None:
    cast = _made_by_cast(graph, state)
    # Another state may be the same value (the reference's, at first): that stays as it is.
    cast.output[0] = f"{state}{_UNROUNDED}"
    for node in graph.node:
        node.input[:] = [cast.output[0] if name == state else name for name in node.input]
    graph.node.append(helper.make_node("QuantizeLinear", [cast.input[0], *steps.numbers], [state], f"{state}_in_bytes"))
    _retype(graph.output, state)


def _made_by_cast(graph: onnx.GraphProto, state: str) -> onnx.NodeProto:
    maker = next(node for node in graph.node if state in node.output)
    if maker.op_type != "Cast":
        raise ValueError(f"expected a Cast to make {state!r}, got {maker.op_type}")
    return maker


def _readers(graph: onnx.GraphProto, name: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if name in node.input]


def _retype(values: Sequence[onnx.ValueInfoProto], name: str) -> None:
    value = next(value for value in values if value.name == name)
    value.type.tensor_type.elem_type = TensorProto.UINT8
