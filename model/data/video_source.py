"""Training clips out of annotated videos (DAVIS, YouTube-VOS)."""

from collections.abc import Sequence as Listed
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.data.augment import AugmentConfig, random_affine, random_colour, recolour, warp_frame, warp_mask
from model.data.clip import VISIBLE_PIXELS, Clip, NotVisibleError
from model.data.motion import linear, translation
from model.data.paste import paste
from model.data.read import DataError
from model.data.sequence import ObjectTrack, Sequence


@dataclass(frozen=True)
class VideoConfig:
    """How clips are cut out. The stride counts annotated frames; a zoom of 0.5 shows half of each side. `paste_odds`:
    another object is pasted into the clip, with `twin_odds` the same one at another time. `dolly_odds`: through the
    clip the camera draws nearer or away, by up to `largest_dolly` times."""

    max_stride: int = 5
    reverse_odds: float = 0.25
    zoom_odds: float = 0.5
    smallest_zoom: float = 0.5
    paste_odds: float = 0.0
    twin_odds: float = 0.25
    dolly_odds: float = 0.0
    largest_dolly: float = 2.5
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
        clip = self._cut(index, length, size, rng)
        if rng.random() >= self.config.paste_odds:
            return clip
        other = index if rng.random() < self.config.twin_odds else int(rng.integers(len(self)))
        try:
            return paste(clip, self._cut(other, length, size, rng), rng)
        except NotVisibleError:
            return clip

    def _cut(self, index: int, length: int, size: tuple[int, int], rng: np.random.Generator) -> Clip:
        sequence, track = self._pairs[index]
        start = self._visible_start(sequence, track, size, rng)
        pairs = [sequence.pair(i, track.object_id) for i in self._walk(sequence, start, length, rng)]
        view = self._view(pairs[0][1], size, rng)
        # One warp from the whole frame: what the crop leaves out fills what the augmentation uncovers.
        onto = random_affine(size, rng, self.config.augment) @ view
        colour = random_colour(rng, self.config.augment)
        path = self._dolly(pairs[0][1], onto, length, rng) @ onto
        frames = np.stack([recolour(warp_frame(pairs[t][0], path[t], size), colour) for t in range(length)])
        masks = np.stack([warp_mask(pairs[t][1], path[t], size) for t in range(length)])
        return Clip(sequence.name, frames, masks)

    def _dolly(
        self, mask_HW: NDArray[np.uint8], onto: NDArray[np.float64], length: int, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Maps [T,3,3] of the canvas that draw nearer or away at an even pace, about where the object is at first."""
        reach = np.log(self.config.largest_dolly)
        last = rng.uniform(-reach, reach) if rng.random() < self.config.dolly_odds else 0.0
        ys, xs = np.nonzero(mask_HW)
        middle = (onto @ [xs.mean(), ys.mean(), 1.0])[:2]
        scales = np.exp(last * np.arange(length) / max(length - 1, 1))
        return np.stack([translation(middle) @ linear(scale, 0.0) @ translation(-middle) for scale in scales])

    def _visible_start(
        self, sequence: Sequence, track: ObjectTrack, size: tuple[int, int], rng: np.random.Generator
    ) -> int:
        """A random annotated frame in which the object is large enough to be seen at `size`."""
        annotated = sorted(set(sequence.annotated) & set(track.frames))
        for index in rng.permutation(annotated):
            mask = sequence.labels(int(index)) == track.object_id
            if mask.mean() * size[0] * size[1] >= VISIBLE_PIXELS:
                return int(index)
        raise NotVisibleError(
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

    def _view(self, mask_HW: NDArray[np.uint8], size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        """The map [3,3] of the picture's pixels to the canvas': a random window of the canvas' shape, so that nothing
        is squeezed, which holds the whole object of the first frame, beyond the picture's edge if need be."""
        height, width = mask_HW.shape
        aspect = size[1] / size[0]
        zoom = rng.uniform(self.config.smallest_zoom, 1) if rng.random() < self.config.zoom_odds else 1.0
        ys, xs = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
        wide = max(zoom * min(width, height * aspect), float(xs[-1] + 1 - xs[0]), aspect * float(ys[-1] + 1 - ys[0]))
        left = _place(width, wide, xs[0], xs[-1] + 1, rng)
        top = _place(height, wide / aspect, ys[0], ys[-1] + 1, rng)
        scale = size[1] / wide
        return np.array([[scale, 0, scale * (0.5 - left) - 0.5], [0, scale, scale * (0.5 - top) - 0.5], [0, 0, 1]])


def _place(side: int, window: float, first: int, end: int, rng: np.random.Generator) -> float:
    """Where a random window of `window` pixels begins that holds [first, end) and, if it can, nothing beyond the
    picture's `side` pixels."""
    low, high = end - window, float(first)
    inside = max(low, 0.0), min(high, side - window)
    return float(rng.uniform(*inside)) if inside[0] <= inside[1] else float(rng.uniform(low, high))


def _reflected(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Fold positions into 0..count-1 as between two mirrors: 0 1 2 1 0 1 ... for a count of 3."""
    if count == 1:
        return np.zeros_like(positions)
    period = 2 * (count - 1)
    folded = positions % period
    return np.where(folded < count, folded, period - folded)
