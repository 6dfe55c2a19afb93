"""What the graphs of a float bundle see and give on real clips: the ranges of its 8-bit form are taken from that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data.sequence import Sequence as Video
from model.export.parity import open_graphs
from s2spp.geometry import frame_to_model, mask_to_model, model_size

Feed = dict[str, NDArray[Any]]

_CLIP_FRAMES = 25
# From the 3rd frame on, one in so many: neighbours teach the ranges nothing new.
_EVERY = 6


@dataclass(frozen=True)
class Calibration:
    """Of each clip the states after its first frame; of all clips the inputs of some later steps."""

    starts: list[Feed] = field(default_factory=list)
    steps: list[Feed] = field(default_factory=list)


def calibrate(source: Path, manifest: dict[str, Any], videos: Sequence[Video]) -> Calibration:
    """The float model of the bundle `source` follows the first object of each video. Raises DataError for unreadable
    ones."""
    init, step = open_graphs(source)
    states = [value.name for value in init.get_outputs()]
    changing = [value.name.removeprefix("next_") for value in step.get_outputs()[1:]]
    row = np.zeros(1, np.int64)
    seen = Calibration()
    for video in videos:
        if not video.objects:
            continue
        track = video.objects[0]
        start = track.frames[0]
        mask = (video.labels(start) == track.object_id).astype(np.uint8)
        height, width = mask.shape
        size = model_size(height, width, manifest["pixel_budget"], manifest["multiple"])
        frame = frame_to_model(video.frame(start), size)
        first: Feed = {"frame": frame[None], "mask": mask_to_model(mask, size)[None], "frame_row": row}
        state: Feed = dict(zip(states, init.run(None, first), strict=True))
        seen.starts.append(dict(state))
        for index in range(start + 1, min(start + _CLIP_FRAMES, len(video))):
            feed: Feed = {"frame": frame_to_model(video.frame(index), size)[None], "frame_row": row, **state}
            if (index - start) % _EVERY == 3:
                seen.steps.append(feed)
            _, *nexts = step.run(None, feed)
            state |= dict(zip(changing, nexts, strict=True))
    return seen
