"""The demo's clip tells the story that it promises, at any size, and its truth is true."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from s2spp.demo_clip import render_demo_clip

Clip = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]

SMALL = (120, 214)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return list(render_demo_clip(size=SMALL))


def shares(clip: Clip) -> NDArray[np.float64]:
    """The fish's share of each frame."""
    return np.array([labels.mean() for _, labels in clip])


def test_frames_and_labels_are_what_is_promised(clip: Clip) -> None:
    assert len(clip) == 96
    for frame, labels in clip:
        assert frame.shape == (*SMALL, 3) and labels.shape == SMALL
        assert frame.dtype == labels.dtype == np.uint8
        assert labels.max() <= 1


@pytest.mark.parametrize("size", [(214, 120), (160, 160), (60, 400), (33, 47)])
def test_the_story_fits_any_shape_of_frame(size: tuple[int, int]) -> None:
    clip = list(render_demo_clip(frames=24, size=size))
    assert all(frame.shape == (*size, 3) and labels.shape == size for frame, labels in clip)
    share = shares(clip)
    assert (share[:6] > 0.02).all() and (share == 0).any() and (share[-4:] > 0.02).all()
    first = clip[0][1]
    assert not first[[0, -1]].any() and not first[:, [0, -1]].any(), "the whole fish is in the first frame"


@pytest.mark.parametrize("seed", [1, 7, 23])
def test_the_fish_is_seen_then_hidden_then_seen_again(seed: int) -> None:
    share = shares(list(render_demo_clip(size=SMALL, seed=seed)))
    assert ((share[:25] > 0.06) & (share[:25] < 0.12)).all()
    hidden = np.flatnonzero(share == 0)
    assert len(hidden) >= 4
    assert hidden[0] > 40 and hidden[-1] < 60
    assert ((share[75:] > 0.06) & (share[75:] < 0.12)).all()


def test_the_same_seed_gives_the_same_clip_and_another_seed_another() -> None:
    def start(seed: int) -> Clip:
        return list(itertools.islice(render_demo_clip(size=SMALL, seed=seed), 3))

    for (frame, labels), (again, labels_again) in zip(start(3), start(3), strict=True):
        assert np.array_equal(frame, again) and np.array_equal(labels, labels_again)
    assert not np.array_equal(start(3)[0][0], start(4)[0][0])


def test_the_story_does_not_depend_on_size_or_number_of_frames(clip: Clip) -> None:
    other = list(render_demo_clip(frames=24, size=(180, 321)))
    at = np.linspace(0, 1, 24)
    same = np.interp(at, np.linspace(0, 1, 96), shares(clip))
    assert np.abs(shares(other) - same).max() < 0.006


def orange(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Where the frame has the goldfish's strongest colour, as 0 and 1."""
    red, green, blue = (frame[..., i].astype(int) for i in range(3))
    return ((red > 1.6 * green) & (red > 2.5 * blue) & (red > 90)).astype(np.uint8)


def test_the_truth_lies_on_the_fish_and_the_other_fish_looks_the_same(clip: Clip) -> None:
    frame, labels = clip[16]
    there = orange(frame)
    assert there[labels == 1].mean() > 0.35, "the mask lies on the fish"
    near = cv2.dilate(labels, np.ones((5, 5), np.uint8)) == 1
    elsewhere = there * ~near
    assert elsewhere.sum() > 0.35 * there[labels == 1].sum(), "a second fish of its colours is in sight"
    gap = cv2.distanceTransform(1 - labels, cv2.DIST_L2, 3)[elsewhere == 1].min()
    assert gap < 0.1 * SMALL[0], "and comes close"


def test_nothing_of_the_fish_shows_while_it_is_hidden(clip: Clip) -> None:
    hidden = [frame for frame, labels in clip if not labels.any()]
    middle = [frame[:, SMALL[1] // 4 : -SMALL[1] // 4] for frame in hidden]
    assert max(orange(frame).mean() for frame in middle) < 0.01


def test_the_fish_bends_as_it_swims(clip: Clip) -> None:
    """Its outline changes even when centre is laid on centre and axis on axis."""

    def straightened(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        m = cv2.moments(labels, True)
        x, y = m["m10"] / m["m00"], m["m01"] / m["m00"]
        axis = math.degrees(0.5 * math.atan2(2 * m["mu11"], m["mu20"] - m["mu02"]))
        turn = cv2.getRotationMatrix2D((x, y), axis, 1)
        turn[:, 2] += (SMALL[1] / 2 - x, SMALL[0] / 2 - y)
        return cv2.warpAffine(labels * 255, turn, SMALL[::-1]) > 127

    a, b = straightened(clip[4][1]), straightened(clip[12][1])
    assert (a & b).sum() / (a | b).sum() < 0.8


def test_the_background_moves(clip: Clip) -> None:
    strip = np.s_[90:, 60:150]
    before, after = (cv2.cvtColor(clip[i][0], cv2.COLOR_RGB2GRAY)[strip] for i in (0, 4))
    (shift, _), response = cv2.phaseCorrelate(before.astype(np.float64), after.astype(np.float64))
    assert -14 < shift < -4 and response > 0.05


def test_a_clip_too_short_or_too_small_is_refused() -> None:
    for frames, size in ((1, (480, 854)), (96, (16, 854))):
        with pytest.raises(ValueError, match="at least 2 frames and 32 x 32"):
            render_demo_clip(frames=frames, size=size)
