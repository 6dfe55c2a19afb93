"""Frames and masks on the model's grid: the one geometry, as training uses it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_datasets import texture

from s2spp.geometry import frame_to_model, mask_to_model


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 40), st.integers(1, 40), st.data())
def test_an_object_never_vanishes(h: int, w: int, new_h: int, new_w: int, data: st.DataObject) -> None:
    mask = np.zeros((h, w), np.uint8)
    assert not mask_to_model(mask, (new_h, new_w)).any()
    mask[data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))] = 1
    small = mask_to_model(mask, (new_h, new_w))
    assert small.shape == (new_h, new_w)
    assert small.any()
    assert set(np.unique(small)) <= {0, 1}


def test_a_vanishing_object_stays_at_its_densest_place() -> None:
    mask = np.zeros((80, 80), np.uint8)
    mask[70:72, 10:12] = 1
    mask[5, 5] = 1
    assert np.argwhere(mask_to_model(mask, (8, 8))).tolist() == [[7, 1]]


def test_half_covered_pixels_count() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:, :10] = 1
    mask[:10, 10:15] = 1
    np.testing.assert_array_equal(mask_to_model(mask, (4, 4)), [[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]])


def test_shrinking_a_frame_averages_instead_of_picking() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 200
    small = frame_to_model(stripes, (16, 16))
    assert (small == 50).all()


def test_enlarging_a_frame_keeps_its_look() -> None:
    large = frame_to_model(texture(0), (90, 150))
    assert large.shape == (90, 150, 3)
    assert np.abs(frame_to_model(large, (60, 100)).astype(int) - texture(0)).mean() < 4


def test_a_side_that_shrinks_is_averaged_though_the_other_grows() -> None:
    stripes = np.zeros((20, 64, 3), np.uint8)
    stripes[:, ::4] = 200
    assert (frame_to_model(stripes, (40, 16)) == 50).all()


def test_a_thin_object_stays_at_its_place_though_one_side_grows() -> None:
    mask = np.zeros((10, 400), np.uint8)
    mask[5, 301] = 1
    rows, columns = np.nonzero(mask_to_model(mask, (40, 20)))
    assert set(columns) == {301 // 20}
    assert rows.min() >= 20 and rows.max() < 24
