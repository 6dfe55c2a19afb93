"""The ablation: what its rows are, what its scores mean, and when it claims an order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.ablation import scoring, table
from model.ablation.rows import ENDS, HELD_OUT, ROWS, SEEDS, all_rows, training
from model.ablation.table import MEASURES, Estimate, scatter, tables
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
        with pytest.raises(ValueError, match="no network"):
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
    assert [name.count("+") + 1 for name, *_ in once] == [2, 3] * 5
    # Each object is there from the start; which videos are drawn is what saved results were scored on.
    for name, _, labels in once:
        shown, areas = np.unique(labels[0], return_counts=True)
        assert list(shown) == list(range(name.count("+") + 2)) and areas.min() > 200
    assert [name for name, *_ in once][:4] == ["ccc+dddd", "a+dddd+bb", "bb+a", "dddd+bb+a"]
    for (name, frames, labels), (_, others, _) in zip(once, again, strict=True):
        assert len(frames) == 20 and frames[0].shape == (240, 426, 3)
        assert all((a == b).all() for a, b in zip(frames, others, strict=True))
        # An object's own colour is where its label is.
        for number, one in enumerate(name.split("+"), start=1):
            inside = frames[0][labels[0] == number]
            assert (np.abs(inside - np.array([10.0 * len(one), 0, 200])).max(axis=1) < 60).mean() > 0.8, (name, one)


def result(name: str, seed: int, js: Any) -> dict[str, Any]:
    videos = [
        {"name": f"v{n}", "j": j, "f": j, "j_small": None if n else j, "j_first": j, "j_last": j}
        for n, j in enumerate(js)
    ]
    return {"row": name, "seed": seed, "videos": videos, "composites": {"a+b": js[0], "c+d": js[1]}}


BASE = np.array([0.4, 0.5, 0.6, 0.5, 0.4, 0.6, 0.55, 0.45])
NOISE = np.array([0.2, -0.2, 0.1, -0.1, 0.15, -0.12, 0.1, -0.1])


def three(row: str, js: NDArray[np.float64], spread: float) -> list[dict[str, Any]]:
    """Seeds that are `spread` apart."""
    return [result(row, seed, js + spread * (seed - 1)) for seed in range(3)]


def test_an_order_is_claimed_only_beyond_what_videos_and_seeds_do_by_chance() -> None:
    runs = {
        "base": three("base", BASE, 0.01),
        "base_multitask": [result("base_multitask", 0, BASE + 0.1)],
        "one_skip": [result("one_skip", 0, BASE + 0.1 + NOISE)],
        "one_skip_multitask": [result("one_skip_multitask", 0, BASE - 0.1)],
        "paper": three("paper", BASE + 0.1, 0.01),
        # Within what another seed would give: 2.8 * sqrt(2) * 0.01, at 4 degrees of freedom.
        "attention": [result("attention", 0, BASE + 0.09 + 0.02)],
        "previous_mask": [result("previous_mask", 0, BASE + 0.09 + 0.05)],
    }
    found = tables(runs)
    lines = {line.row: line for line in found.lines}
    assert list(lines) == list(runs)
    orders = {row: line.difference and (line.difference.less, line.difference.order) for row, line in lines.items()}
    assert orders == {
        "base": None,
        "base_multitask": ("base", "better"),
        "one_skip": ("base", "no order shown"),
        "one_skip_multitask": ("one_skip", "worse"),
        "paper": ("one_skip_multitask", "better"),
        "attention": ("paper", "no order shown"),
        "previous_mask": ("paper", "better"),
    }
    assert found.scatter.freedom == 4 and found.scatter.variance == pytest.approx(0.01**2)
    first = lines["base"]
    assert first.seeds == pytest.approx((0.49, 0.5, 0.51)) and first.values["j"].mean == pytest.approx(0.5)
    assert first.values["j_small"].mean == pytest.approx(0.4) and first.values["j_composite"].mean == pytest.approx(
        0.45
    )
    assert all(one.low < one.mean < one.high for one in first.values.values())
    # What is judged is what is shown: one seed against the same one, not against the mean of three.
    judged = lines["attention"].difference
    assert judged is not None and judged.seeds == (0,) and judged.values["j"].mean == pytest.approx(0.02)
    # The ends: three seeds each, so that their seeds' part is smaller by the root of three.
    assert found.ends is not None and found.ends.less == "base" and found.ends.seeds == (0, 1, 2)
    assert found.ends.order == "better" and found.ends.values["j"].mean == pytest.approx(0.1)
    assert found.ends.values["j"].half * 3**0.5 == pytest.approx(judged.values["j"].half, rel=1e-6)


def test_without_a_second_seed_no_order_of_two_trainings_is_claimed() -> None:
    """However large the difference is: another seed might have given it."""
    runs = {"base": [result("base", 0, BASE)], "one_skip": [result("one_skip", 0, BASE + 0.3)]}
    runs |= {"paper": [result("paper", 0, BASE)], "refined": [result("refined", 0, BASE + 0.01)]}
    found = tables(runs)
    orders = {line.row: line.difference.order for line in found.lines if line.difference}
    # The same weights followed otherwise: there is no second training whose seed could have done it.
    assert orders == {"one_skip": "not judged", "refined": "better"} and found.scatter.freedom == 0


def test_only_runs_of_one_seed_are_set_against_each_other() -> None:
    """Else what one seed gives the one row, and not the other, would pass for what the row gives."""
    lucky = [result("paper", seed, BASE + gain) for seed, gain in enumerate((-0.1, 0.1, 0.1))]
    runs = {"paper": lucky, "refined": [result("refined", 0, BASE - 0.11)]}
    found = {line.row: line for line in tables(runs | {"attention": [result("attention", 7, BASE)]}).lines}
    refined = found["refined"].difference
    assert refined is not None and refined.values["j"].mean == pytest.approx(-0.01) and refined.order == "worse"
    assert found["attention"].difference is None


def test_runs_scored_on_other_videos_are_refused() -> None:
    with pytest.raises(ValueError, match="one_skip, seed 0, was scored on other videos"):
        tables({"base": [result("base", 0, BASE)], "one_skip": [result("one_skip", 0, BASE[:5])]})


def test_the_scatter_is_pooled_over_the_rows_with_several_seeds() -> None:
    assert scatter([[0.5], [0.4, 0.6], [0.3, 0.3, 0.6]]).variance == pytest.approx((0.02 + 2 * 0.03) / 3)
    assert scatter([[0.5], [0.4]]).freedom == 0


@pytest.mark.parametrize(
    ("seed_sd", "video_sd", "both_sd"),
    [(0.03, 0.01, 0.01), (0.0, 0.05, 0.0), (0.015, 0.03, 0.04), (0.0, 0.0, 0.08)],
)
def test_where_nothing_differs_an_order_is_claimed_once_in_twenty_times_at_most(
    seed_sd: float, video_sd: float, both_sd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of made-up rows that are equally good over all videos there are: each run has luck (`seed_sd`), each row
    likes some videos more (`video_sd`), and each run too (`both_sd`). A true difference is found."""
    monkeypatch.setattr(table, "_DRAWS", 1000)
    monkeypatch.setattr(table, "MEASURES", {"j": "J"})
    rng = np.random.default_rng(1)
    videos, orders, shown = rng.uniform(0.2, 0.8, 10), [], 0

    def runs(row: str, seeds: int, gain: float = 0.0) -> list[dict[str, Any]]:
        liked = videos + gain + rng.normal(0, video_sd, 10)
        each = [liked + rng.normal(0, seed_sd) + rng.normal(0, both_sd, 10) for _ in range(seeds)]
        return [result(row, seed, js) for seed, js in enumerate(each)]

    for _ in range(300):
        rows = {"base": runs("base", 3), "base_multitask": runs("base_multitask", 1), "paper": runs("paper", 3)}
        found = tables(rows | {"attention": runs("attention", 1), "one_skip": runs("one_skip", 1, gain=0.3)})
        assert found.ends is not None
        orders.append(found.ends.order)
        of = {line.row: line.difference.order for line in found.lines if line.difference is not None}
        orders += [of["base_multitask"], of["attention"]]
        shown += of["one_skip"] == "better"
    false = sum(order in ("better", "worse") for order in orders)
    # 900 comparisons: a rate of 5 % gives 45, give or take 7.
    assert false <= 0.066 * len(orders) and shown > 250


def test_an_interval_is_as_wide_as_few_videos_ask_for() -> None:
    """Student's t for ten values: 2.26 standard errors on each side."""
    values = np.random.default_rng(3).normal(0.5, 0.1, (1, 10))
    one = table.estimate(values, None)
    assert one.half == pytest.approx(2.262 * values.std(ddof=1) / 10**0.5, rel=0.05)
    assert isinstance(one, Estimate) and set(MEASURES) >= {"j", "f", "j_small", "j_last", "j_composite"}
