"""The ablation: what its rows are, what its scores mean, and when it claims an order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.ablation import scoring
from model.ablation.rows import ENDS, HELD_OUT, ROWS, SEEDS, all_rows, training
from model.ablation.table import lines
from model.data.sequence import ObjectTrack, Sequence
from model.recipes import recipe


def test_every_row_is_trained_alike_and_none_on_a_video_that_is_scored() -> None:
    rows = all_rows()
    assert len(rows) == len(ROWS) + (len(SEEDS) - 1) * len(ENDS) == len({row.name for row in rows})
    for row in rows:
        config = training(row, 100)
        assert config.steps == 100 and config.stages[0].sources[0].exclude == HELD_OUT
        assert config.stages == training(rows[0], 100).stages
        assert replace(config.loss, learned_weights=False) == training(rows[0], 100).loss
        assert config.loss.learned_weights == (row.key == "learned_weights")
        assert row.weights == (row.name if row.compared.way == "plain" else "paper-0")
    # What a row without training of its own needs is trained before it.
    names = [row.name for row in rows]
    assert all(names.index(row.weights) <= names.index(row.name) for row in rows)
    keys = list(ROWS)
    assert all(c.against is None or keys.index(c.against) < keys.index(key) for key, c in ROWS.items())


def test_the_small_networks_differ_as_the_rows_of_the_paper_do() -> None:
    small = {row.network: recipe(f"{row.network}@small") for row in ROWS.values()}
    assert [len(small[name].memories) for name in ("base", "one_skip", "paper")] == [1, 2, 3]
    assert small["base"].distance is None and small["base_multitask"].distance is not None
    assert small["mask_guidance"].recurrence == "mask_guidance"
    assert {(n.encoder, n.decoder, n.cell) for n in small.values()} == {
        (small["base"].encoder, small["base"].decoder, small["base"].cell)
    }
    for wrong in ("base@large", "base@", "nothing@small", "@small"):
        with pytest.raises(ValueError, match="no recipe"):
            recipe(wrong)


class Blob(Sequence):
    """A square that moves to the right, 20 frames of 60 x 100: no files."""

    def frame(self, index: int) -> NDArray[np.uint8]:
        frame = np.full((60, 100, 3), 40, np.uint8)
        frame[self.labels(index) > 0] = (10 * len(self.name), 0, 200)
        return frame

    def labels(self, index: int) -> NDArray[np.uint8]:
        labels = np.zeros((60, 100), np.uint8)
        side = 24 if index < 10 else 8
        labels[20 : 20 + side, 10 + index : 10 + index + side] = 1
        return labels


def blob(name: str) -> Blob:
    paths = tuple(Path(f"{name}/{i:05d}") for i in range(20))
    return Blob(name, paths, paths, (ObjectTrack(1, tuple(range(20))),))


def test_a_video_is_scored_by_what_is_right_where(monkeypatch: pytest.MonkeyPatch) -> None:
    video = blob("one")

    def half_right(network: object, frames: Any, first: NDArray[np.uint8], way: str) -> Any:
        for index, _ in enumerate(frames):
            # Right until the object shrinks, half of it from there on.
            yield video.labels(index) if index < 10 else video.labels(index) * (np.arange(60) < 24)[:, None]

    monkeypatch.setattr(scoring, "track", half_right)
    result = scoring.score_video(None, video)  # type: ignore[arg-type]
    assert result.j == pytest.approx((9 * 1.0 + 9 * 0.5) / 18)
    assert result.j_first == pytest.approx((9 + 0.5) / 10) and result.j_last == pytest.approx((1 + 9 * 0.5) / 10)
    assert result.j_small == pytest.approx(0.5)


def test_composites_are_the_same_for_everyone_and_hold_two_or_three_objects() -> None:
    videos = [blob(name) for name in ("a", "bb", "ccc", "dddd")]
    once, again = list(scoring.composites(videos)), list(scoring.composites(videos))
    assert [name for name, *_ in once] == [name for name, *_ in again]
    assert {len(np.unique(labels[0])) - 1 for _, _, labels in once} <= {1, 2, 3}
    for (_, frames, labels), (_, others, _) in zip(once, again, strict=True):
        assert len(frames) == 20 and frames[0].shape == (240, 426, 3)
        assert all((a == b).all() for a, b in zip(frames, others, strict=True))
        # An object's colour is where its label is.
        assert (frames[0][labels[0] > 0][:, 2] > 120).mean() > 0.9


def result(name: str, seed: int, js: list[float]) -> dict[str, Any]:
    videos = [
        {"name": f"v{n}", "j": j, "f": j, "j_small": None if n else j, "j_first": j, "j_last": j}
        for n, j in enumerate(js)
    ]
    return {"row": name, "seed": seed, "videos": videos, "composites": {"a+b": js[0]}}


def test_an_order_is_claimed_only_beyond_chance() -> None:
    base = [0.4, 0.5, 0.6, 0.5, 0.4, 0.6]
    noise = [0.2, -0.2, 0.1, -0.1, 0.15, -0.12]
    table = lines(
        {
            "base": [result("base", 0, base), result("base", 1, [j + 0.02 for j in base])],
            "base_multitask": [result("base_multitask", 0, [j + 0.1 for j in base])],
            "one_skip": [result("one_skip", 0, [j + 0.1 + n for j, n in zip(base, noise, strict=True)])],
            "one_skip_multitask": [result("one_skip_multitask", 0, [j - 0.1 for j in base])],
            # Its plain row was not run.
            "attention": [result("attention", 0, base)],
        }
    )
    assert [line.row for line in table] == ["base", "base_multitask", "one_skip", "one_skip_multitask", "attention"]
    assert [line.against for line in table] == [None, "base", "base", "one_skip", None]
    assert [line.order for line in table] == ["", "better", "no order shown", "worse", ""]
    first = table[0]
    assert first.j == pytest.approx(0.51) and first.seeds == pytest.approx((0.5, 0.52))
    assert first.interval[0] < 0.51 < first.interval[1]
    assert first.j_small == pytest.approx(0.41) and first.j_composite == pytest.approx(0.41)


def test_only_runs_of_one_seed_are_set_against_each_other() -> None:
    """Else what one seed gives the one row, and not the other, would pass for what the row gives."""
    j = [0.4, 0.5, 0.6, 0.5, 0.4, 0.6]
    lucky = [result("paper", seed, [x + gain for x in j]) for seed, gain in enumerate((-0.1, 0.1, 0.1))]
    worse = result("refined", 0, [x - 0.11 for x in j])
    elsewhere = result("attention", 7, j)
    table = {line.row: line for line in lines({"paper": lucky, "refined": [worse], "attention": [elsewhere]})}
    assert table["refined"].step == pytest.approx((-0.01, -0.01)) and table["refined"].order == "worse"
    assert table["attention"].against is None and table["attention"].order == ""
