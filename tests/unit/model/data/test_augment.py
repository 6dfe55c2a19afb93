"""Augmentation: alike for every frame, frame and mask together; corrupted masks stay close."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_datasets import texture

from model.data.augment import (
    AugmentConfig,
    corrupt_mask,
    random_affine,
    random_colour,
    recolour,
    warp_frame,
    warp_mask,
)


def disc(radius: int) -> np.ndarray:
    mask = np.zeros((96, 160), np.uint8)
    cv2.circle(mask, (80, 48), radius, 1, -1)
    return mask


SIZE = (96, 160)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_mask_goes_where_the_pixels_go(seed: int) -> None:
    mask = disc(20)
    frame = np.where(mask[..., None] == 1, (250, 0, 0), (0, 0, 0)).astype(np.uint8)
    onto = random_affine(SIZE, np.random.default_rng(seed), AugmentConfig(affine_odds=1))
    warped, moved = warp_frame(frame, onto, SIZE), warp_mask(mask, onto, SIZE)
    # Red over green: the grey beyond the frame is no object either.
    assert ((warped[..., 0].astype(int) - warped[..., 1] > 125) != moved).mean() < 0.002
    assert 0.4 < moved.sum() / mask.sum() < 1.9


def test_nothing_of_the_object_shows_beyond_the_frame() -> None:
    frame, mask = np.full((*SIZE, 3), 20, np.uint8), np.zeros(SIZE, np.uint8)
    frame[:, :30], mask[:, :30] = 240, 1
    away = np.array([[0.6, 0, 40], [0, 0.6, 20], [0, 0, 1]])
    warped, moved = warp_frame(frame, away, SIZE), warp_mask(mask, away, SIZE)
    assert ((warped[..., 0] > 200) == moved).all()
    assert (warped[:, :38] == 127).all()


def test_a_strong_reduction_averages_instead_of_skipping() -> None:
    stripes = np.zeros((96, 160, 3), np.uint8)
    stripes[:, ::2] = 200
    quarter = np.array([[0.25, 0, -0.375], [0, 0.25, -0.375], [0, 0, 1]])
    assert np.abs(warp_frame(stripes, quarter, (24, 40)).astype(int) - 100).max() <= 1
    assert (warp_mask(disc(40), quarter, (24, 40)) != cv2.resize(disc(40), (40, 24))).mean() < 0.02


def test_pixel_centres_stay_when_areas_are_averaged() -> None:
    mask = np.zeros((96, 160), np.uint8)
    mask[32:48, 64:96] = 1
    quarter = np.array([[0.25, 0, -0.375], [0, 0.25, -0.375], [0, 0, 1]])
    small = warp_mask(mask, quarter, (24, 40))
    assert small[8:12, 16:24].all() and small.sum() == 32


def test_every_part_can_be_switched_off() -> None:
    off = AugmentConfig(flip_odds=0, affine_odds=0, colour_odds=0)
    assert (random_affine(SIZE, np.random.default_rng(0), off) == np.eye(3)).all()
    assert random_colour(np.random.default_rng(0), off) is None
    frame = texture(1, *SIZE)
    assert (warp_frame(frame, np.eye(3), SIZE) == frame).all()


def test_grey_takes_the_colour_away_and_hue_leaves_grey_alone() -> None:
    frame = texture(3)
    grey_only = AugmentConfig(colour_odds=1, brightness=0, contrast=0, saturation=0, hue_deg=0, grey_odds=1)
    grey = recolour(frame, random_colour(np.random.default_rng(0), grey_only))
    np.testing.assert_allclose(grey[..., 0], cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), atol=1)
    assert (grey == grey[..., :1]).all()
    hue_only = AugmentConfig(colour_odds=1, brightness=0, contrast=0, saturation=0, hue_deg=30, grey_odds=0)
    colour = random_colour(np.random.default_rng(1), hue_only)
    np.testing.assert_allclose(recolour(grey, colour), grey, atol=1)
    assert np.abs(recolour(frame, colour).astype(int) - frame).mean() > 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 3, 10, 30]))
def test_a_corrupted_mask_is_near_the_true_one_and_never_empty(seed: int, radius: int) -> None:
    mask = disc(radius)
    worn = corrupt_mask(mask, np.random.default_rng(seed))
    assert set(np.unique(worn)) <= {0, 1}
    assert worn.any()
    if radius >= 10:
        assert (worn & mask).sum() / (worn | mask).sum() > 0.6


def test_corruption_does_change_masks() -> None:
    changed = [(corrupt_mask(disc(30), np.random.default_rng(seed)) != disc(30)).any() for seed in range(20)]
    assert np.mean(changed) > 0.8
