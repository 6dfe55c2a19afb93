"""A second object in a real clip."""

from pathlib import Path

import numpy as np
from tiny_datasets import moving_square, save_davis_sequence

from model.data.augment import AugmentConfig
from model.data.clip import Clip
from model.data.davis import DavisDataset
from model.data.paste import paste
from model.data.video_source import VideoConfig, VideoSource

SIZE = (60, 100)


def clip_of(name: str, colour: tuple[int, int, int], top: int, left: int, side: int) -> Clip:
    frames, masks = np.full((6, *SIZE, 3), 90, np.uint8), np.zeros((6, *SIZE), np.uint8)
    frames[:, top : top + side, left : left + side] = colour
    masks[:, top : top + side, left : left + side] = 1
    return Clip(name, frames, masks)


def test_the_mask_is_what_is_still_seen_of_the_object() -> None:
    own, other = clip_of("own", (250, 0, 0), 15, 30, 30), clip_of("other", (0, 0, 250), 10, 60, 34)
    covered = []
    for seed in range(40):
        pasted = paste(own, other, np.random.default_rng(seed))
        reds = (pasted.frames_THWC[..., 0] > 170) & (pasted.frames_THWC[..., 2] < 45)
        # Where the soft edge of the one in front lies, a pixel may be either.
        assert (reds != pasted.masks_THW).mean() < 0.03
        assert not (pasted.masks_THW & ~own.masks_THW & 1).any()
        assert pasted.masks_THW[0].sum() >= 450
        covered.append(int(own.masks_THW.sum() - pasted.masks_THW.sum()))
    assert min(covered) == 0 and max(covered) > 500


def test_the_other_object_shows_and_no_ground_of_its_video() -> None:
    own, other = clip_of("own", (250, 0, 0), 15, 30, 30), clip_of("other", (0, 0, 250), 10, 60, 34)
    other.frames_THWC[other.masks_THW == 0] = (0, 250, 0)
    blues = greens = 0
    for seed in range(20):
        frames = paste(own, other, np.random.default_rng(seed)).frames_THWC
        blues += int((frames[..., 2] > 200).sum())
        greens += int((frames[..., 1] > 200).sum())
    assert blues > 5000 and greens == 0


def test_a_video_source_pastes_as_often_as_told(tmp_path: Path) -> None:
    save_davis_sequence(tmp_path, "one", [moving_square(t, left=0) for t in range(6)], indexed=True)
    save_davis_sequence(tmp_path, "two", [moving_square(t, left=40) for t in range(6)], indexed=True)
    still = AugmentConfig(flip_odds=0, affine_odds=0, colour_odds=0)
    sequences = DavisDataset(tmp_path, None).sequences

    def changed(odds: float) -> int:
        plain = VideoSource("tiny", sequences, VideoConfig(zoom_odds=0, augment=still, dolly_odds=0))
        pasting = VideoSource("tiny", sequences, VideoConfig(zoom_odds=0, augment=still, dolly_odds=0, paste_odds=odds))
        draws = [(s.clip(0, 4, SIZE, np.random.default_rng(n)) for s in (plain, pasting)) for n in range(20)]
        return sum(bool((a.frames_THWC != b.frames_THWC).any()) for a, b in draws)

    assert changed(0.0) == 0
    assert changed(1.0) > 12
