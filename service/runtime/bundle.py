"""Model bundles: a folder with manifest.json, its graphs and their weights. All that training hands to serving."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.core.types import StateSpec

FORMAT = 3
# `step` is `encode` and behind it `recur`.
_GRAPHS = {"init.onnx", "step.onnx", "encode.onnx", "recur.onnx"}
_HERE = Path(__file__).resolve().parents[1]
# Where shipped bundles lie: inside an installed package, or at the root of a checkout.
_SHELVES = (_HERE / "_bundles", _HERE.parent / "bundles")


class BundleError(ValueError):
    """A bundle that is missing, incomplete, damaged or of another format. The message says which and what to do."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `states` in the order of the graph; see s2spp.geometry for `pixel_budget` and `multiple`.
    The probability has `output_stride` pixels of the model's grid per cell. `in_bytes`: its convolutions are."""

    folder: Path
    name: str
    digest: str
    pixel_budget: int
    multiple: int
    output_stride: int
    states: tuple[StateSpec, ...]
    training_data: str
    licence: str
    scores: Mapping[str, float]
    in_bytes: bool


def find_bundle(name_or_path: str) -> Path:
    """A folder as it is, or a shipped bundle by name."""
    folders = [Path(name_or_path), *(shelf / name_or_path for shelf in _SHELVES)]
    for folder in folders:
        if (folder / "manifest.json").is_file():
            return folder
    shipped = sorted({path.parent.name for shelf in _SHELVES for path in shelf.glob("*/manifest.json")})
    raise BundleError(
        f"no model bundle {name_or_path!r}: give a folder that holds manifest.json, or one of: "
        f"{', '.join(shipped) or '-'}"
    )


def load_bundle(name_or_path: str) -> Bundle:
    """Read and verify: graphs and weights must have the digest that the manifest states."""
    folder = find_bundle(name_or_path)
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        if manifest["format"] != FORMAT:
            newer = isinstance(manifest["format"], int) and manifest["format"] > FORMAT
            what = "it was made by a newer s2spp: upgrade this one" if newer else "export or quantise it anew"
            raise BundleError(f"{path}: bundle format {manifest['format']}, this version reads {FORMAT}; {what}")
        files = [Path(name).name for name in manifest["files"]]
        if not set(files) >= _GRAPHS:
            raise BundleError(f"{path} does not list {', '.join(sorted(_GRAPHS - set(files)))}; export the bundle anew")
        bundle = Bundle(
            folder=folder,
            name=manifest["name"],
            digest=manifest["digest"],
            pixel_budget=int(manifest["pixel_budget"]),
            multiple=int(manifest["multiple"]),
            output_stride=int(manifest["output_stride"]),
            states=tuple(
                StateSpec(s["name"], tuple(s["shape"]), s["dtype"], bool(s["constant"])) for s in manifest["states"]
            ),
            training_data=manifest["training_data"],
            licence=manifest["licence"],
            scores={key: float(value) for key, value in manifest["scores"].items()},
            in_bytes="quantised_from" in manifest,
        )
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise BundleError(f"{path} is not a bundle manifest: {error!r}; export the bundle anew") from error
    digest = hashlib.sha256()
    for part in files:
        try:
            digest.update((folder / part).read_bytes())
        except OSError as error:
            raise BundleError(f"{folder / part} cannot be read: {error.strerror}; export the bundle anew") from error
    if digest.hexdigest() != bundle.digest:
        raise BundleError(f"{folder} is damaged: its files are not the ones its manifest was written for")
    return bundle
