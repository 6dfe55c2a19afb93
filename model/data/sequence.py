"""One annotated video on disk, whichever dataset it belongs to."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.read import VOID, DataError, read_labels, read_rgb


@dataclass(frozen=True)
class ObjectTrack:
    """One object of a video: its id, the frame indices that it is listed in (ascending), and its category."""

    object_id: int
    frames: tuple[int, ...]
    category: str | None = None


@dataclass(frozen=True)
class Sequence:
    """A video as frame files and label maps. `mask_paths[i]` is None where frame i has no annotation.

    `binary` says that the maps hold only 0 and 255, which means object 1; in other maps 255 is void. `window`: only
    these rows and columns of the pictures, as (top, bottom, left, right).
    """

    name: str
    frame_paths: tuple[Path, ...]
    mask_paths: tuple[Path | None, ...]
    objects: tuple[ObjectTrack, ...]
    binary: bool = False
    window: tuple[int, int, int, int] | None = None

    def __len__(self) -> int:
        return len(self.frame_paths)

    @cached_property
    def annotated(self) -> tuple[int, ...]:
        """Indices of the frames that have a label map."""
        return tuple(i for i, path in enumerate(self.mask_paths) if path is not None)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as [H,W,3] RGB."""
        return self._in_window(read_rgb(self.frame_paths[index]))

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Label map of frame `index`, [H,W]: ids of `objects`; 0 is background, void, and what is not to be followed
        (in DAVIS, whatever the first frame does not show)."""
        path = self.mask_paths[index]
        if path is None:
            raise DataError(f"{self.frame_paths[index]}: this frame has no annotation")
        labels = self._in_window(read_labels(path))
        return self._ids[labels]

    @cached_property
    def _ids(self) -> NDArray[np.uint8]:
        """The id that a value of a label map stands for: [256]."""
        ids = np.zeros(256, np.uint8)
        for track in self.objects:
            ids[VOID if self.binary else track.object_id] = track.object_id
        return ids

    def _in_window(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.window is None:
            return picture
        top, bottom, left, right = self.window
        return picture[top:bottom, left:right].copy()

    def cropped(self, aspect: float) -> "Sequence":
        """The largest window of `aspect` (width / height), about the middle of the first objects, with those objects
        that it shows when they first appear."""
        labels = self.labels(self.objects[0].frames[0])
        height, width = labels.shape
        wide, high = min(width, round(height * aspect)), min(height, round(width / aspect))
        ys, xs = np.nonzero(labels)
        top = int(np.clip(round(ys.mean() - high / 2), 0, height - high))
        left = int(np.clip(round(xs.mean() - wide / 2), 0, width - wide))
        whole = replace(self, window=(top, top + high, left, left + wide))
        shown = tuple(t for t in self.objects if (whole.labels(t.frames[0]) == t.object_id).any())
        return replace(whole, objects=shown)

    def looped(self, length: int) -> "Sequence":
        """Played forth and back, without a jump, for `length` frames. The objects are those of the first frame."""
        count = len(self)
        turn = [i if i < count else 2 * (count - 1) - i for i in (n % max(2 * (count - 1), 1) for n in range(length))]
        everywhere = tuple(range(length))
        return replace(
            self,
            frame_paths=tuple(self.frame_paths[i] for i in turn),
            mask_paths=tuple(self.mask_paths[i] for i in turn),
            objects=tuple(replace(track, frames=everywhere) for track in self.objects if track.frames[0] == 0),
        )

    def pair(self, index: int, object_id: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Frame `index` and the 0/1 mask of one object; raises DataError where their sizes differ."""
        frame, labels = self.frame(index), self.labels(index)
        if frame.shape[:2] != labels.shape:
            raise DataError(
                f"{self.mask_paths[index]}: size {labels.shape[1]} x {labels.shape[0]}, but its frame "
                f"{self.frame_paths[index]} has {frame.shape[1]} x {frame.shape[0]}"
            )
        return frame, (labels == object_id).astype(np.uint8)
