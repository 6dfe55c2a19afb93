"""DAVIS folders: 2016 (one object, 0/255 maps) and 2017 (several objects, indexed maps).

Layout: `JPEGImages/RESOLUTION/SEQ/*.jpg`, `Annotations/RESOLUTION/SEQ/*.png`, `ImageSets/YEAR/SPLIT.txt`.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from model.data.read import VOID, DataError, read_labels, read_lines
from model.data.sequence import ObjectTrack, Sequence

RESOLUTIONS = ("480p", "Full-Resolution")
SPLIT_FOLDERS = ("2017", "2016", "480p")

TUNE = ("drift-turn", "elephant", "hike", "rollerblade")
"""The videos that choose between models: the split `tune`, whether a folder lists it or not. DAVIS's own `train` lists
hold them too, so whatever learns from videos takes `trainable` ones."""


def trainable(sequences: Iterable[Sequence]) -> list[Sequence]:
    """Those that do not choose between models."""
    return [sequence for sequence in sequences if sequence.name not in TUNE]


class DavisDataset:
    """The sequences of one split of a DAVIS folder; `root` holds `JPEGImages`, `Annotations` and `ImageSets`.

    `split` is a list's name (`val`), with its folder where a release has two of them (`2016/val`; else 2017
    comes before 2016 before 480p); `tune` needs no list. None takes every sequence of the folder. As in the
    semi-supervised task, the objects are those of the first frame. Raises DataError naming the file or folder that is
    missing or wrong.
    """

    def __init__(self, root: Path | str, split: str | None) -> None:
        self.root = Path(root)
        self.split = split
        self.name = self.root.name
        images = self.root / "JPEGImages"
        resolution = next((r for r in RESOLUTIONS if (images / r).is_dir()), None)
        if resolution is None:
            raise DataError(f"{images}: not a DAVIS folder: neither {' nor '.join(RESOLUTIONS)} lies in it")
        self._images = images / resolution
        self._annotations = self.root / "Annotations" / resolution
        self.sequences: list[Sequence] = [self._sequence(name) for name in self._names()]

    def _names(self) -> list[str]:
        if self.split is None:
            return sorted(path.name for path in self._images.iterdir() if path.is_dir())
        sets = self.root / "ImageSets"
        lists = [sets / folder / f"{self.split}.txt" for folder in (".", *SPLIT_FOLDERS)]
        found = next((path for path in lists if path.is_file()), None)
        if found is None and self.split == "tune":
            return list(TUNE)
        if found is None:
            known = sorted(str(path.relative_to(sets).with_suffix("")) for path in sets.rglob("*.txt"))
            raise DataError(f"{sets}: no split {self.split!r}; there is: {', '.join(known) or 'none'}")
        # DAVIS-2016 itself lists "/JPEGImages/480p/SEQ/00000.jpg /Annotations/..." pairs, a line per frame.
        lines = (line.split()[0] for line in read_lines(found))
        names = list(dict.fromkeys(Path(line).parent.name if "/" in line else line for line in lines))
        if not names:
            raise DataError(f"{found}: lists no sequence")
        return names

    def _sequence(self, name: str) -> Sequence:
        frames = tuple(sorted((self._images / name).glob("*.jpg")))
        if not frames:
            raise DataError(f"{self._images / name}: no .jpg frames of sequence {name!r}")
        masks = tuple(self._annotations / name / f"{frame.stem}.png" for frame in frames)
        values = set(np.flatnonzero(np.bincount(read_labels(masks[0]).ravel())).tolist()) - {0}
        if not values:
            raise DataError(f"{masks[0]}: no object in the first frame's annotation")
        binary = values == {VOID}
        everywhere = tuple(range(len(frames)))
        ids = [1] if binary else sorted(values - {VOID})
        return Sequence(name, frames, masks, tuple(ObjectTrack(i, everywhere) for i in ids), binary)
