"""Augmentation: alike for every frame, frame and mask together; corrupted masks stay close."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_datasets import texture

from model.data.augment import (
    AugmentConfig,
    augment_clip,
    corrupt_mask,
    random_affine,
    random_colour,
    recolour,
)

ALWAYS = AugmentConfig(affine_odds=1, colour_odds=1)


def disc(radius: int) -> np.ndarray:
    mask = np.zeros((96, 160), np.uint8)
    cv2.circle(mask, (80, 48), radius, 1, -1)
    return mask


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_static_clip_stays_static(seed: int) -> None:
    frames, masks = np.stack([texture(1, 96, 160)] * 4), np.stack([disc(25)] * 4)
    frames, masks = augment_clip(frames, masks, np.random.default_rng(seed), ALWAYS)
    assert (frames == frames[0]).all()
    assert (masks == masks[0]).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_mask_goes_where_the_pixels_go(seed: int) -> None:
    mask = disc(20)
    frame = np.where(mask[..., None] == 1, (250, 0, 0), (0, 0, 0)).astype(np.uint8)
    config = AugmentConfig(affine_odds=1, colour_odds=0)
    frames, masks = augment_clip(frame[None], mask[None], np.random.default_rng(seed), config)
    assert ((frames[0, ..., 0] > 125) != masks[0]).mean() < 0.002
    assert 0.4 < masks[0].sum() / mask.sum() < 1.9


def test_reflection_fills_frames_but_adds_no_object() -> None:
    frame, mask = np.full((96, 160, 3), 200, np.uint8), np.zeros((96, 160), np.uint8)
    mask[:, :3] = 1
    config = AugmentConfig(flip_odds=0, affine_odds=1, rotation_deg=0, shear_deg=0, scale=(0.75, 0.75), colour_odds=0)
    frames, masks = augment_clip(frame[None], mask[None], np.random.default_rng(0), config)
    assert (frames == 200).all()
    assert masks.sum() < mask.sum()


def test_every_part_can_be_switched_off() -> None:
    off = AugmentConfig(flip_odds=0, affine_odds=0, colour_odds=0)
    assert random_affine((96, 160), np.random.default_rng(0), off) is None
    assert random_colour(np.random.default_rng(0), off) is None


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
