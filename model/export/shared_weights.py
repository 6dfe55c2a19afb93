"""One file for the weights of all graphs: the encoder is in most of them, and need not be stored more than once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto

WEIGHTS = "weights.bin"
# Smaller constants stay in their graph.
_SMALL = 1024
_ALIGNMENT = 64


def share_weights(folder: Path, graphs: Sequence[str]) -> None:
    """Move the large tensors of the ONNX files `graphs` in `folder` into folder/weights.bin, equal ones once."""
    places: dict[bytes, int] = {}
    data = bytearray()
    for name in graphs:
        model = onnx.load(folder / name)
        for tensor in model.graph.initializer:
            raw = onnx.numpy_helper.to_array(tensor).tobytes()
            if len(raw) < _SMALL:
                continue
            key = hashlib.sha256(raw).digest()
            if key not in places:
                data.extend(bytes(-len(data) % _ALIGNMENT))
                places[key] = len(data)
                data.extend(raw)
            _point(tensor, places[key], len(raw))
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))
    (folder / WEIGHTS).write_bytes(data)


def _point(tensor: TensorProto, offset: int, length: int) -> None:
    for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", WEIGHTS), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
