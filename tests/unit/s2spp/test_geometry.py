"""The one geometry: grids for any frame shape, masks that never vanish, merging at the frame's own size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from s2spp.geometry import frame_to_model, mask_to_model, merge_to_frame, model_size

BUDGET = 256 * 448
sides = st.integers(1, 5000)


@given(sides, sides)
def test_grids_have_whole_strides_and_keep_to_the_budget(height: int, width: int) -> None:
    h, w = model_size(height, width, BUDGET, 32)
    assert h % 32 == 0 and w % 32 == 0
    assert 0.75 * BUDGET <= h * w <= 1.25 * BUDGET
    if 0.25 <= width / height <= 4:
        assert (w / h) / (width / height) == pytest.approx(1, abs=0.2)


@given(sides, sides)
def test_turning_the_frame_turns_the_grid(height: int, width: int) -> None:
    assert model_size(height, width, BUDGET, 32) == model_size(width, height, BUDGET, 32)[::-1]


def test_usual_shapes() -> None:
    assert model_size(480, 854, BUDGET, 32) == (256, 448)
    assert model_size(854, 480, BUDGET, 32) == (448, 256)
    assert model_size(500, 500, BUDGET, 32) == (352, 352)
    with pytest.raises(ValueError, match="at least one pixel"):
        model_size(0, 10, BUDGET, 32)


@given(st.integers(0, 479), st.integers(0, 853), st.sampled_from([(256, 448), (448, 256), (600, 1000)]))
def test_a_single_pixel_never_vanishes_and_stays_where_it_was(y: int, x: int, size: tuple[int, int]) -> None:
    mask = np.zeros((480, 854), np.uint8)
    mask[y, x] = 1
    small = mask_to_model(mask, size)
    rows, columns = np.nonzero(small)
    assert len(rows) >= 1
    assert abs((rows.mean() + 0.5) / size[0] - (y + 0.5) / 480) < 2 / size[0]
    assert abs((columns.mean() + 0.5) / size[1] - (x + 0.5) / 854) < 2 / size[1]


def test_an_empty_mask_stays_empty_and_a_full_one_full() -> None:
    assert not mask_to_model(np.zeros((480, 854), np.uint8), (256, 448)).any()
    assert mask_to_model(np.ones((480, 854), np.uint8), (256, 448)).all()


def test_large_frames_are_averaged_not_sampled() -> None:
    """A fine checkerboard is grey from afar; linear sampling would give stripes."""
    fine = ((np.indices((1024, 1792)).sum(axis=0) % 2) * 255).astype(np.uint8)
    small = frame_to_model(np.repeat(fine[..., None], 3, axis=2), (256, 448))
    assert small.min() > 100 and small.max() < 156


@pytest.mark.parametrize("objects", [1, 2, 7])
@pytest.mark.parametrize("size", [(33, 47), (5, 47), (9, 16)])
def test_merging_is_the_arg_max_over_resized_probabilities(objects: int, size: tuple[int, int]) -> None:
    probability = np.random.default_rng(objects).random((objects, 9, 16), np.float32).round(1)  # with ties
    _check_merged(probability, size)


@given(st.data(), st.integers(1, 60), st.integers(1, 60), st.integers(1, 3))
def test_merging_finds_objects_wherever_they_are(data: st.DataObject, height: int, width: int, objects: int) -> None:
    """Small ones, at borders, in frames that shrink, and objects that are nowhere."""
    probability = np.zeros((objects, 9, 16), np.float32)
    for row in probability:
        y, x = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 15))
        row[y : y + 2, x : x + 3] = data.draw(st.sampled_from([0.5, 0.51, 1.0]))
    _check_merged(probability, (height, width))


def _check_merged(probability: NDArray[np.float32], size: tuple[int, int]) -> None:
    ids = list(range(3, 3 + len(probability)))
    merged = merge_to_frame(probability, ids, *size)
    resized = np.stack([np.full(size, 0.5, np.float32), *(cv2.resize(row, size[::-1]) for row in probability)])
    assert np.array_equal(merged.labels, np.array([0, *ids], np.uint8)[resized.argmax(axis=0)])
    labelled = merged.labels[merged.box] > 0
    assert np.array_equal(merged.best[labelled], resized.max(axis=0)[merged.box][labelled])
    outside = np.ones(size, bool)
    outside[merged.box] = False
    assert not merged.labels[outside].any()
