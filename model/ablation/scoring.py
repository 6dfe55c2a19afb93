"""One trained row on the held-out videos, and on composites of their objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data.augment import warp_frame, warp_mask
from model.data.sequence import Sequence as Video
from model.metrics import boundary_f, jaccard
from model.network import S2Spp
from model.predict import Way, track

Image = NDArray[np.uint8]

SMALL = 0.03
"""Frames whose object covers a smaller share are counted as small."""
_ENDS = 10
_COMPOSITES = 10
_COMPOSITE_FRAMES = 40
_COMPOSITE_SIZE = (240, 426)


@dataclass(frozen=True)
class VideoResult:
    """Means over the counted frames (the first and the last are not). `j_small` None: no frame has a small object."""

    name: str
    j: float
    f: float
    j_small: float | None
    j_first: float
    j_last: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def score_video(network: S2Spp, video: Video, way: Way = "plain") -> VideoResult:
    """J and F of the video's first object, by the network alone (torch), at the video's own size."""
    number = video.objects[0].object_id
    frames = (video.frame(index) for index in range(len(video)))
    given = np.where(video.labels(0) == number, np.uint8(1), np.uint8(0))
    rows = []
    for index, labels in enumerate(track(network, frames, given, way)):
        if 0 < index < len(video) - 1:
            truth = video.labels(index) == number
            rows.append((jaccard(labels > 0, truth), boundary_f(labels > 0, truth), float(truth.mean())))
    j, f, area = np.array(rows).T
    small = j[(area < SMALL) & (area > 0)]
    return VideoResult(
        video.name,
        float(j.mean()),
        float(f.mean()),
        float(small.mean()) if len(small) else None,
        float(j[:_ENDS].mean()),
        float(j[-_ENDS:].mean()),
    )


def score_composite(network: S2Spp, frames: Sequence[Image], labels: Sequence[Image], way: Way = "plain") -> float:
    """Mean J over the objects of a clip and its frames but the first and the last."""
    numbers = [int(n) for n in np.unique(labels[0]) if n]
    found = list(track(network, frames, labels[0], way))
    values = [jaccard(found[t] == number, labels[t] == number) for t in range(1, len(frames) - 1) for number in numbers]
    return float(np.mean(values))


def composites(videos: Sequence[Video]) -> Iterator[tuple[str, list[Image], list[Image]]]:
    """Clips with two or three real objects: one video with the objects of one or two others pasted over it, each at its
    own place and in its own motion. (name, frames RGB [H,W,3], label maps [H,W]); the same for every row. Objects may
    be tiny in the first frame, or hide each other: so it was drawn when the saved results were scored."""
    rng = np.random.default_rng(0)
    for number in range(_COMPOSITES):
        chosen = [videos[i] for i in rng.choice(len(videos), 2 + number % 2, replace=False)]
        length = min(_COMPOSITE_FRAMES, *(len(video) for video in chosen))
        shifts = [np.zeros(2), *(rng.uniform(-0.25, 0.25, 2) for _ in chosen[1:])]
        scales = [1.0, *(rng.uniform(0.5, 0.9) for _ in chosen[1:])]
        frames, labels = [], []
        for t in range(length):
            frame = np.zeros((*_COMPOSITE_SIZE, 3), np.uint8)
            drawn = np.zeros(_COMPOSITE_SIZE, np.uint8)
            for layer, (video, shift, scale) in enumerate(zip(chosen, shifts, scales, strict=True), start=1):
                picture, mask = _placed(video, t, shift, scale)
                frame[mask if layer > 1 else ...] = picture[mask if layer > 1 else ...]
                drawn[mask] = layer
            frames.append(frame)
            labels.append(drawn)
        yield "+".join(video.name for video in chosen), frames, labels


def _placed(video: Video, t: int, shift: NDArray[np.float64], scale: float) -> tuple[Image, NDArray[np.bool_]]:
    """Frame t and its first object's mask on the composite's canvas, moved by `shift` (shares of the canvas)."""
    height, width = _COMPOSITE_SIZE
    picture, mask = video.pair(t, video.objects[0].object_id)
    zoom = scale * np.array([width / mask.shape[1], height / mask.shape[0]])
    offset = (1 - scale) / 2 * np.array([width, height]) + shift * (width, height)
    onto = np.diag([*zoom, 1.0])
    onto[:2, 2] = offset
    return warp_frame(picture, onto, _COMPOSITE_SIZE), warp_mask(mask, onto, _COMPOSITE_SIZE) > 0
