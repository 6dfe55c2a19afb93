"""Resizing of frames and masks."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_datasets import texture

from model.data.resize import resize_frame, resize_mask


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 40), st.integers(1, 40), st.data())
def test_an_object_never_vanishes(h: int, w: int, new_h: int, new_w: int, data: st.DataObject) -> None:
    mask = np.zeros((h, w), np.uint8)
    assert not resize_mask(mask, (new_h, new_w)).any()
    mask[data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))] = 1
    small = resize_mask(mask, (new_h, new_w))
    assert small.shape == (new_h, new_w)
    assert small.any()
    assert set(np.unique(small)) <= {0, 1}


def test_a_vanishing_object_stays_at_its_densest_place() -> None:
    mask = np.zeros((80, 80), np.uint8)
    mask[70:72, 10:12] = 1
    mask[5, 5] = 1
    assert np.argwhere(resize_mask(mask, (8, 8))).tolist() == [[7, 1]]


def test_half_covered_pixels_count() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[:, :10] = 1
    mask[:10, 10:15] = 1
    np.testing.assert_array_equal(
        resize_mask(mask, (4, 4)), [[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]]
    )


def test_shrinking_a_frame_averages_instead_of_picking() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = 200
    small = resize_frame(stripes, (16, 16))
    assert (small == 50).all()


def test_enlarging_a_frame_keeps_its_look() -> None:
    large = resize_frame(texture(0), (90, 150))
    assert large.shape == (90, 150, 3)
    assert np.abs(resize_frame(large, (60, 100)).astype(int) - texture(0)).mean() < 4
