"""Clips cut out of videos: order, stride, visibility, crop."""

from pathlib import Path

import numpy as np
import pytest
from tiny_datasets import moving_square, save_davis_sequence

from model.data.augment import AugmentConfig
from model.data.davis import DavisDataset
from model.data.read import DataError
from model.data.video_source import VideoConfig, VideoSource

STILL = AugmentConfig(flip_odds=0, affine_odds=0, colour_odds=0)


def lefts(masks_THW: np.ndarray) -> list[int]:
    return [int(np.flatnonzero(mask.any(axis=0))[0]) for mask in masks_THW]


def source_of(root: Path, config: VideoConfig) -> VideoSource:
    return VideoSource("tiny", DavisDataset(root, None).sequences, config)


def test_frames_follow_each_other_at_one_stride_in_one_direction(tmp_path: Path) -> None:
    save_davis_sequence(tmp_path, "long", [moving_square(t, left=0) for t in range(20)], indexed=True)
    source = source_of(tmp_path, VideoConfig(max_stride=3, zoom_odds=0, augment=STILL, dolly_odds=0))
    seen = set()
    for seed in range(60):
        clip = source.clip(0, 5, (60, 100), np.random.default_rng(seed))
        steps = np.diff(lefts(clip.masks_THW))
        assert (steps == steps[0]).all()
        seen.add(int(steps[0]) // 2)
    assert seen == {-3, -2, -1, 1, 2, 3}


def test_a_short_video_is_played_back_and_forth(tmp_path: Path) -> None:
    save_davis_sequence(tmp_path, "short", [moving_square(t, left=0) for t in range(3)], indexed=True)
    source = source_of(tmp_path, VideoConfig(zoom_odds=0, augment=STILL, dolly_odds=0))
    for seed in range(10):
        positions = np.array(lefts(source.clip(0, 7, (60, 100), np.random.default_rng(seed)).masks_THW)) // 2
        assert set(positions) == {0, 1, 2}
        assert (np.abs(np.diff(positions)) == 1).all()


def test_one_frame_is_enough(tmp_path: Path) -> None:
    save_davis_sequence(tmp_path, "photo", [moving_square(0)], indexed=True)
    clip = source_of(tmp_path, VideoConfig(augment=STILL, dolly_odds=0)).clip(0, 4, (30, 50), np.random.default_rng(0))
    assert clip.frames_THWC.shape == (4, 30, 50, 3)
    assert clip.masks_THW.any(axis=(1, 2)).all()


def test_never_starts_where_the_object_is_hidden(tmp_path: Path) -> None:
    empty = np.zeros((60, 100), np.uint8)
    labels = [moving_square(0), empty, empty, moving_square(3), empty]
    save_davis_sequence(tmp_path, "hide", labels, indexed=True)
    source = source_of(tmp_path, VideoConfig(augment=STILL, dolly_odds=0))
    for seed in range(20):
        assert source.clip(0, 3, (60, 100), np.random.default_rng(seed)).starts_visible


def test_an_object_too_small_for_the_size_is_named(tmp_path: Path) -> None:
    speck = np.zeros((60, 100), np.uint8)
    speck[30, 30:33] = 1
    save_davis_sequence(tmp_path, "speck", [speck], indexed=True)
    with pytest.raises(DataError, match=r"speck/00000\.png: object 1 of 'speck' is too small"):
        source_of(tmp_path, VideoConfig()).clip(0, 2, (60, 100), np.random.default_rng(0))


def test_zoom_keeps_the_whole_object_and_enlarges_it(tmp_path: Path) -> None:
    save_davis_sequence(tmp_path, "long", [moving_square(0)], indexed=True)
    source = source_of(tmp_path, VideoConfig(zoom_odds=1, smallest_zoom=0.4, augment=STILL, dolly_odds=0))
    areas = []
    for seed in range(30):
        mask = source.clip(0, 1, (60, 100), np.random.default_rng(seed)).masks_THW[0]
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        # A 20 x 20 square cut by the crop would lose its shape.
        assert abs((ys[-1] - ys[0]) - (xs[-1] - xs[0])) <= 2
        areas.append(int(mask.sum()))
    assert min(areas) >= 390
    assert max(areas) > 1600


def test_a_clip_looks_alike_in_every_frame(tmp_path: Path) -> None:
    save_davis_sequence(tmp_path, "still", [moving_square(0)] * 4, indexed=True)
    clip = source_of(tmp_path, VideoConfig(dolly_odds=0)).clip(0, 4, (60, 100), np.random.default_rng(3))
    assert (clip.masks_THW == clip.masks_THW[0]).all()


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (64, 64)])
def test_no_shape_of_clip_squeezes_the_object(tmp_path: Path, size: tuple[int, int]) -> None:
    """Serving keeps the aspect ratio too: a square stays one, in a portrait clip of a landscape video as well."""
    save_davis_sequence(tmp_path, "long", [moving_square(0)], indexed=True)
    source = source_of(tmp_path, VideoConfig(augment=STILL, dolly_odds=0))
    for seed in range(20):
        mask = source.clip(0, 1, size, np.random.default_rng(seed)).masks_THW[0]
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert abs((ys[-1] - ys[0]) - (xs[-1] - xs[0])) <= 2


def test_a_dataset_without_objects_is_refused() -> None:
    with pytest.raises(DataError, match="no annotated object"):
        VideoSource("nothing", [])


def test_the_camera_draws_nearer_or_away_at_an_even_pace_about_the_object(tmp_path: Path) -> None:
    save_davis_sequence(tmp_path, "photo", [moving_square(0, left=30)], indexed=True)
    source = source_of(tmp_path, VideoConfig(zoom_odds=0, augment=STILL, dolly_odds=1, largest_dolly=2))
    growths = []
    for seed in range(30):
        clip = source.clip(0, 5, (240, 400), np.random.default_rng(seed))
        sides = np.sqrt(clip.masks_THW.sum(axis=(1, 2)))
        steps = sides[1:] / sides[:-1]
        assert np.ptp(steps) < 0.06
        ys, xs = np.nonzero(clip.masks_THW[-1])
        first_ys, first_xs = np.nonzero(clip.masks_THW[0])
        assert abs(ys.mean() - first_ys.mean()) < 2 and abs(xs.mean() - first_xs.mean()) < 2
        growths.append(sides[-1] / sides[0])
    assert 0.45 < min(growths) < 0.7 and 1.5 < max(growths) < 2.1
