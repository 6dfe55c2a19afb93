"""One annotated video on disk, whichever dataset it belongs to."""

from dataclasses import dataclass
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

    `binary` says that the maps hold only 0 and 255, which means object 1; in other maps 255 is void.
    """

    name: str
    frame_paths: tuple[Path, ...]
    mask_paths: tuple[Path | None, ...]
    objects: tuple[ObjectTrack, ...]
    binary: bool = False

    def __len__(self) -> int:
        return len(self.frame_paths)

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the objects to follow, ascending."""
        return tuple(track.object_id for track in self.objects)

    @cached_property
    def annotated(self) -> tuple[int, ...]:
        """Indices of the frames that have a label map."""
        return tuple(i for i, path in enumerate(self.mask_paths) if path is not None)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Frame `index` as [H,W,3] RGB."""
        return read_rgb(self.frame_paths[index])

    def labels(self, index: int) -> NDArray[np.uint8]:
        """Label map of frame `index`, [H,W]: 0 is background (and void), other values are object ids."""
        path = self.mask_paths[index]
        if path is None:
            raise DataError(f"{self.frame_paths[index]}: this frame has no annotation")
        labels = read_labels(path)
        return np.where(labels == VOID, np.uint8(1 if self.binary else 0), labels)

    def pair(self, index: int, object_id: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Frame `index` and the 0/1 mask of one object; raises DataError where their sizes differ."""
        frame, labels = self.frame(index), self.labels(index)
        if frame.shape[:2] != labels.shape:
            raise DataError(
                f"{self.mask_paths[index]}: size {labels.shape[1]} x {labels.shape[0]}, but its frame "
                f"{self.frame_paths[index]} has {frame.shape[1]} x {frame.shape[0]}"
            )
        return frame, (labels == object_id).astype(np.uint8)
