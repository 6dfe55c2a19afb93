"""A bundle's stored step: what one step has to give, to be repeated on the machine that serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from service.core.ports import Runtime
from service.core.state import HostRows, State
from service.runtime.bundle import BundleError

CHECK = "check.safetensors"
# Of the object's size: single cells at an edge may flip between right machines, a wrong one loses or gains parts of it.
_TOLERANCE = 0.1


class StoredStepError(BundleError):
    """This machine's arithmetic does not suit the bundle."""


def check_stored_step(runtime: Runtime, folder: Path) -> None:
    """Repeat the step stored in `folder`; a bundle without one passes. Raises StoredStepError where this machine
    computes something else, BundleError for a step that is none."""
    path = folder / CHECK
    if not path.exists():
        return
    try:
        stored = load_file(path)
        expected = stored["probability"].astype(np.float32)
        changing, constant = (
            HostRows(
                (spec.name, stored[spec.name].astype(spec.dtype))
                for spec in runtime.info.states
                if spec.constant is kind
            )
            for kind in (False, True)
        )
        (frame,) = stored["frame"].astype(np.uint8)
        (result,) = runtime.step([frame], [State(changing, constant)])
        found = result.probability
    except Exception as error:  # onnxruntime's own errors have no common class
        raise BundleError(f"{path} is no stored step of this bundle: {error!r}; export the bundle anew") from error
    off = float(np.abs(found - expected).sum() / expected.sum()) if found.shape == expected.shape else float("inf")
    if not off <= _TOLERANCE:
        raise StoredStepError(
            f"{runtime.info.name}: a stored step comes out differently on this machine (by {off:.1%} of the object): "
            "its arithmetic does not suit the bundle. Use another one, s2spp-light for example"
        )
