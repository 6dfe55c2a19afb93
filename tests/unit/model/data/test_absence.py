"""Objects that are gone for a while."""

import numpy as np
import pytest

from model.data.absence import SHORTEST, cut_away, look_away
from model.data.augment import GREY
from model.data.clip import Clip


def clip(length: int, seed: int) -> Clip:
    """A blob at its own place in every frame, over noise."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 100, (length, 40, 60, 3), dtype=np.uint8)
    masks = np.zeros((length, 40, 60), np.uint8)
    for t in range(length):
        masks[t, 8 + t : 20 + t, 10 + 2 * t : 30 + 2 * t] = 1
    frames[masks > 0] = (250, 0, 200)
    return Clip(f"clip {seed}", frames, masks)


def absent(masks_THW: np.ndarray) -> list[int]:
    return [t for t, mask in enumerate(masks_THW) if not mask.any()]


@pytest.mark.parametrize("length", [SHORTEST, 5, 9])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_seen_before_and_after_and_nowhere_in_between(length: int, seed: int) -> None:
    whole, other = clip(length, 1), clip(length, 2)
    cut = cut_away(whole, other, np.random.default_rng(seed))
    past = look_away(whole, np.random.default_rng(seed))
    for gone in (cut, past):
        away = absent(gone.masks_THW)
        assert away == list(range(away[0], away[-1] + 1))
        assert away[0] >= 2 and away[-1] < length - 1
        for t in set(range(length)) - set(away):
            np.testing.assert_array_equal(gone.frames_THWC[t], whole.frames_THWC[t])
            np.testing.assert_array_equal(gone.masks_THW[t], whole.masks_THW[t])
    for t in absent(cut.masks_THW):
        np.testing.assert_array_equal(cut.frames_THWC[t], other.frames_THWC[t])
    for t in absent(past.masks_THW):
        # Nothing of it is left in the picture, and the rest of the picture is.
        assert not (past.frames_THWC[t] == (250, 0, 200)).all(axis=-1).any()
        assert 0.2 < (past.frames_THWC[t] != GREY).any(axis=-1).mean() < 1


def test_over_many_draws_every_frame_of_the_middle_is_without_it() -> None:
    seen = {t for seed in range(200) for t in absent(look_away(clip(7, 1), np.random.default_rng(seed)).masks_THW)}
    assert seen == {2, 3, 4, 5}


def test_the_clip_itself_is_left_alone() -> None:
    whole = clip(6, 1)
    frames, masks = whole.frames_THWC.copy(), whole.masks_THW.copy()
    cut_away(whole, clip(6, 2), np.random.default_rng(0))
    look_away(whole, np.random.default_rng(0))
    np.testing.assert_array_equal(whole.frames_THWC, frames)
    np.testing.assert_array_equal(whole.masks_THW, masks)


def test_too_short_a_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="4 or more"):
        look_away(clip(SHORTEST - 1, 1), np.random.default_rng(0))
