"""J and F, the DAVIS measures of video object segmentation, and YouTube-VOS's overall score.

Definitions: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation"
(CVPR 2016) and the DAVIS-2017 evaluation toolkit (semi-supervised task). Every score is a fraction, 0..1.
Needs numpy and OpenCV only: scoring never imports torch.

    jaccard, boundary_f        one mask of one frame
    statistics                 the values of one object's frames -> mean, recall, decay
    score_sequence             label maps of one video -> SequenceScore -> its ObjectScores
    DatasetScore, YouTubeVOSScore   many videos
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_] | NDArray[np.uint8]
"""[H,W]; whatever is not zero belongs to the object."""

BOUND_TH = 0.008
"""DAVIS's tolerance of the boundary measure, as a fraction of the image diagonal."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What DAVIS tells of a measure: mean, recall (share of frames > 0.5), decay (first - last quarter)."""

    mean: float
    recall: float
    decay: float

    @staticmethod
    def average(items: Sequence[Statistics]) -> Statistics:
        """Each of the three averaged over `items` (not empty)."""
        return Statistics(
            mean=float(np.mean([item.mean for item in items])),
            recall=float(np.mean([item.recall for item in items])),
            decay=float(np.mean([item.decay for item in items])),
        )


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """J and F of one object over the counted frames of its sequence."""

    object_id: int
    j: Statistics
    f: Statistics


@dataclass(frozen=True, slots=True)
class SequenceScore:
    """The objects of one sequence; the sequence's own J and F are the means over them."""

    name: str
    objects: tuple[ObjectScore, ...]

    @property
    def j(self) -> Statistics:
        return Statistics.average([item.j for item in self.objects])

    @property
    def f(self) -> Statistics:
        return Statistics.average([item.f for item in self.objects])

    @property
    def jf(self) -> float:
        return (self.j.mean + self.f.mean) / 2


@dataclass(frozen=True, slots=True)
class DatasetScore:
    """A split. J and F are means over the OBJECTS of all sequences, the DAVIS-2017 convention: a video of
    five objects weighs five times one of a single object. With one object a video it is DAVIS-2016's mean."""

    sequences: tuple[SequenceScore, ...]

    @property
    def j(self) -> Statistics:
        return Statistics.average([item.j for sequence in self.sequences for item in sequence.objects])

    @property
    def f(self) -> Statistics:
        return Statistics.average([item.f for sequence in self.sequences for item in sequence.objects])

    @property
    def jf(self) -> float:
        return (self.j.mean + self.f.mean) / 2


@dataclass(frozen=True, slots=True)
class YouTubeVOSScore:
    """YouTube-VOS: categories that training has seen, and those it has not, weigh the same."""

    j_seen: float
    j_unseen: float
    f_seen: float
    f_unseen: float

    @property
    def overall(self) -> float:
        return (self.j_seen + self.j_unseen + self.f_seen + self.f_unseen) / 4

    @staticmethod
    def of(sequences: Iterable[SequenceScore], seen: Mapping[tuple[str, int], bool]) -> YouTubeVOSScore:
        """Mean over objects, seen and unseen apart; `seen` says of (sequence name, object id) which it is.

        Raises:
            ValueError: an object is not in `seen`, or there is no seen or no unseen object.
        """
        groups: dict[bool, list[ObjectScore]] = {True: [], False: []}
        for sequence in sequences:
            for item in sequence.objects:
                if (sequence.name, item.object_id) not in seen:
                    raise ValueError(f"no category is known for object {item.object_id} of {sequence.name}")
                groups[seen[sequence.name, item.object_id]].append(item)
        if not groups[True] or not groups[False]:
            raise ValueError("the YouTube-VOS score needs objects of seen and of unseen categories")
        j = {known: Statistics.average([item.j for item in items]).mean for known, items in groups.items()}
        f = {known: Statistics.average([item.f for item in items]).mean for known, items in groups.items()}
        return YouTubeVOSScore(j_seen=j[True], j_unseen=j[False], f_seen=f[True], f_unseen=f[False])


def jaccard(pred: Mask, truth: Mask) -> float:
    """J: intersection over union of two masks [H,W]; 1 where both are empty.

    Raises:
        ValueError: the two are not 2-dimensional or not of one shape.
    """
    p, t = _binary_pair(pred, truth)
    union = cv2.countNonZero(cv2.bitwise_or(p, t))
    return cv2.countNonZero(cv2.bitwise_and(p, t)) / union if union else 1.0


