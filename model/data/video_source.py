"""Training clips out of annotated videos (DAVIS, YouTube-VOS)."""

from collections.abc import Sequence as Listed
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.data.augment import AugmentConfig, augment_clip
from model.data.clip import VISIBLE_PIXELS, Clip
from model.data.read import DataError
from model.data.sequence import ObjectTrack, Sequence
from s2spp.geometry import frame_to_model, mask_to_model


@dataclass(frozen=True)
class VideoConfig:
    """How clips are cut out. The stride counts annotated frames; a zoom of 0.5 shows half of each side."""

    max_stride: int = 3
    reverse_odds: float = 0.25
    zoom_odds: float = 0.5
    smallest_zoom: float = 0.5
    augment: AugmentConfig = field(default_factory=AugmentConfig)


class VideoSource:
    """Clips of every (sequence, object) pair of a dataset.

    A clip starts at a random frame that shows the object and runs forward (sometimes backward) at a random
    stride. A video too short for the clip is played to its end and back again.
    """

    def __init__(self, name: str, sequences: Listed[Sequence], config: VideoConfig | None = None) -> None:
        self.name = name
        self.config = config or VideoConfig()
        self._pairs = [(sequence, track) for sequence in sequences for track in sequence.objects]
        if not self._pairs:
            raise DataError(f"{name}: no annotated object to train on")

    def __len__(self) -> int:
        return len(self._pairs)

    def sequence(self, index: int) -> str:
        """Name of the video of pair `index`."""
        return self._pairs[index][0].name

    def clip(self, index: int, length: int, size: tuple[int, int], rng: np.random.Generator) -> Clip:
        """Draw a clip, cropped, resized and augmented. DataError: a bad file, or an object never visible."""
        sequence, track = self._pairs[index]
        start = self._visible_start(sequence, track, size, rng)
        pairs = [sequence.pair(i, track.object_id) for i in self._walk(sequence, start, length, rng)]
        rows, columns = self._window(pairs[0][1], rng)
        frames = np.stack([frame_to_model(frame[rows, columns], size) for frame, _ in pairs])
        masks = np.stack([mask_to_model(mask[rows, columns], size) for _, mask in pairs])
        return Clip(sequence.name, *augment_clip(frames, masks, rng, self.config.augment))

    def _visible_start(
        self, sequence: Sequence, track: ObjectTrack, size: tuple[int, int], rng: np.random.Generator
    ) -> int:
        """A random annotated frame in which the object is large enough to be seen at `size`."""
        annotated = sorted(set(sequence.annotated) & set(track.frames))
        for index in rng.permutation(annotated):
            mask = sequence.labels(int(index)) == track.object_id
            if mask.mean() * size[0] * size[1] >= VISIBLE_PIXELS:
                return int(index)
        raise DataError(
            f"{sequence.mask_paths[track.frames[0]]}: object {track.object_id} of {sequence.name!r} is too "
            f"small to be seen at {size[0]} x {size[1]} in every annotated frame"
        )

    def _walk(self, sequence: Sequence, start: int, length: int, rng: np.random.Generator) -> list[int]:
        """Indices of `length` annotated frames from `start` on, at one stride and in one direction."""
        annotated = np.array(sequence.annotated)
        at = int(np.searchsorted(annotated, start))
        rooms = {False: len(annotated) - 1 - at, True: at}
        steps = max(length - 1, 1)
        reverse = bool(rng.random() < self.config.reverse_odds)
        if rooms[reverse] < steps:
            reverse = rooms[True] > rooms[False]
        longest = max(1, min(self.config.max_stride, rooms[reverse] // steps))
        stride = int(rng.integers(1, longest, endpoint=True))
        positions = at + np.arange(length) * (-stride if reverse else stride)
        return [int(annotated[i]) for i in _reflected(positions, len(annotated))]

    def _window(self, mask_HW: NDArray[np.uint8], rng: np.random.Generator) -> tuple[slice, slice]:
        """A random crop of the picture's own shape that keeps the whole object of the first frame."""
        height, width = mask_HW.shape
        zoom = rng.uniform(self.config.smallest_zoom, 1) if rng.random() < self.config.zoom_odds else 1.0
        ys, xs = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        zoom = max(zoom, (ys[-1] + 1 - ys[0]) / height, (xs[-1] + 1 - xs[0]) / width)
        return (
            _span(height, round(zoom * height), int(ys[0]), int(ys[-1]) + 1, rng),
            _span(width, round(zoom * width), int(xs[0]), int(xs[-1]) + 1, rng),
        )


def _span(side: int, crop: int, first: int, end: int, rng: np.random.Generator) -> slice:
    """A random range of `crop` out of `side` pixels that holds [first, end)."""
    low = int(rng.integers(max(0, end - crop), min(first, side - crop) + 1))
    return slice(low, low + crop)


def _reflected(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Fold positions into 0..count-1 as between two mirrors: 0 1 2 1 0 1 ... for a count of 3."""
    if count == 1:
        return np.zeros_like(positions)
    period = 2 * (count - 1)
    folded = positions % period
    return np.where(folded < count, folded, period - folded)
