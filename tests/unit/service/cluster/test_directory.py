"""Whom a gateway sends a session to."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from service.cluster.directory import Directory
from service.core.errors import ModelMismatch, Overloaded, Unavailable
from service.core.registry import LEASE_S, Owner, WorkerState
from service.core.types import new_session_id
from tests.fakes.clock import FakeClock
from tests.fakes.registry import FakeRegistry, worker
from tests.fakes.waiting import until


async def directory(registry: FakeRegistry, gone: list[str] | None = None) -> Directory:
    def told(state: WorkerState) -> None:
        if gone is not None:
            gone.append(state.worker)

    made = Directory(registry, told)
    await made.refresh()
    for state in made.alive:
        made.met(state)
    return made


async def test_new_sessions_are_spread_evenly_between_two_words_of_the_workers() -> None:
    view = await directory(
        # Those that b has in memory are idle.
        FakeRegistry(worker("a", 2, busy=2, capacity=64), worker("b", 20, capacity=64), worker("c", capacity=64))
    )
    placed = [view.place().worker for _ in range(28)]
    assert [placed.count(name) + (2 if name == "a" else 0) for name in "abc"] == [10, 10, 10]


async def test_a_known_session_goes_to_the_worker_that_has_it_as_long_as_it_can() -> None:
    registry = FakeRegistry(worker("a", 7), worker("b"))
    view = await directory(registry)
    session = new_session_id()
    assert (await view.home(session)).worker == "b", "nobody has it"
    registry.owners[session] = Owner("a", 3, "m1")
    assert (await view.home(session)).worker == "a"
    view.failed(worker("a"), Unavailable("it does not answer"))
    assert (await view.home(session)).worker == "b"
    await view.refresh()
    assert (await view.home(session)).worker == "b", "it has said nothing new"
    registry.states |= {"a": worker("a", 6), "b": worker("b", 1)}
    await view.refresh()
    assert (await view.home(session)).worker == "a"
    assert (await view.home(session, left="a")).worker == "b", "handed over"
    registry.states["b"] = worker("b", 8, busy=7)
    await view.refresh()
    assert (await view.home(session, left="a")).worker == "b", "also where a has fewer"
    registry.states["b"] = worker("b", 8, busy=8)
    await view.refresh()
    assert (await view.home(session, left="a")).worker == "a", "no other takes it"
    registry.states["b"] = worker("b", 1)
    registry.drain("a")
    await view.refresh()
    assert (await view.home(session)).worker == "b"


async def test_sessions_that_lost_their_worker_are_shared_out_for_the_work_they_bring() -> None:
    """All of them on the emptiest one: their callers would wait for it, and the other one would have nothing to do."""
    registry = FakeRegistry(worker("a", 12, busy=12, capacity=64), worker("b", capacity=64))
    view = await directory(registry)
    sessions = [new_session_id() for _ in range(12)]
    for session in sessions:
        registry.owners[session] = Owner("gone", 1, "m1")
    homes = [(await view.home(session)).worker for session in sessions]
    assert homes.count("a") == 5
    # Those that were handed over or drained have nothing to be computed again.
    registry.states["c"] = worker("c", 9, busy=9, capacity=64)
    await view.refresh()
    view.met(registry.states["c"])
    registry.owners[sessions[0]] = Owner("a", 2, "m1")
    assert (await view.home(sessions[0], left="a")).worker == "b"


async def test_a_session_stays_with_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cluster.directory._REMEMBERED_S", 0.0)
    registry = FakeRegistry(worker("a", 5, digest="m1"), worker("b", digest="m2"))
    view = await directory(registry)
    session = new_session_id()
    registry.owners[session] = Owner("gone", 1, "m1")
    assert (await view.home(session)).worker == "a"
    registry.owners[session] = Owner("gone", 1, "m0")
    with pytest.raises(ModelMismatch, match="m0"):
        await view.home(session)


async def test_a_model_whose_only_worker_fails_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = FakeRegistry(worker("a", digest="m1"), worker("b", digest="m2"))
    view = await directory(registry)
    session = new_session_id()
    registry.owners[session] = Owner("a", 1, "m1")
    view.failed(worker("a", digest="m1"), Unavailable("it broke off"))
    with pytest.raises(Unavailable, match="m1"):
        await view.home(session)
    del registry.states["a"]
    await view.refresh()
    with pytest.raises(Unavailable, match="m1"):
        await view.home(session)
    monkeypatch.setattr("service.cluster.directory._REMEMBERED_S", 0.0)
    await view.refresh()
    with pytest.raises(ModelMismatch):
        await view.home(session)


async def test_a_worker_that_was_never_reached_gets_nothing() -> None:
    registry = FakeRegistry(worker("a", 7), worker("b"))
    view = await directory(registry)
    registry.states["c"] = worker("c")
    await view.refresh()
    assert [state.worker for state in view.strangers] == ["c"]
    assert {view.place().worker for _ in range(12)} == {"a", "b"}
    view.met(registry.states["c"])
    assert view.strangers == [] and view.place().worker == "c"
    del registry.states["c"]
    await view.refresh()
    registry.states["c"] = worker("c")
    await view.refresh()
    assert [state.worker for state in view.strangers] == ["c"], "another one of that name"


async def test_what_was_placed_counts_until_the_worker_has_said_something_new() -> None:
    registry = FakeRegistry(worker("a", capacity=3), worker("b", busy=3, capacity=3))
    view = await directory(registry)
    assert [view.place().worker for _ in range(3)] == ["a", "a", "a"]
    await view.refresh()
    with pytest.raises(Overloaded):
        view.place()
    view.spare(registry.states["a"])
    assert view.place().worker == "a", "one of them came to nothing"
    registry.states["a"] = replace(worker("a", capacity=3), beat=1)
    await view.refresh()
    assert view.place().worker == "a"


async def test_asking_for_sessions_that_are_not_there_takes_no_room() -> None:
    view = await directory(FakeRegistry(worker("a", capacity=2)))
    for _ in range(5):
        assert (await view.home(new_session_id())).worker == "a"
    view.refuse_if_full()


async def test_a_full_worker_is_not_chosen_and_a_full_cluster_says_when_to_come_back() -> None:
    view = await directory(FakeRegistry(worker("a", 0, busy=8), worker("b", 7, busy=6)))
    view.refuse_if_full()
    assert [view.place().worker for _ in range(2)] == ["b", "b"]
    for refused in (view.place, view.refuse_if_full):
        with pytest.raises(Overloaded) as full:
            refused()
        assert full.value.retry_after_s
    await view.refresh()
    view.failed(worker("b"), Overloaded("full", 1.0))
    with pytest.raises(Overloaded):
        view.place()


async def test_without_workers_there_is_a_word_why() -> None:
    view = await directory(FakeRegistry())
    with pytest.raises(Unavailable, match="no worker is alive"):
        view.place()
    registry = FakeRegistry(worker("a"))
    registry.drain("a")
    view = await directory(registry)
    with pytest.raises(Unavailable, match="every worker is draining"):
        view.refuse_if_none()
    view = Directory(FakeRegistry(worker("a")), lambda state: None)
    await view.refresh()
    with pytest.raises(Unavailable, match="reached"):
        view.refuse_if_none()
    view = await directory(FakeRegistry(worker("a")))
    view.failed(worker("a"), Unavailable("its store is away"))
    with pytest.raises(Unavailable, match="its store is away"):
        view.refuse_if_none()


async def test_who_is_gone_is_told_and_while_the_registry_is_away_nobody_is() -> None:
    gone: list[str] = []
    registry = FakeRegistry(worker("a"), worker("b"))
    view = await directory(registry, gone)
    registry.away = True
    with pytest.raises(Unavailable):
        await view.refresh()
    assert [state.worker for state in view.alive] == ["a", "b"] and gone == []
    registry.away = False
    del registry.states["a"]
    await view.refresh()
    assert gone == ["a"] and view.place().worker == "b"


async def test_after_the_store_was_away_workers_have_time_to_tell_it_of_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gateways look more often than workers tell: at first nobody seems to be alive."""
    clock, gone = FakeClock(), list[str]()
    monkeypatch.setattr("service.cluster.directory.time", SimpleNamespace(monotonic=clock))
    registry = FakeRegistry(worker("a"), worker("b"))
    view = await directory(registry, gone)
    clock.advance(LEASE_S + 2)
    registry.states.clear()
    await view.refresh()
    assert sorted(state.worker for state in view.alive) == ["a", "b"] and gone == []
    registry.states["a"] = worker("a", 1)
    await view.refresh()
    assert view.strangers == [] and worker("a", 1) in view.alive
    for _ in range(5):
        clock.advance(LEASE_S / 5)
        await view.refresh()
    assert [state.worker for state in view.alive] == ["a"] and gone == ["b"]


async def test_that_the_registry_is_away_is_told_once_and_that_it_is_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.cluster.directory._EVERY_S", 0.001)
    registry = FakeRegistry(worker("a"))
    view = Directory(registry, lambda state: None)
    await view.start()
    with caplog.at_level(logging.INFO, "service.cluster"):
        registry.away = True
        await until(lambda: bool(caplog.records))
        registry.away = False
        await until(lambda: len(caplog.records) > 1)
    await view.stop()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "try again" not in caplog.text, "nobody's caller reads this"


async def test_the_log_tells_one_that_ended_from_one_that_died_and_once_that_there_is_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry = FakeRegistry(worker("a"), worker("b"))
    view = await directory(registry)
    with caplog.at_level(logging.INFO, "service.cluster"):
        del registry.states["a"]
        await view.refresh()
        registry.drain("b")
        await view.refresh()
        del registry.states["b"]
        await view.refresh()
        await view.refresh()
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["WARNING", "WARNING", "INFO"]
    assert "worker a at a:50051 is alive no more; workers now: 1" in said[0][1]
    assert "every worker is draining" in said[1][1]
    assert "worker b at b:50051 has ended; workers now: 0" in said[2][1]
