"""What the Redis store does beyond the port's contract: keys, order of saves, words when Redis fails."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from service.core.errors import SnapshotDamaged, Unavailable
from service.store import calls
from service.store.calls import connect
from service.store.embedded import EmbeddedRedis
from service.store.redis_store import RedisSessionStore
from tests.fakes.store import assert_same, make_snapshot


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Redis]:
    async with EmbeddedRedis(tmp_path / "data") as embedded, connect(embedded.url) as client:
        yield client


async def test_the_keys_of_a_session_share_a_cluster_slot_and_all_expire(client: Redis) -> None:
    snapshot = make_snapshot()
    await RedisSessionStore(client).save(snapshot, 60, constant=True)
    keys = await client.keys("*")
    assert keys and all(key.startswith(f"s2spp:{{{snapshot.session}}}:".encode()) for key in keys)
    times = sorted([await client.pttl(key) for key in keys])
    day_ms = 24 * 3600 * 1000
    assert 0 < times[0] <= 60_000
    assert day_ms < times[-1] <= day_ms + 60_000


async def test_delete_leaves_nothing(client: Redis) -> None:
    store = RedisSessionStore(client)
    snapshot = make_snapshot()
    await store.save(snapshot, 60, constant=True)
    await store.delete(snapshot.session)
    assert await client.dbsize() == 0


async def test_a_save_that_arrives_late_does_not_undo_a_later_one(
    client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RedisSessionStore(client)
    first = make_snapshot(next_frame=8)
    await store.save(first, 60, constant=True)
    held, go, real = asyncio.Event(), asyncio.Event(), client.evalsha

    async def slow_once(*arguments: Any) -> Any:
        monkeypatch.setattr(client, "evalsha", real)
        held.set()
        await go.wait()
        return await real(*arguments)

    monkeypatch.setattr(client, "evalsha", slow_once)
    late = asyncio.create_task(store.save(make_snapshot(first.session, next_frame=9), 60, constant=False))
    await held.wait()
    newest = make_snapshot(first.session, next_frame=10)
    await store.save(newest, 60, constant=False)
    go.set()
    await late
    assert_same(await store.load(first.session), newest)


async def test_a_new_server_may_save_over_an_older_ones(client: Redis) -> None:
    old, new = RedisSessionStore(client), RedisSessionStore(client)
    first = make_snapshot(next_frame=8)
    for _ in range(3):
        await old.save(first, 60, constant=True)
    second = make_snapshot(first.session, next_frame=9)
    await new.load(first.session)
    await new.save(second, 60, constant=False)
    assert_same(await new.load(first.session), second)


async def test_damage_in_redis_is_told_and_not_built_upon(client: Redis) -> None:
    store = RedisSessionStore(client)
    snapshot = make_snapshot()
    await store.save(snapshot, 60, constant=True)
    await client.hset(f"s2spp:{{{snapshot.session}}}:snapshot", "object:7:state", b"\x00")
    with pytest.raises(SnapshotDamaged, match=r"object:7:state.*damaged"):
        await store.load(snapshot.session)
    await client.hdel(f"s2spp:{{{snapshot.session}}}:snapshot", "object:7:constant")
    with pytest.raises(SnapshotDamaged, match=r"object:7:constant.*missing"):
        await store.save(snapshot, 60, constant=False)
    await store.save(snapshot, 60, constant=True)
    assert_same(await store.load(snapshot.session), snapshot)


async def test_a_store_survives_a_restart_of_redis_that_forgot_its_scripts(client: Redis) -> None:
    store = RedisSessionStore(client)
    snapshot = make_snapshot()
    await store.save(snapshot, 60, constant=True)
    await client.script_flush()
    await store.save(snapshot, 60, constant=False)
    assert_same(await store.load(snapshot.session), snapshot)


async def test_a_full_redis_is_unavailable_and_the_log_says_why(
    client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await client.config_set("maxmemory", 1)
    for _ in range(3):
        with pytest.raises(Unavailable, match="refuses"):
            await RedisSessionStore(client).save(make_snapshot(), 60, constant=True)
    (line,) = caplog.messages
    assert "maxmemory" in line and "refuses" in line


async def test_a_hung_redis_is_unavailable(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_ANSWER_WITHIN_S", 0.2)
    pid = (await client.info("server"))["process_id"]
    path = client.connection_pool.connection_kwargs["path"]
    async with connect(f"unix://{path}") as impatient:
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="does not answer"):
                await RedisSessionStore(impatient).ping()
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_an_unreachable_redis_is_named_in_the_log_alone_and_without_its_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connect("redis://someone:secret@127.0.0.1:1/0") as nowhere:
        with pytest.raises(Unavailable, match="try again") as caught:
            await RedisSessionStore(nowhere).load(make_snapshot().session)
    assert "127.0.0.1" not in str(caught.value), "no caller's business"
    assert "Redis at 127.0.0.1:1 cannot be reached" in caplog.text and "secret" not in caplog.text
