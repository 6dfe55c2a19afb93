"""A float bundle's weights back into torch: what is committed is enough to go on training from."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor

from model.export.onnx_files import HALF


def bundle_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a bundle by their names in S2Spp. Raises FileNotFoundError for a folder that is no bundle, and
    ValueError for an int8 one."""
    manifest = json.loads((folder / "manifest.json").read_text())
    if "quantised_from" in manifest:
        raise ValueError(f"{folder} is an int8 bundle: its weights are rounded; start from the float one")
    weights: dict[str, Tensor] = {}
    for part in ("init.onnx", "step.onnx"):
        for tensor in onnx.load(folder / part).graph.initializer:
            name = tensor.name.removesuffix(HALF)
            if name.startswith("network."):
                weights[name.removeprefix("network.")] = torch.from_numpy(numpy_helper.to_array(tensor).copy()).float()
    return weights
