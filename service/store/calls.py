"""Talking to Redis: one way to connect, and one to ask, with all waits bounded and every failure an Unavailable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.core.errors import Unavailable

_log = logging.getLogger(__name__)
_Reply = TypeVar("_Reply")
AnyRedis = Redis | RedisCluster
_CLUSTER = "-cluster://"
_BROKEN = (RedisConnectionError, RedisClusterException)

_ANSWER_WITHIN_S = 5.0
_CONNECT_WITHIN_S = 2.0
_CONNECTIONS = 32
# Pauses before another attempt when a connection breaks: enough for the embedded Redis to come back.
_RETRY_AFTER_S = (0.0, 0.05, 0.1, 0.2, 0.4)
_LOG_EVERY_S = 30.0
_logged: WeakKeyDictionary[AnyRedis, float] = WeakKeyDictionary()
_troubles: WeakKeyDictionary[AnyRedis, Callable[[], str | None]] = WeakKeyDictionary()


def connect(url: str, trouble: Callable[[], str | None] | None = None) -> AnyRedis:
    """A client for `redis://`, `rediss://` (TLS) or `unix://`; for the nodes of a Redis Cluster, any one of them named,
    `redis-cluster://` or `rediss-cluster://`. All its waits are bounded. Connects when first used.
    `trouble`: why it is away, where whoever runs it knows and has said so in the log; callers are told."""
    redis = _client(url)
    if trouble is not None:
        _troubles[redis] = trouble
    return redis


def _client(url: str) -> AnyRedis:
    bounded = {"socket_timeout": _ANSWER_WITHIN_S, "socket_connect_timeout": _CONNECT_WITHIN_S}
    if _CLUSTER in url:
        return RedisCluster.from_url(url.replace(_CLUSTER, "://", 1), max_connections=_CONNECTIONS, **bounded)
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=_ANSWER_WITHIN_S,
        retry=Retry(NoBackoff(), 0),  # the store tries again itself, and knows what may be repeated
        **bounded,
    )
    return Redis.from_pool(pool)


async def ask(redis: AnyRedis, call: Callable[[], Awaitable[_Reply]]) -> _Reply:
    """Again after a broken connection (every call may be repeated), within a time for all attempts. Raises Unavailable,
    which callers are told; where Redis is, and what it said, is the operator's business and is logged."""
    try:
        return await _asked(call)
    except (TimeoutError, RedisTimeoutError) as error:
        _log_now_and_then(
            redis, "does not answer in time; see what keeps it busy, and that it speaks TLS if its address is rediss://"
        )
        raise Unavailable("the session store does not answer; try again in a moment") from error
    except _BROKEN as error:
        known = _troubles.get(redis)
        if known is not None and (trouble := known()) is not None:
            raise Unavailable(f"{trouble}; try again later") from error
        _log_now_and_then(
            redis, f"cannot be reached ({error}); see that it runs there, and its address, password and TLS"
        )
        raise Unavailable("the session store cannot be reached; try again in a moment") from error
    except RedisError as error:
        _log_now_and_then(
            redis, f"refuses ({error}); see that it is a Redis with this database, its memory, disk and rights"
        )
        raise Unavailable("the session store refuses; try again in a moment") from error


async def _asked(call: Callable[[], Awaitable[_Reply]]) -> _Reply:
    async with asyncio.timeout(_ANSWER_WITHIN_S):
        for pause in _RETRY_AFTER_S:
            try:
                return await call()
            except _BROKEN:
                await asyncio.sleep(pause)
        return await call()


def _log_now_and_then(redis: AnyRedis, what: str) -> None:
    """Every session and every caller meets the same trouble."""
    now = time.monotonic()
    if now - _logged.get(redis, -_LOG_EVERY_S) >= _LOG_EVERY_S:
        _logged[redis] = now
        _log.warning("Redis at %s %s", _address(redis), what)


def _address(redis: AnyRedis) -> str:
    """Where the store is, without user or password."""
    if isinstance(redis, RedisCluster):
        nodes = redis.get_nodes() or redis.nodes_manager.startup_nodes.values()
        return ", ".join(f"{node.host}:{node.port}" for node in nodes)
    where = redis.connection_pool.connection_kwargs
    return str(where["path"]) if "path" in where else f"{where.get('host')}:{where.get('port', 6379)}"
