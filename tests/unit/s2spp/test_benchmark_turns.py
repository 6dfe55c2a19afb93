"""Fair turns, and the frames after which memory is read."""

from __future__ import annotations

from functools import partial

import pytest

from s2spp.benchmark import machine, turns
from s2spp.benchmark.memory import points
from s2spp.benchmark.turns import in_turns


async def test_contenders_take_turns_forth_and_back_for_the_same_time() -> None:
    order: list[str] = []
    shares: list[float] = []

    async def run(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    seen = await in_turns({name: partial(run, name) for name in "abc"}, 12.0, shares.append)
    assert "".join(order) == "abccbaabccba"
    assert {name: sum(slices) for name, slices in seen.items()} == {"a": 12, "b": 12, "c": 12}
    assert sum(shares) == pytest.approx(3)


@pytest.mark.parametrize(("slice_s", "rounds"), [(3.3, 4), (4.0, 3), (20.0, 2)])
async def test_slices_that_take_longer_than_asked_are_fewer(
    monkeypatch: pytest.MonkeyPatch, slice_s: float, rounds: int
) -> None:
    now, shares = 0.0, list[float]()
    monkeypatch.setattr(turns, "perf_counter", lambda: now)

    async def run(seconds: float) -> float:
        nonlocal now
        now += slice_s
        return seconds

    seen = await in_turns({"a": run, "b": run}, 12.0, shares.append)
    assert seen == {"a": [3.0] * rounds, "b": [3.0] * rounds} and sum(shares) == pytest.approx(2)


async def test_little_time_is_one_slice() -> None:
    async def run(seconds: float) -> float:
        return seconds

    assert await in_turns({"a": run}, 0.6) == {"a": [0.6]}


def test_memory_is_read_at_500_and_each_tenth() -> None:
    assert points(10_000) == [500, *range(1000, 10_001, 1000)]
    assert points(600)[-3:] == [500, 540, 600] and 500 not in points(400) and points(3) == [1, 2, 3]


def test_own_work_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, own = iter([100.0, 112.0]), iter([(1.0, 1.0, 0.0, 0.0), (4.0, 2.0, 3.0, 1.0)])
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(machine, "_busy_s", lambda: next(busy))
    monkeypatch.setattr(machine.os, "times", lambda: next(own))
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(machine.psutil, "cpu_count", lambda: 2)
    # 12 s were worked on two cores in 10 s, 8 of them here and in servers that have ended.
    assert machine.Others().share() == pytest.approx(4 / 20)
    assert machine.disturbed({"others_cpu": 0.2}) and not machine.disturbed({"others_cpu": 0.02})
    assert not machine.disturbed({})