def boundary_f(pred: Mask, truth: Mask, bound_th: float = BOUND_TH) -> float:
    """F: harmonic mean of the precision and the recall of the boundary pixels of two masks [H,W].

    A boundary pixel is matched if the other mask has one within `ceil(bound_th * diagonal)` pixels
    (`bound_th` of 1 or more is that distance itself). Two masks without a boundary: 1; one without: 0.

    Raises:
        ValueError: the two are not 2-dimensional or not of one shape.
    """
    p, t = _binary_pair(pred, truth)
    radius = math.ceil(bound_th if bound_th >= 1 else bound_th * math.hypot(*p.shape))
    # Matches are counted at boundary pixels alone, and those lie within one pixel of the masks: the rest of
    # the frame can be left out. The pixel of margin keeps a mask's own edge from passing for the image's.
    x, y, width, height = cv2.boundingRect(cv2.bitwise_or(p, t))
    window = np.s_[max(y - 1, 0) : y + height + 1, max(x - 1, 0) : x + width + 1]
    pred_edge, truth_edge = _boundary_map(p[window]), _boundary_map(t[window])
    n_pred, n_truth = cv2.countNonZero(pred_edge), cv2.countNonZero(truth_edge)
    if n_pred == 0 or n_truth == 0:
        return float(n_pred == n_truth)
    precision = cv2.countNonZero(cv2.bitwise_and(pred_edge, cv2.dilate(truth_edge, _disk(radius)))) / n_pred
    recall = cv2.countNonZero(cv2.bitwise_and(truth_edge, cv2.dilate(pred_edge, _disk(radius)))) / n_truth
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def statistics(values: Sequence[float] | NDArray[np.float64]) -> Statistics:
    """Mean, recall and decay of one object's per-frame values (the counted frames, in order).

    The four bins of the decay share their end frames, as in the toolkit.

    Raises:
        ValueError: there is no value.
    """
    series = np.asarray(values, dtype=np.float64)
    if series.size == 0:
        raise ValueError("no frame to score")
    # 1e-10: the toolkit's own nudge, so that halves are rounded up as its MATLAB original does.
    ends = np.round(np.linspace(1, series.size, 5) + 1e-10).astype(int) - 1
    first, last = series[ends[0] : ends[1] + 1], series[ends[3] : ends[4] + 1]
    return Statistics(
        mean=float(series.mean()),
        recall=float((series > 0.5).mean()),
        decay=float(first.mean() - last.mean()),
    )


def score_sequence(
    name: str,
    frames: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    bound_th: float = BOUND_TH,
) -> SequenceScore:
    """Score one video, frame by frame (only one frame is held at a time).

    `frames` gives (predicted labels, true labels), uint8 [H,W], 0 = background. The objects are the labels of
    the truth. An object counts from the frame AFTER the one that first shows it (there its mask was given) to
    the last but one, so in DAVIS the first and the last frame are left out. An object with no frame to count
    is not scored.

    Raises:
        ValueError: label maps of different shapes, or no object has a frame to count.
    """
    j_values: dict[int, list[float]] = {}
    f_values: dict[int, list[float]] = {}
    for index, (pred, truth) in enumerate(frames):
        if pred.shape != truth.shape:
            raise ValueError(f"{name}, frame {index}: prediction is {pred.shape}, truth is {truth.shape}")
        for object_id in j_values:
            p, t = pred == object_id, truth == object_id
            j_values[object_id].append(jaccard(p, t))
            f_values[object_id].append(boundary_f(p, t, bound_th))
        for object_id in np.unique(truth).tolist():
            if object_id != 0 and object_id not in j_values:
                j_values[object_id], f_values[object_id] = [], []
    objects = tuple(
        ObjectScore(object_id, statistics(j_values[object_id][:-1]), statistics(f_values[object_id][:-1]))
        for object_id in sorted(j_values)
        if len(j_values[object_id]) > 1
    )
    if not objects:
        raise ValueError(
            f"{name}: nothing to score; the first and the last frame do not count, so a sequence needs "
            "three annotated frames and an object in its truth"
        )
    return SequenceScore(name, objects)


def _binary_pair(pred: Mask, truth: Mask) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    if pred.ndim != 2 or pred.shape != truth.shape:
        raise ValueError(f"need two masks [H,W] of one shape, got {pred.shape} and {truth.shape}")
    return (pred != 0).view(np.uint8), (truth != 0).view(np.uint8)


def _boundary_map(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The toolkit's `seg2bmap`: 1 where a pixel differs from its right, lower or lower right neighbour.

    What lies past the last row and column repeats them: an object cut by the image's border has no boundary
    there.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    edge: NDArray[np.uint8] = (here ^ padded[:-1, 1:]) | (here ^ padded[1:, :-1]) | (here ^ padded[1:, 1:])
    return edge


@cache
def _disk(radius: int) -> NDArray[np.uint8]:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk: NDArray[np.uint8] = (x * x + y * y <= radius * radius).astype(np.uint8)
    return disk
