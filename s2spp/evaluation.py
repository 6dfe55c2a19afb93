"""Scores a tracker on a dataset: what is scored is what is served. Knows datasets and metrics, no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model.data.davis import DavisDataset
from model.data.sequence import ObjectTrack, Sequence
from model.data.youtube_vos import YoutubeVosDataset
from model.metrics import SequenceScore, jaccard, score_sequence
from s2spp.visibility import Visibility

if TYPE_CHECKING:
    from s2spp.inprocess import InProcess

Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """Of one frame: its label map [H,W], and the objects that are said to be visible; None where that is not said."""

    labels: Labels
    visible: frozenset[int] | None = None


Tracker = Callable[[Iterable[NDArray[np.uint8]], Labels], Iterator[Prediction]]
"""frames RGB [H,W,3] and the labels [H,W] of the first -> what is predicted of every frame, the given labels first."""


def open_dataset(root: Path, split: str | None) -> DavisDataset | YoutubeVosDataset:
    """A DAVIS folder, or a YouTube-VOS one (`root`/`split` or `root` holds meta.json), or the davis2016 in `root`,
    where that is the folder of all data sets. Raises DataError."""
    for folder in (root / split, root) if split else (root,):
        if (folder / "meta.json").exists():
            return YoutubeVosDataset(folder)
    if not (root / "JPEGImages").exists() and (root / "davis2016").is_dir():
        root = root / "davis2016"
    return DavisDataset(root, split)


def scorable(sequence: Sequence) -> tuple[ObjectTrack, ...]:
    """The objects with something to compare predictions with: two annotated frames after the one that gives them, of
    which the last does not count (see `score_sequence`). None of them where only the given masks are published."""
    # DAVIS names a map for every frame; its test splits have the first one only.
    drawn = {i for i in sequence.annotated if (path := sequence.mask_paths[i]) is not None and path.exists()}
    # What gives a late object is no truth about the earlier ones: it need not show them.
    if drawn <= {track.frames[0] for track in sequence.objects}:
        return ()
    return tuple(track for track in sequence.objects if sum(i > track.frames[0] for i in drawn) > 1)


def copy_first_mask(frames: Iterable[NDArray[np.uint8]], first: Labels) -> Iterator[Prediction]:
    """The baseline: every frame gets the first frame's labels."""
    return (Prediction(first) for _ in frames)


def bundle_tracker(engine: InProcess) -> Tracker:
    """What the served engine answers, by its own word on what is visible."""
    return lambda frames, first: (
        Prediction(result.labels, frozenset(one.object_id for one in result.objects if one.visible))
        for result in engine.track(frames, first)
    )


def predict(sequence: Sequence, tracker: Tracker) -> Iterator[Prediction]:
    """One for every frame. Objects that enter later are followed by a run of their own from the frame that first shows
    them; where runs overlap, the earlier keeps the pixel."""
    starts: dict[int, list[int]] = {}
    for track in sequence.objects:
        starts.setdefault(track.frames[0], []).append(track.object_id)
    runs: list[tuple[int, Iterator[Prediction]]] = []
    for start, ids in sorted(starts.items()):
        given = sequence.labels(start)
        first = np.where(np.isin(given, ids), given, 0).astype(np.uint8)
        frames = (sequence.frame(index) for index in range(start, len(sequence)))
        runs.append((start, tracker(frames, first)))
    for index in range(len(sequence)):
        merged: Prediction | None = None
        for start, run in runs:
            if index >= start:
                one = next(run)
                merged = one if merged is None else _merged(merged, one)
        yield merged or Prediction(np.zeros(sequence.frame(index).shape[:2], np.uint8), frozenset())


def _merged(earlier: Prediction, later: Prediction) -> Prediction:
    labels = np.where(earlier.labels == 0, later.labels, earlier.labels)
    if earlier.visible is None or later.visible is None:
        return Prediction(labels)
    return Prediction(labels, earlier.visible | later.visible)


@dataclass(frozen=True)
class Scored:
    """A sequence's score, that of its first masks copied, J of each annotated frame, the mean over the objects that
    were given by then, for finding its worst moments, and whether `visible` was right, where the tracker says it."""

    score: SequenceScore
    copied: SequenceScore
    frame_j: Mapping[int, float]
    visible: Visibility | None


def score(sequence: Sequence, predictions: Iterable[Prediction]) -> Scored | None:
    """`predictions`, one per frame, against the truth; None where nothing is `scorable`. Takes every prediction either
    way, so whoever watches them sees the whole video. Raises DataError, and ValueError for a map of another size than
    its truth's."""
    if not scorable(sequence):
        for _ in predictions:
            pass
        return None
    frame_j: dict[int, float] = {}
    visible: list[Visibility] = []

    def pairs() -> Iterator[tuple[Labels, Labels]]:
        for index, one, truth in _with_truth(sequence, predictions):
            labels = one.labels
            yield labels, truth  # first: a map of another size is refused there, by name
            given = [track.object_id for track in sequence.objects if track.frames[0] <= index]
            if given:
                frame_j[index] = float(np.mean([jaccard(labels == n, truth == n) for n in given]))
            if one.visible is not None:
                followed = [track.object_id for track in sequence.objects if index > track.frames[0]]
                visible.append(Visibility.of(followed, one.visible, labels, truth))

    own = score_sequence(sequence.name, pairs())
    copies = _with_truth(sequence, predict(sequence, copy_first_mask))
    copied = score_sequence(sequence.name, ((one.labels, truth) for _, one, truth in copies))
    return Scored(own, copied, frame_j, sum(visible, Visibility()) if visible else None)


def _with_truth(sequence: Sequence, predictions: Iterable[Prediction]) -> Iterator[tuple[int, Prediction, Labels]]:
    annotated = set(sequence.annotated)
    for index, one in enumerate(predictions):
        if index in annotated:
            yield index, one, sequence.labels(index)
