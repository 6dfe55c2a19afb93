"""The stored step: one step's inputs and what it has to give. Serving repeats it at its start, on a machine whose
arithmetic may be another (8-bit sums overflow on processors without the instructions for them)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save

from model.export.parity import MAX_PROBABILITY, halves_off, open_graphs, parity_clip

CHECK = "check.safetensors"
_FRAMES = 4


def write_check(folder: Path, multiple: int) -> None:
    """`folder`/check.safetensors out of the graphs in `folder`: every input of the last step, and its `probability`.
    Raises ValueError where the halves of the step give another one."""
    init, step = open_graphs(folder, exact=True)
    frames, mask = parity_clip(_FRAMES, (2 * multiple, 3 * multiple), seed=0)
    row = np.zeros(1, np.int64)
    names = [value.name for value in init.get_outputs()]
    changing = [value.name.removeprefix("next_") for value in step.get_outputs()[1:]]
    start = init.run(None, {"frame": frames[:1], "mask": mask[None], "frame_row": row})
    state = dict(zip(names, start, strict=True))
    for frame in frames[1:]:
        feed = {"frame": frame[None], "frame_row": row, **state}
        probability, *nexts = step.run(None, feed)
        state |= dict(zip(changing, nexts, strict=True))
    off = halves_off(folder, feed, probability)
    if not off <= MAX_PROBABILITY:
        raise ValueError(f"no bundle written: encode.onnx and recur.onnx together are off from step.onnx by {off:.3f}")
    (folder / CHECK).write_bytes(save({**feed, "probability": probability}))
