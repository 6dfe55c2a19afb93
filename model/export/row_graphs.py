"""The two graphs with which a server on a GPU keeps states there: rows out of a tensor, and into one. Serving has no
onnx to make them with, so they are kept as files (`python -m model.export.row_graphs`; a test says when they are
stale)."""

from __future__ import annotations

from pathlib import Path

from onnx import NodeProto, TensorProto, ValueInfoProto, helper

FOLDER = Path(__file__).parents[2] / "service" / "runtime"


def row_graphs() -> dict[str, bytes]:
    """File name -> content. `pool` [M, ...] of any rank, `rows` int64: gather.onnx gives `values` = pool[rows];
    scatter.onnx gives `written`, the pool with `values` in those rows ([N, 1] here, as ScatterND wants them)."""
    return {
        "gather.onnx": _graph(
            helper.make_node("Gather", ["pool", "rows"], ["values"], axis=0),
            [_any_shape("pool"), _rows("N")],
            _any_shape("values"),
        ),
        "scatter.onnx": _graph(
            helper.make_node("ScatterND", ["pool", "rows", "values"], ["written"]),
            [
                _any_shape("pool"),
                helper.make_tensor_value_info("rows", TensorProto.INT64, ["N", 1]),
                _any_shape("values"),
            ],
            _any_shape("written"),
        ),
    }


def _any_shape(name: str) -> ValueInfoProto:
    """Of the type in which states cross the graphs (graphs.STATE_DTYPE)."""
    value = ValueInfoProto(name=name)
    value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return value


def _rows(*shape: str | int) -> ValueInfoProto:
    return helper.make_tensor_value_info("rows", TensorProto.INT64, shape)


def _graph(node: NodeProto, inputs: list[ValueInfoProto], output: ValueInfoProto) -> bytes:
    graph = helper.make_graph([node], node.op_type, inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


if __name__ == "__main__":
    for name, content in row_graphs().items():
        (FOLDER / name).write_bytes(content)
        print(FOLDER / name)
