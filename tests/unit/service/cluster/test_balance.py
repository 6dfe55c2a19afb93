"""Who hands a stream over, and that it comes to an end."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cluster import balance
from service.cluster.balance import has_too_many, keep_balance
from service.core.registry import WorkerState
from tests.fakes.registry import FakeRegistry, worker
from tests.fakes.waiting import until

LOADS = st.lists(st.integers(0, 60), min_size=1, max_size=6)


def states(loads: list[int]) -> list[WorkerState]:
    return [worker(str(number), busy=load, capacity=64) for number, load in enumerate(loads)]


@given(LOADS)
def test_one_by_one_all_come_to_within_a_fifth_of_the_mean_and_stay_there(loads: list[int]) -> None:
    for _ in range(sum(loads) + 1):
        now = states(loads)
        crowded = [number for number, state in enumerate(now) if has_too_many(state, now)]
        if not crowded:
            break
        loads[crowded[-1]] -= 1
        loads[loads.index(min(loads))] += 1
    else:
        pytest.fail(f"it never ends: {loads}")
    mean = sum(loads) / len(loads)
    assert max(loads) - min(loads) < max(2, 0.2 * mean)


@given(LOADS)
def test_also_where_several_hand_over_at_once(loads: list[int]) -> None:
    for _ in range(sum(loads) + 1):
        now = states(loads)
        crowded = [number for number, state in enumerate(now) if has_too_many(state, now)]
        if not crowded:
            return
        for number in crowded:
            loads[number] -= 1
        for _ in crowded:
            loads[loads.index(min(loads))] += 1
    pytest.fail(f"it never ends: {loads}")


def test_only_to_who_can_take_it() -> None:
    crowded = worker("a", busy=6)
    assert has_too_many(crowded, [crowded, worker("b", busy=2)])
    assert not has_too_many(crowded, [crowded])
    assert not has_too_many(crowded, [crowded, worker("b", busy=2, digest="another model")])
    assert not has_too_many(crowded, [crowded, replace(worker("b", busy=2), draining=True)])
    assert not has_too_many(crowded, [crowded, worker("b", busy=2, capacity=2)])
    assert not has_too_many(replace(crowded, draining=True), [crowded, worker("b")])
    assert not has_too_many(crowded, [crowded, worker("b", sessions=60, busy=5)]), "its others are idle"
    assert has_too_many(crowded, [crowded, worker("b", busy=2)], given=1)
    assert not has_too_many(crowded, [crowded, worker("b", busy=2)], given=2), "they are even by now"


async def test_a_worker_that_tells_late_of_what_it_has_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "_EVERY_S", 0.002)
    loads = [10, 0]
    registry = FakeRegistry(worker("b"))
    handed = 0

    def hand_over() -> bool:
        nonlocal handed
        handed += 1
        loads[0] -= 1
        loads[1] += 1
        return True

    async def tell_late() -> None:
        while True:
            told = loads[1]
            await asyncio.sleep(0.003)
            registry.states["b"] = worker("b", busy=told, capacity=64)

    telling = asyncio.create_task(tell_late())
    balancing = asyncio.create_task(keep_balance(registry, lambda: worker("a", busy=loads[0], capacity=64), hand_over))
    await until(lambda: handed == 5)
    await asyncio.sleep(0.03)
    assert loads == [5, 5]
    telling.cancel()
    balancing.cancel()


async def test_slow_cameras_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten streams here and ten there, of which some are in use at a time."""
    monkeypatch.setattr(balance, "_EVERY_S", 0.0005)
    registry, hand_over, readings = FakeRegistry(worker("b")), Mock(return_value=True), 0
    chance = random.Random(5)

    def some() -> int:
        return sum(chance.random() < 0.4 for _ in range(10))

    def me() -> WorkerState:
        nonlocal readings
        readings += 1
        registry.states["b"] = worker("b", busy=some(), capacity=64)
        return worker("a", busy=some(), capacity=64)

    balancing = asyncio.create_task(keep_balance(registry, me, hand_over))
    await until(lambda: readings > 400)
    balancing.cancel()
    assert hand_over.call_count < readings / 20


async def test_streams_that_come_back_are_left_in_peace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker that has the fewest cannot be reached by the gateways."""
    monkeypatch.setattr(balance, "_EVERY_S", 0.0005)
    registry, hand_over, readings = FakeRegistry(worker("b")), Mock(return_value=True), 0

    def me() -> WorkerState:
        nonlocal readings
        readings += 1
        return worker("a", busy=10, capacity=64)

    balancing = asyncio.create_task(keep_balance(registry, me, hand_over))
    await until(lambda: readings > 100)
    assert 0 < hand_over.call_count <= 6
    await until(lambda: readings > 200)
    assert hand_over.call_count > 6, "it is tried again"
    balancing.cancel()


async def test_one_that_has_just_come_is_met_by_gateways_first_and_all_that_moved_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(balance, "_EVERY_S", 0.001)
    registry, loads, readings, began = FakeRegistry(), [6, 0], 0, 0

    def me() -> WorkerState:
        nonlocal readings
        readings += 1
        registry.states |= {"b": worker("b", busy=loads[1])} if readings > 20 else {}
        return worker("a", busy=loads[0])

    def hand_over() -> bool:
        nonlocal began
        began = began or readings
        loads[0] -= 1
        loads[1] += 1
        return True

    with caplog.at_level(logging.INFO, "service.cluster"):
        balancing = asyncio.create_task(keep_balance(registry, me, hand_over))
        await until(lambda: bool(caplog.records))
        balancing.cancel()
    assert began - 20 >= 4
    assert "streams handed over: 3; sessions in use now: 3 here, 3 at worker b" in caplog.text


async def test_while_the_registry_is_away_all_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balance, "_EVERY_S", 0.001)
    me = worker("a", busy=4)
    registry, handed = FakeRegistry(me, worker("b")), 0

    def hand_over() -> bool:
        nonlocal me, handed
        handed += 1
        me = replace(me, busy=me.busy - 1)
        registry.states["b"] = replace(registry.states["b"], busy=registry.states["b"].busy + 1)
        return True

    registry.away = True
    balancing = asyncio.create_task(keep_balance(registry, lambda: me, hand_over))
    await asyncio.sleep(0.02)
    assert handed == 0
    registry.away = False
    await until(lambda: handed == 2)
    await asyncio.sleep(0.02)
    assert handed == 2
    balancing.cancel()
