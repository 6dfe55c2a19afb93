"""J and F against a pixel by pixel reading of their definitions, and DAVIS's rules for averaging them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from model.metrics import (
    DatasetScore,
    ObjectScore,
    SequenceScore,
    Statistics,
    YouTubeVOSScore,
    boundary_f,
    jaccard,
    score_sequence,
    statistics,
)

Mask = NDArray[np.bool_]


# ---------------------------------------------------------------- the brute force


def brute_jaccard(pred: Mask, truth: Mask) -> float:
    p = {(y, x) for y, x in zip(*np.nonzero(pred), strict=True)}
    t = {(y, x) for y, x in zip(*np.nonzero(truth), strict=True)}
    return len(p & t) / len(p | t) if p | t else 1.0


def brute_boundary(mask: Mask) -> set[tuple[int, int]]:
    """Pixels that differ from their right, lower or lower right neighbour, where these lie in the image."""
    height, width = mask.shape
    found = set()
    for y in range(height):
        for x in range(width):
            for ny, nx in ((y, x + 1), (y + 1, x), (y + 1, x + 1)):
                if ny < height and nx < width and mask[y, x] != mask[ny, nx]:
                    found.add((y, x))
    return found


def brute_f(pred: Mask, truth: Mask, bound_th: float) -> float:
    limit = math.ceil(bound_th * math.sqrt(pred.shape[0] ** 2 + pred.shape[1] ** 2))
    p, t = brute_boundary(pred), brute_boundary(truth)
    if not p and not t:
        return 1.0
    if not p or not t:
        return 0.0

    def share_near(points: set[tuple[int, int]], others: set[tuple[int, int]]) -> float:
        return sum(any(math.dist(a, b) <= limit for b in others) for a in points) / len(points)

    precision, recall = share_near(p, t), share_near(t, p)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[Mask, Mask]:
    """Speckles, rectangles (which touch the border often), or nothing or all of it."""
    shape = draw(array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14))

    def one() -> Mask:
        kind = draw(st.sampled_from(["speckles", "box", "empty", "full"]))
        if kind == "speckles":
            return draw(arrays(np.bool_, shape))
        mask = np.full(shape, kind == "full")
        if kind == "box":
            y = sorted(draw(st.tuples(*[st.integers(0, shape[0])] * 2)))
            x = sorted(draw(st.tuples(*[st.integers(0, shape[1])] * 2)))
            mask[y[0] : y[1], x[0] : x[1]] = True
        return mask

    return one(), one()


def one_pixel(y: int, x: int, shape: tuple[int, int] = (9, 12)) -> Mask:
    mask = np.zeros(shape, bool)
    mask[y, x] = True
    return mask


FULL, EMPTY = np.ones((9, 12), bool), np.zeros((9, 12), bool)


@settings(max_examples=200, deadline=None)
@given(mask_pairs(), st.sampled_from([0.008, 0.1, 0.2, 0.35]))
@example((EMPTY, EMPTY), 0.008)
@example((FULL, EMPTY), 0.008)
@example((FULL, one_pixel(4, 4)), 0.1)
@example((one_pixel(0, 0), one_pixel(8, 11)), 0.1)
@example((one_pixel(8, 11), EMPTY), 0.1)
@example((one_pixel(8, 0), one_pixel(8, 2)), 0.1)
def test_j_and_f_agree_with_brute_force(pair: tuple[Mask, Mask], bound_th: float) -> None:
    pred, truth = pair
    assert jaccard(pred, truth) == pytest.approx(brute_jaccard(pred, truth))
    assert boundary_f(pred, truth, bound_th) == pytest.approx(brute_f(pred, truth, bound_th))


@settings(max_examples=100, deadline=None)
@given(mask_pairs())
def test_a_perfect_mask_scores_one_and_both_measures_are_symmetric(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    assert jaccard(a, a) == boundary_f(a, a) == 1.0
    assert jaccard(a, b) == jaccard(b, a)
    assert boundary_f(a, b) == pytest.approx(boundary_f(b, a))


@settings(max_examples=60, deadline=None)
@given(mask_pairs(), st.integers(1, 5), st.integers(1, 5))
def test_moving_both_masks_inside_the_frame_changes_nothing(pair: tuple[Mask, Mask], down: int, right: int) -> None:
    def placed(mask: Mask, y: int, x: int) -> Mask:
        frame = np.zeros((24, 24), bool)
        frame[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
        return frame

    here = [placed(mask, 1, 1) for mask in pair]
    there = [placed(mask, 1 + down, 1 + right) for mask in pair]
    assert jaccard(*here) == jaccard(*there)
    assert boundary_f(*here) == boundary_f(*there)


def test_f_forgives_up_to_the_tolerance_and_no_more() -> None:
    """At 854 x 480 the tolerance is ceil(0.008 * 979.6) = 8 pixels."""

    def square(left: int) -> Mask:
        mask = np.zeros((480, 854), bool)
        mask[100:300, left : left + 200] = True
        return mask

    assert boundary_f(square(108), square(100)) == 1.0
    assert boundary_f(square(109), square(100)) < 1.0


def test_masks_of_0_and_255_count_like_booleans() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 20, 30)) > 0.5
    as_bytes = [np.where(mask, 255, 0).astype(np.uint8) for mask in (a, b)]
    assert jaccard(*as_bytes) == jaccard(a, b)
    assert boundary_f(*as_bytes) == boundary_f(a, b)


def test_masks_of_different_shapes_are_refused() -> None:
    for measure in (jaccard, boundary_f):
        with pytest.raises(ValueError, match=r"\(4, 5\) and \(5, 4\)"):
            measure(np.ones((4, 5), bool), np.ones((5, 4), bool))


# ---------------------------------------------------------------- statistics


def test_statistics_of_seven_frames_by_hand() -> None:
    # The bins' ends 1, 2.5, 4, 5.5, 7 become 1, 3, 4, 6, 7 (a half goes up): frames 1-3 and 6-7.
    got = statistics([1.0, 0.9, 0.8, 0.5, 0.5, 0.6, 0.2])
    assert got.mean == pytest.approx(4.5 / 7)
    assert got.recall == pytest.approx(4 / 7)  # 0.5 itself is not above 0.5
    assert got.decay == pytest.approx(0.9 - 0.4)


def test_decay_holds_for_more_frames_than_a_byte_counts() -> None:
    assert statistics(np.linspace(1, 0, 1001)).decay == pytest.approx(0.75)


def test_statistics_of_one_frame_and_of_none() -> None:
    assert statistics([0.7]) == Statistics(mean=0.7, recall=1.0, decay=0.0)
    with pytest.raises(ValueError, match="no frame"):
        statistics([])


# ---------------------------------------------------------------- sequences


def labels(*boxes: tuple[int, int]) -> NDArray[np.uint8]:
    """A 20 x 40 label map with an 8 x 8 square per (object id, left)."""
    frame = np.zeros((20, 40), np.uint8)
    for object_id, left in boxes:
        frame[6:14, left : left + 8] = object_id
    return frame


def test_first_and_last_frame_do_not_count() -> None:
    right, wrong = labels((1, 5)), labels((1, 30))
    frames = [(wrong, right), (right, right), (right, right), (wrong, right)]
    score = score_sequence("s", frames)
    assert score.j.mean == score.f.mean == score.jf == 1.0
    assert score_sequence("s", [frames[1], frames[0], frames[1], frames[1]]).j.mean == 0.5


def test_each_object_is_scored_by_itself() -> None:
    truth = labels((1, 2), (4, 25))
    score = score_sequence("s", [(labels((1, 2)), truth)] * 4)
    assert [item.object_id for item in score.objects] == [1, 4]
    assert [item.j.mean for item in score.objects] == [1.0, 0.0]
    assert score.j.mean == 0.5
    swapped = score_sequence("s", [(labels((4, 2), (1, 25)), truth)] * 4)
    assert swapped.jf == 0.0


def test_an_object_that_comes_later_counts_from_the_frame_after_its_first() -> None:
    early, both = labels((1, 2)), labels((1, 2), (2, 25))
    frames = [(early, early), (early, early), (early, both), (both, both), (early, both)]
    score = score_sequence("s", frames)
    assert score.objects[1] == ObjectScore(2, Statistics(1.0, 1.0, 0.0), Statistics(1.0, 1.0, 0.0))


def test_absent_object_counts_as_right_only_if_nothing_is_predicted() -> None:
    seen, gone = labels((1, 2)), labels()
    score = score_sequence("s", [(seen, seen), (gone, gone), (seen, gone), (gone, seen), (seen, seen)])
    assert score.j.mean == score.f.mean == pytest.approx(1 / 3)


def test_a_sequence_with_nothing_to_score_is_told() -> None:
    for frames in ([(labels((1, 2)),) * 2] * 2, [(labels((1, 2)), labels())] * 5):
        with pytest.raises(ValueError, match="clip7: nothing to score"):
            score_sequence("clip7", frames)
    with pytest.raises(ValueError, match=r"clip7, frame 0: prediction is \(10, 40\), truth is \(20, 40\)"):
        score_sequence("clip7", [(labels()[:10], labels())])


# ---------------------------------------------------------------- data sets


def scored(name: str, *values: tuple[float, float]) -> SequenceScore:
    return SequenceScore(
        name,
        tuple(ObjectScore(i, Statistics(j, j, 0.1), Statistics(f, f, 0.2)) for i, (j, f) in enumerate(values, 1)),
    )


def test_a_data_set_is_the_mean_over_objects_not_over_videos() -> None:
    score = DatasetScore((scored("a", (0.9, 0.8)), scored("b", (0.3, 0.4), (0.6, 0.6))))
    assert score.j.mean == pytest.approx(0.6)
    assert score.f.mean == pytest.approx(0.6)
    assert score.jf == pytest.approx(0.6)
    assert (score.j.recall, score.j.decay, score.f.decay) == pytest.approx((0.6, 0.1, 0.2))
    assert score.sequences[1].j.mean == pytest.approx(0.45)


def test_youtube_vos_weighs_seen_and_unseen_alike() -> None:
    sequences = [scored("a", (0.8, 0.9), (0.6, 0.7)), scored("b", (0.2, 0.4))]
    score = YouTubeVOSScore.of(sequences, {("a", 1): True, ("a", 2): True, ("b", 1): False})
    assert (score.j_seen, score.f_seen) == pytest.approx((0.7, 0.8))
    assert (score.j_unseen, score.f_unseen) == pytest.approx((0.2, 0.4))
    assert score.overall == pytest.approx(0.525)
    # The paper's own row: 68.68, 48.89, 72.03, 54.42 -> 61.00.
    assert YouTubeVOSScore(68.68, 48.89, 72.03, 54.42).overall == pytest.approx(61.0, abs=0.01)


def test_youtube_vos_needs_to_know_every_object_and_both_kinds() -> None:
    with pytest.raises(ValueError, match="object 1 of a"):
        YouTubeVOSScore.of([scored("a", (0.5, 0.5))], {})
    with pytest.raises(ValueError, match="seen and of unseen"):
        YouTubeVOSScore.of([scored("a", (0.5, 0.5))], {("a", 1): True})
