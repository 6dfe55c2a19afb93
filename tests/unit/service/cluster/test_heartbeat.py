"""A worker's lease, by its own clock."""

from __future__ import annotations

import pytest

from service.batching import BatchingQueue
from service.cluster.heartbeat import Heartbeat
from service.core.errors import OwnershipLost, Unavailable
from service.core.registry import LEASE_S, WorkerState
from service.engine import LocalEngine
from tests.fakes.clock import FakeClock
from tests.fakes.engine_world import RAW, STRICT, World, first_labels, raw_frame, raw_mask
from tests.fakes.registry import FakeRegistry, worker
from tests.fakes.runtime import INFO
from tests.fakes.waiting import until


async def test_the_lease_counts_from_before_the_last_word_that_arrived() -> None:
    clock, registry = FakeClock(), FakeRegistry()
    heartbeat = Heartbeat(registry, lambda: worker("a"), clock)
    assert not heartbeat.held, "nobody knows it yet"
    await heartbeat.start()
    assert registry.beats == 1 and heartbeat.held
    first = registry.states["a"]
    await heartbeat.beat()
    assert registry.states["a"] != first, "a sign of life is something new, also where nothing else is"
    clock.advance(LEASE_S - 0.1)
    assert heartbeat.held
    registry.away = True
    with pytest.raises(Unavailable):
        await heartbeat.beat()
    clock.advance(0.1)
    assert not heartbeat.held
    registry.away = False
    await heartbeat.beat()
    assert heartbeat.held
    said = registry.states["a"].beat
    await heartbeat.stop()
    assert registry.states["a"].draining and registry.states["a"].beat > said, (
        "whoever looks later learns why it is silent"
    )


async def test_a_worker_that_never_lived_does_not_say_that_it_ends() -> None:
    registry = FakeRegistry()
    await Heartbeat(registry, lambda: worker("a"), FakeClock()).stop()
    assert registry.states == {}


async def test_one_that_took_longer_than_the_lease_is_followed_by_another_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, registry, heard = FakeClock(), FakeRegistry(), 0
    heartbeat = Heartbeat(registry, lambda: worker("a"), clock)
    await heartbeat.start()
    monkeypatch.setattr("service.cluster.heartbeat.EVERY_S", 0.02)
    beat = registry.beat

    async def slow(state: WorkerState) -> None:
        nonlocal heard
        heard += 1
        if heard == 1:
            raise ValueError("something nobody thought of")
        if heard == 2:
            clock.advance(LEASE_S + 1)
            monkeypatch.setattr("service.cluster.heartbeat.EVERY_S", 60.0)
        await beat(state)

    registry.beat = slow  # type: ignore[method-assign]
    await until(lambda: heard == 3)
    assert heartbeat.held
    await heartbeat.stop()


async def test_past_its_lease_a_worker_answers_nothing() -> None:
    world, held = World(), True
    queue = BatchingQueue(world.runtime, 16, 16)
    engine = LocalEngine(queue, world.wire, INFO, world.limits, world.clock, held=lambda: held)
    session = (await engine.open(raw_frame(0), raw_mask(first_labels()), RAW)).info.session
    await engine.segment(session, 1, raw_frame(1), durability=STRICT)
    held = False
    for call in (
        engine.segment(session, 2, raw_frame(2), durability=STRICT),
        engine.resume(session, 2, "s"),
        engine.describe(session),
        engine.open(raw_frame(0), raw_mask(first_labels()), RAW),
    ):
        with pytest.raises(OwnershipLost) as lost:
            await call
        assert lost.value.metadata["by"] == "worker"
    await engine.close()
    await queue.close()
    await world.end()
