"""Synthetic clips: the mask is where the object's own pixels are, whatever passes in front of it."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_datasets import save_grey

from model.data.augment import AugmentConfig
from model.data.read import DataError
from model.data.scene import SceneConfig
from model.data.stills import START_COVER, StillConfig, StillSource

SIZE = (96, 160)
RED = 0
PLAIN = SceneConfig(own_background=1, distractor=0, twin=0, occluder=0, deformed=0, blurred=0, flicker=0)
BUSY = SceneConfig(own_background=0.5, distractor=1, twin=0, occluder=1, deformed=1, blurred=0.5, flicker=0.02)


def source_of(folder: Path, scene: SceneConfig, colour: AugmentConfig | None = None) -> StillSource:
    return StillSource(folder, config=StillConfig(scene, colour or AugmentConfig(colour_odds=0)))


def shows_red(frame_HWC: np.ndarray) -> np.ndarray:
    red, green, blue = (frame_HWC[..., i].astype(int) for i in range(3))
    return (red > green) & (red > blue)


def outline_length(mask_HW: np.ndarray) -> int:
    return int((np.diff(mask_HW.astype(int), axis=0) != 0).sum() + (np.diff(mask_HW.astype(int), axis=1) != 0).sum())


@pytest.mark.parametrize("scene", [PLAIN, BUSY], ids=["plain", "busy"])
def test_the_mask_covers_exactly_the_objects_pixels(colour_stills: Path, scene: SceneConfig) -> None:
    source = source_of(colour_stills, scene)
    covered = 0
    for seed in range(12):
        clip = source.clip(RED, 8, SIZE, np.random.default_rng(seed))
        first = clip.masks_THW[0].sum()
        for frame, mask in zip(clip.frames_THWC, clip.masks_THW, strict=True):
            wrong = (shows_red(frame) != mask).sum()
            assert wrong <= 0.6 * outline_length(mask) + 4, f"seed {seed}: more than edge pixels are wrong"
            covered += int(mask.sum() < 0.6 * first)
    if scene is BUSY:
        assert covered > 5, "occluders hid most of the object in a few frames at least"


def test_a_twin_is_not_the_object(colour_stills: Path) -> None:
    twins = SceneConfig(own_background=1, distractor=0, twin=1, occluder=0, deformed=0, blurred=0, flicker=0)
    source = source_of(colour_stills, twins)
    unmarked = []
    for seed in range(12):
        clip = source.clip(RED, 1, SIZE, np.random.default_rng(seed))
        red, mask = shows_red(clip.frames_THWC[0]), clip.masks_THW[0] == 1
        assert (mask & ~red).sum() <= outline_length(clip.masks_THW[0])
        unmarked.append((red & ~mask).sum() / mask.sum())
    assert np.median(unmarked) > 0.03


def test_the_painted_background_shows_nothing_of_the_object(colour_stills: Path) -> None:
    source = source_of(colour_stills, PLAIN)
    for seed in range(6):
        clip = source.clip(RED, 8, SIZE, np.random.default_rng(seed))
        away = clip.masks_THW[0].astype(bool) & ~clip.masks_THW[-1].astype(bool)
        near_edge = np.abs(np.diff(clip.masks_THW[-1].astype(int), axis=1, prepend=0)) > 0
        uncovered = clip.frames_THWC[-1][away & ~near_edge]
        assert (uncovered[:, 1] > uncovered[:, 0]).mean() > 0.9 if len(uncovered) > 50 else True


def test_objects_move_smoothly(colour_stills: Path) -> None:
    source = source_of(colour_stills, PLAIN)
    overlaps = []
    for seed in range(12):
        masks = source.clip(RED, 8, SIZE, np.random.default_rng(seed)).masks_THW
        overlaps += [(a & b).sum() / (a | b).sum() for a, b in pairwise(masks) if a.any() and b.any()]
    assert np.median(overlaps) > 0.7
    assert np.min(overlaps) < 0.9, "something moves"


def test_every_kind_of_scene_starts_with_the_object_in_sight(colour_stills: Path) -> None:
    source = StillSource(colour_stills)
    for seed in range(30):
        clip = source.clip(seed % 2, 3, (48, 80), np.random.default_rng(seed))
        assert clip.frames_THWC.shape == (3, 48, 80, 3)
        assert clip.masks_THW[0].mean() >= START_COVER[0]
        assert clip.starts_visible


def test_a_clip_depends_on_its_generator_alone(colour_stills: Path) -> None:
    first = StillSource(colour_stills).clip(RED, 4, SIZE, np.random.default_rng(5))
    again = StillSource(colour_stills).clip(RED, 4, SIZE, np.random.default_rng(5))
    other = StillSource(colour_stills).clip(RED, 4, SIZE, np.random.default_rng(6))
    np.testing.assert_array_equal(first.frames_THWC, again.frames_THWC)
    np.testing.assert_array_equal(first.masks_THW, again.masks_THW)
    assert (first.masks_THW != other.masks_THW).any()


def test_backgrounds_are_used(colour_stills: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backgrounds"
    folder.mkdir()
    Image.fromarray(np.full((100, 150, 3), 250, np.uint8)).save(folder / "white.jpg")
    scene = SceneConfig(own_background=0, distractor=0, twin=0, occluder=0, deformed=0, blurred=0, flicker=0)
    source = StillSource(colour_stills, folder, StillConfig(scene, AugmentConfig(colour_odds=0)))
    corners = [source.clip(RED, 1, SIZE, np.random.default_rng(s)).frames_THWC[0, 0, 0].min() for s in range(12)]
    assert any(value > 240 for value in corners)
    assert any(value < 100 for value in corners), "other photos stay in use, too"


def test_unusable_photos_are_left_out_and_bad_files_named(colour_stills: Path) -> None:
    mask = colour_stills / "masks" / "b-blue.png"
    speck = np.zeros((200, 300), np.uint8)
    speck[5:9, 5:9] = 255
    save_grey(mask, speck)
    assert len(StillSource(colour_stills)) == 1
    save_grey(mask, np.full((100, 150), 1, np.uint8) * (np.arange(150) < 60).astype(np.uint8))
    source = source_of(colour_stills, BUSY)
    with pytest.raises(DataError, match=r"b-blue\.png: size 150 x 100, but its photo has 300 x 200"):
        source.clip(1, 2, SIZE, np.random.default_rng(0))
    mask.unlink()
    with pytest.raises(DataError, match=r"b-blue\.png: no such file"):
        StillSource(colour_stills)
    with pytest.raises(DataError, match=r"nowhere.images: no \.jpg photos"):
        StillSource(colour_stills / "nowhere")
