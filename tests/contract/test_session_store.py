"""What every SessionStore promises, asked of the fake and of a real Redis; and what that must survive."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from service.core.errors import OwnershipLost, SessionExpired, SessionUnknown, Unavailable
from service.core.ports import SessionStore
from service.core.state import HostRows
from service.core.types import SessionId, new_session_id
from service.store.calls import ask, connect
from service.store.embedded import EmbeddedRedis
from service.store.redis_store import RedisSessionStore
from tests.fakes.store import InMemorySessionStore, assert_same, make_snapshot
from tests.integration.redis_cluster import redis_cluster
from tests.integration.redis_tls import PASSWORD, redis_over_tls

StartedCluster = Callable[[], tuple[str, Callable[[], None]]]
"""Its URL, and what kills it."""


@dataclass
class World:
    """A store, and the powers that a test needs over what lies under it."""

    store: SessionStore
    pass_seconds: Callable[[float], Awaitable[None]]
    cut_off: Callable[[], Awaitable[None]]


@pytest.fixture(scope="module")
def started_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartedCluster]:
    """One Redis Cluster for all, which takes seconds to form; another one after it was killed."""
    running: list[tuple[str, Callable[[], None]]] = []
    with ExitStack() as stack:

        def started() -> tuple[str, Callable[[], None]]:
            if not running:
                running.append(stack.enter_context(redis_cluster(tmp_path_factory.mktemp("cluster"))))
            url, kill = running[0]

            def killed() -> None:
                kill()
                running.clear()

            return url, killed

        yield started


@pytest.fixture(params=["fake", "redis", "redis cluster", "redis over TLS"])
async def world(
    request: pytest.FixtureRequest, started_cluster: StartedCluster, tmp_path: Path
) -> AsyncIterator[World]:
    if request.param == "fake":
        now = 0.0
        fake = InMemorySessionStore(lambda: now)

        async def pass_seconds(seconds: float) -> None:
            nonlocal now
            now += seconds

        async def cut_off() -> None:
            fake.away = True

        yield World(fake, pass_seconds, cut_off)
        return
    if request.param != "redis":
        with ExitStack() as stack:
            tls = request.param == "redis over TLS"
            url, kill = stack.enter_context(redis_over_tls(tmp_path)) if tls else started_cluster()
            redis = connect(url)
            await ask(redis, redis.ping)  # as a server does before it serves
            yield World(RedisSessionStore(redis), asyncio.sleep, lambda: asyncio.to_thread(kill))
            await redis.aclose()
        return
    async with EmbeddedRedis(tmp_path / "data") as embedded, connect(embedded.url) as client:
        yield World(RedisSessionStore(client), asyncio.sleep, embedded.close)


async def test_what_was_saved_comes_back_bit_for_bit(world: World) -> None:
    snapshot, other = make_snapshot(), make_snapshot(next_frame=30, object_ids=(255,))
    await world.store.save(snapshot, 60, constant=True)
    await world.store.save(other, 60, constant=True)
    assert_same(await world.store.load(snapshot.session), snapshot)
    assert_same(await world.store.load(other.session), other)


async def test_constant_states_stay_when_they_are_not_saved_again(world: World) -> None:
    snapshot = make_snapshot()
    await world.store.save(snapshot, 60, constant=True)
    later = make_snapshot(snapshot.session, next_frame=9)
    other = HostRows(first_key=later.state.constant.tensors()["first_key"] + 1)
    later = replace(later, state=replace(later.state, constant=other))
    await world.store.save(later, 60, constant=False)
    expected = replace(later, state=replace(later.state, constant=snapshot.state.constant))
    assert_same(await world.store.load(snapshot.session), expected)


async def test_a_save_replaces_the_outbox(world: World) -> None:
    snapshot = make_snapshot()
    await world.store.save(snapshot, 60, constant=True)
    for outbox in (snapshot.outbox[1:], (), snapshot.outbox):
        await world.store.save(replace(snapshot, outbox=outbox), 60, constant=False)
        assert (await world.store.load(snapshot.session)).outbox == outbox


async def test_a_save_replaces_the_objects(world: World) -> None:
    snapshot = make_snapshot(object_ids=(1, 2, 3))
    await world.store.save(snapshot, 60, constant=True)
    fewer = make_snapshot(snapshot.session, object_ids=(3,))
    await world.store.save(fewer, 60, constant=True)
    assert_same(await world.store.load(snapshot.session), fewer)
    others = replace(make_snapshot(snapshot.session, object_ids=(3, 9)), changes=("draw:1", "remove:2"))
    await world.store.save(others, 60, constant=True, existing=True)
    assert_same(await world.store.load(snapshot.session), others)


async def test_a_save_of_what_should_exist_brings_no_session_back(world: World) -> None:
    snapshot, expired = make_snapshot(), make_snapshot()
    await world.store.save(expired, 0.2, constant=True)
    await world.store.save(snapshot, 60, constant=True)
    await world.store.delete(snapshot.session)
    await world.pass_seconds(0.3)
    for gone, error in ((snapshot, SessionUnknown), (expired, SessionExpired), (make_snapshot(), SessionUnknown)):
        with pytest.raises(error):
            await world.store.save(gone, 60, constant=True, existing=True)
        await _assert_gone(world.store, gone.session, error)


async def test_a_session_that_never_was_is_unknown(world: World) -> None:
    await _assert_gone(world.store, new_session_id(), SessionUnknown)


async def test_a_session_expires_and_is_remembered_as_expired(world: World) -> None:
    snapshot = make_snapshot()
    await world.store.save(snapshot, 0.2, constant=True)
    await world.pass_seconds(0.3)
    await _assert_gone(world.store, snapshot.session, SessionExpired)


async def test_touch_and_save_push_expiry_on(world: World) -> None:
    touched, saved = make_snapshot(), make_snapshot()
    for snapshot in (touched, saved):
        await world.store.save(snapshot, 1.5, constant=True)
    await world.store.touch(touched.session, 60)
    await world.store.save(saved, 60, constant=False)
    await world.pass_seconds(1.6)
    assert_same(await world.store.load(touched.session), touched)
    assert_same(await world.store.load(saved.session), saved)


async def test_a_deleted_session_is_unknown(world: World) -> None:
    snapshot, neighbour = make_snapshot(), make_snapshot()
    await world.store.save(snapshot, 60, constant=True)
    await world.store.save(neighbour, 60, constant=True)
    await world.store.delete(snapshot.session)
    await _assert_gone(world.store, snapshot.session, SessionUnknown)
    assert_same(await world.store.load(neighbour.session), neighbour)


async def test_a_note_is_kept_until_it_is_replaced_or_expires(world: World) -> None:
    name = "any {text}, * and é"
    assert await world.store.recall(name) is None
    assert await world.store.note(name, b"\x00first", 60) == b"\x00first"
    assert await world.store.note(name, b"second", 0.2) == b"second"
    assert await world.store.recall(name) == b"second"
    assert await world.store.recall(name + ".") is None
    await world.pass_seconds(0.3)
    assert await world.store.recall(name) is None


async def test_of_many_who_note_something_new_one_is_first(world: World) -> None:
    values = [b"%d" % number for number in range(20)]
    kept = await asyncio.gather(*(world.store.note("name", value, 60, new=True) for value in values))
    assert len(set(kept)) == 1 and kept[0] in values
    assert await world.store.recall("name") == kept[0]
    assert await world.store.note("name", b"replaced", 60) == b"replaced"
    assert await world.store.note("name", b"too late", 60, new=True) == b"replaced"


async def test_every_call_says_so_when_the_store_is_away(world: World) -> None:
    snapshot = make_snapshot()
    await world.store.save(snapshot, 60, constant=True)
    await world.store.ping()
    await world.cut_off()
    for call in (
        world.store.save(snapshot, 60, constant=False),
        world.store.load(snapshot.session),
        world.store.touch(snapshot.session, 60),
        world.store.delete(snapshot.session),
        world.store.note("a name", b"1", 60),
        world.store.recall("a name"),
        world.store.ping(),
    ):
        with pytest.raises(Unavailable, match="try again"):
            await call


async def test_nothing_acknowledged_is_lost_when_redis_is_killed(tmp_path: Path) -> None:
    """Six sessions are saved without pause while Redis is killed; then a new server opens the folder."""
    acknowledged: dict[SessionId, int] = {new_session_id(): 0 for _ in range(6)}
    randomly, running = random.Random(7), True

    async def keep_saving(store: SessionStore, session: SessionId) -> None:
        while running:
            next_frame = acknowledged[session] + 1
            try:
                snapshot = make_snapshot(session, next_frame=next_frame)
                await store.save(snapshot, 60, constant=not acknowledged[session])
                acknowledged[session] = next_frame
            except Unavailable:
                await asyncio.sleep(0.05)
            except OwnershipLost:
                pass  # it was on its way when the session was loaded, and is not stored

    async def assert_all_there(store: SessionStore) -> None:
        for session, next_frame in acknowledged.items():
            if next_frame:
                stored = await store.load(session)
                assert stored.next_frame >= next_frame
                assert_same(stored, make_snapshot(session, next_frame=stored.next_frame))

    async with EmbeddedRedis(tmp_path) as embedded, connect(embedded.url) as client:
        store = RedisSessionStore(client)
        writers = [asyncio.create_task(keep_saving(store, session)) for session in acknowledged]
        for _ in range(3):
            await asyncio.sleep(randomly.uniform(0.2, 0.4))
            os.kill((await client.info("server"))["process_id"], signal.SIGKILL)
            await _until_back(store)
            await assert_all_there(store)
        running = False
        await asyncio.gather(*writers)
    assert all(acknowledged.values())
    async with EmbeddedRedis(tmp_path) as embedded, connect(embedded.url) as client:
        await assert_all_there(RedisSessionStore(client))


async def _assert_gone(store: SessionStore, session: SessionId, error: type[Exception]) -> None:
    for call in (
        store.load(session),
        store.touch(session, 60),
        store.delete(session),
        store.save(make_snapshot(session), 60, constant=False),
        store.load(session),
    ):
        with pytest.raises(error, match=session):
            await call


async def _until_back(store: SessionStore) -> None:
    for _ in range(100):
        try:
            await store.ping()
            return
        except Unavailable:
            await asyncio.sleep(0.1)
    raise AssertionError("the embedded Redis was not started again")


async def test_a_session_that_another_worker_has_taken_cannot_be_saved(tmp_path: Path) -> None:
    """Two workers on one Redis: what the first does after the second took the session is refused, whatever it holds."""
    async with EmbeddedRedis(tmp_path / "data") as embedded, connect(embedded.url) as client:
        first, second = RedisSessionStore(client, "w1"), RedisSessionStore(client, "w2")
        snapshot = make_snapshot()
        assert await first.save(snapshot, 60, constant=True) == 1
        assert (await first.load(snapshot.session)).epoch == 1, "its own session, parked and brought back"
        assert (await second.load(snapshot.session)).epoch == 2
        for constant in (True, False):
            with pytest.raises(OwnershipLost, match="w2") as lost:
                await first.save(make_snapshot(snapshot.session, next_frame=9), 60, constant=constant, existing=True)
            assert lost.value.metadata["by"] == "worker"
        assert_same(await second.load(snapshot.session), snapshot)
        later = make_snapshot(snapshot.session, next_frame=10)
        assert await second.save(later, 60, constant=False) == 2
        assert (await first.load(snapshot.session)).epoch == 3
        with pytest.raises(OwnershipLost):
            await second.save(later, 60, constant=False)
        await first.delete(snapshot.session)
        with pytest.raises(SessionUnknown):
            await second.save(later, 60, constant=False)


async def test_a_save_on_its_way_when_the_session_came_back_does_not_land(tmp_path: Path) -> None:
    """The worker lost the session and has it again: what it sent in between is of the past."""
    async with EmbeddedRedis(tmp_path / "data") as embedded, connect(embedded.url) as client:
        first, second = RedisSessionStore(client, "w1"), RedisSessionStore(client, "w2")
        snapshot = make_snapshot()
        await first.save(snapshot, 60, constant=True)
        late = RedisSessionStore(client, "w1")  # its numbers begin anew, as if this save had been sent long ago
        for _ in range(3):
            await first.load(snapshot.session)
        await second.load(snapshot.session)
        await first.load(snapshot.session)
        with pytest.raises(OwnershipLost):
            await late.save(make_snapshot(snapshot.session, next_frame=9), 60, constant=False)
        assert_same(await first.load(snapshot.session), snapshot)


async def test_a_redis_that_cannot_be_trusted_or_does_not_trust_us_is_told_without_its_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_over_tls(tmp_path) as (url, _):
        for wrong, said in (
            (url.partition("?")[0], "certificate"),
            (url.replace(PASSWORD, "guessed"), "password"),
            (url.replace(f":{PASSWORD}@", ""), "authenticated"),
        ):
            caplog.clear()
            async with connect(wrong) as client:
                with pytest.raises(Unavailable, match=r"cannot be reached|refuses") as told:
                    await RedisSessionStore(client).ping()
            assert said in caplog.text, "the operator's log says why"
            assert all(word not in str(told.value) + caplog.text for word in (PASSWORD, "guessed"))
