"""Ways to get masks out of a network: plain, refined, and through windows that follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.follow import Window, moved_state
from model.metrics import jaccard
from model.network import RecurrentState, S2Spp
from model.network.s2spp import StepOutput
from model.predict import Way, track
from model.recipes import recipe
from model.refine import refine

FRAME, GRID = (480, 854), (256, 448)


@pytest.fixture(scope="module")
def network() -> S2Spp:
    torch.manual_seed(0)
    return S2Spp(recipe("light")).eval()


def video(labels: NDArray[np.uint8], count: int = 3) -> list[NDArray[np.uint8]]:
    noise = np.random.default_rng(0).integers(0, 80, (count, *labels.shape, 3), dtype=np.uint8)
    return [np.where(labels[..., None] > 0, np.uint8(200), frame) for frame in noise]


def blobs(*sides: int) -> NDArray[np.uint8]:
    labels = np.zeros((120, 200), np.uint8)
    for number, side in enumerate(sides, start=1):
        labels[20 : 20 + side, 60 * number - 40 : 60 * number - 40 + side] = 5 * number
    return labels


@pytest.mark.parametrize("way", ["plain", "refined", "following"])
def test_every_way_gives_one_map_per_frame_and_the_given_one_first(network: S2Spp, way: Way) -> None:
    labels = blobs(12, 40)
    found = list(track(network, video(labels, 4), labels, way))
    assert len(found) == 4
    np.testing.assert_array_equal(found[0], labels)
    assert all(each.shape == labels.shape and set(np.unique(each)) <= {0, 5, 10} for each in found)
    assert list(track(network, [], labels, way)) == []


def test_a_large_object_is_followed_through_the_whole_frame(network: S2Spp) -> None:
    labels = blobs(100)
    labels[:80, :90] = 5
    frames = video(labels)
    plain, following = (list(track(network, frames, labels, way)) for way in ("plain", "following"))
    np.testing.assert_array_equal(plain, following)


@given(
    box=st.tuples(st.integers(0, 440), st.integers(0, 800), st.integers(4, 300), st.integers(4, 600)),
    to=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_window_holds_the_object_and_follows_it_in_whole_cells_within_the_frame(
    box: tuple[int, int, int, int], to: tuple[float, float]
) -> None:
    top, left, high, wide = box
    mask = np.zeros(FRAME, np.uint8)
    mask[top : top + high, left : left + wide] = 1
    window = Window.around(mask, GRID)

    def shows(y: float, x: float) -> bool:
        down, right = window.zoom * FRAME[0], window.zoom * FRAME[1]
        return window.top - 1 <= y <= window.top + down + 1 and window.left - 1 <= x <= window.left + right + 1

    ys, xs = np.nonzero(mask)
    assert 0.35 <= window.zoom <= 1 and shows(ys.min(), xs.min()) and shows(ys.max(), xs.max())
    moved = np.zeros(FRAME, np.uint8)
    y, x = int(to[0] * 479), int(to[1] * 853)
    moved[max(y - 3, 0) : y + 3, max(x - 3, 0) : x + 3] = 1
    steps = window.steps_to(moved)
    before, window = window, window.moved(steps)
    assert shows(y, x)
    if window.zoom == 1:
        assert steps == (0, 0)
    assert window.top - before.top == pytest.approx(steps[0] * before.cell[0])
    for corner, side, cell in zip((window.top, window.left), FRAME, window.cell, strict=True):
        assert -cell - 1e-6 <= corner <= (1 - window.zoom) * side + cell + 1e-6


def test_a_window_shows_what_is_there_and_puts_it_back_up_to_the_frames_border() -> None:
    mask = np.zeros(FRAME, np.uint8)
    mask[420:, 780:] = 1
    window = Window.around(mask, GRID)
    assert window.zoom < 0.7
    shown = window.frame_seen(np.repeat(mask[..., None] * np.uint8(200), 3, axis=2))
    assert (shown > 100).mean() == pytest.approx(mask.mean() / window.zoom**2, rel=0.05)
    assert window.mask_seen(mask).mean() == pytest.approx(mask.mean() / window.zoom**2, rel=0.05)
    back = window.back((shown[::2, ::2, 0] / 200).astype(np.float32))
    assert ((back > 0.5) != mask).mean() < 0.003
    assert (back[479, 800:] > 0.5).all() and (back[430:, 853] > 0.5).all()


def test_two_far_parts_are_both_in_the_window() -> None:
    mask = np.zeros(FRAME, np.uint8)
    mask[200:230, 50:80] = mask[200:230, 780:810] = 1
    assert Window.around(mask, GRID).mask_seen(mask)[:, ::447].sum() == 0
    assert Window.around(mask, GRID).mask_seen(mask).mean() == pytest.approx(mask.mean(), rel=0.2)


class _Shows(S2Spp):
    """Instead of a network: the mask is what is bright and lies beside what was, which the state alone knows."""

    def encode(self, frames: Tensor) -> dict[str, Tensor]:
        return {"bright": F.avg_pool2d((frames[:, :1] > 150).float(), 2)}

    def initialise(self, frame: Tensor, mask: Tensor, features: dict[str, Tensor]) -> RecurrentState:
        return RecurrentState({"seen": F.avg_pool2d(mask, 2)}, {})

    def recur(self, features: dict[str, Tensor], state: RecurrentState) -> tuple[StepOutput, RecurrentState]:
        near = F.max_pool2d(state.changing["seen"], 21, 1, 10)
        found = ((features["bright"] > 0.5) & (near > 0.5)).float()
        return StepOutput(20 * found - 10, None), RecurrentState({"seen": found}, {})


def test_state_and_window_move_together_when_the_object_moves_far() -> None:
    """A twin stands by: a state left behind, or moved the wrong way, would lose the object or take the twin."""
    truth, frames = [], []
    for t in range(70):
        labels, picture = np.zeros(FRAME, np.uint8), np.zeros((*FRAME, 3), np.uint8)
        labels[60 + 4 * t : 90 + 4 * t, 60 + 9 * t : 100 + 9 * t] = 3
        picture[labels > 0] = picture[40:70, 400:440] = 255
        frames.append(picture)
        truth.append(labels)
    found = list(track(_Shows(recipe("light")), frames, truth[0], "following"))
    assert min(jaccard(a > 0, b > 0) for a, b in zip(found, truth, strict=True)) > 0.85


def test_a_state_moves_with_its_window_by_as_many_cells_of_each_level() -> None:
    fine, coarse = torch.zeros(1, 1, 32, 56), torch.zeros(1, 1, 8, 14)
    fine[..., 12, 20], coarse[..., 3, 5] = 1, 1
    state = RecurrentState({"fine": fine, "coarse": coarse}, {"first": coarse})
    moved = moved_state(state, (1, -2), GRID)
    assert [tuple(int(i) for i in t[0, 0].nonzero()[0]) for t in moved.changing.values()] == [(8, 28), (2, 7)]
    assert torch.equal(moved.constant["first"], coarse)
    assert moved_state(state, (0, 0), GRID) is state


def test_refining_moves_an_edge_to_where_the_frame_has_one() -> None:
    frame = np.full((80, 120, 3), 30, np.uint8)
    frame[:, 57:] = 220
    true = (np.arange(120) >= 57).astype(np.float32)[None].repeat(80, axis=0)
    # On a grid four times as coarse, and soft.
    coarse = np.clip((np.arange(30) - 12) / 4, 0, 1).astype(np.float32)[None].repeat(20, axis=0)
    found = refine(coarse, frame)
    assert found.shape == (80, 120) and found.dtype == np.float32
    plain = np.clip((np.arange(120) / 4 - 12.4) / 4, 0, 1)[None]
    assert np.abs((found > 0.5) - true).mean() < 0.3 * np.abs((plain > 0.5) - true).mean()
