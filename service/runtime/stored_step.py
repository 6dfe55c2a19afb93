"""A bundle's stored step: what one step gave where the bundle was made, to be repeated on the machine that serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from service.core.ports import Runtime
from service.core.types import State
from service.runtime.bundle import BundleError

CHECK = "check.safetensors"
# A mean over the grid: single cells at an edge may differ by more between right machines, a wrong one is off by tenths.
_TOLERANCE = 0.01


def check_stored_step(runtime: Runtime, folder: Path) -> None:
    """Repeat the step stored in `folder`; a bundle without one passes. Raises BundleError where this machine computes
    something else than the one that made the bundle."""
    path = folder / CHECK
    if not path.exists():
        return
    try:
        stored = load_file(path)
        expected = stored["probability"].astype(np.float32)
        states: State = {spec.name: stored[spec.name].astype(spec.dtype) for spec in runtime.info.states}
        frames, row = stored["frame"].astype(np.uint8), stored["frame_row"].astype(np.int64)
        found = runtime.step(frames, row, states).probability
    except (KeyError, OSError, SafetensorError) as error:
        raise BundleError(f"{path} is no stored step of this bundle: {error!r}; export the bundle anew") from error
    off = float(np.abs(found - expected).mean()) if found.shape == expected.shape else float("inf")
    if not off <= _TOLERANCE:
        raise BundleError(
            f"{folder}: a stored step comes out differently on this machine (by {off:.3f} on average): its arithmetic "
            f"does not suit the bundle. Use another one, s2spp-light for example"
        )
