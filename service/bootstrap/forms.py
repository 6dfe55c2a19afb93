"""What can be started: the embedded server, a worker, a gateway. The same parts, wired differently."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service.bootstrap.listening import ADDRESSES, announced, import_transports, listening
from service.bootstrap.parts import CannotServe, build_engine, load_runtime, open_redis, open_traces
from service.bootstrap.process import stop_signal
from service.core.cancelling import cancelled
from service.core.errors import Unavailable
from service.core.registry import WorkerState
from service.settings import Form, Settings, misspelt

if TYPE_CHECKING:
    from service.telemetry import Telemetry

_log = logging.getLogger(__name__)


async def serve(settings: Settings, *, stop_with_stdin: bool = False) -> None:
    """The embedded server: REST and gRPC over one engine, sessions in a Redis. Returns after SIGTERM or
    SIGINT, when running requests have ended and every session is committed. `stop_with_stdin`: so, too, when
    standard input, a pipe, is closed.

    While it serves, `server.json` in the data folder tells its addresses. Raises CannotServe (the data folder, its
    Redis or that of REDIS_URL, a port that is taken), BundleError."""
    from service.store.redis_store import RedisSessionStore
    from service.telemetry import MeasuredRuntime, MeasuredStore

    async with _process("server", settings, stop_with_stdin) as process:
        stack, telemetry = process.stack, process.telemetry
        # The model loads while Redis starts, and is waited for whatever happens to Redis.
        loading = asyncio.create_task(asyncio.to_thread(load_runtime, settings))
        stack.push_async_callback(_ended, loading)
        store = MeasuredStore(RedisSessionStore(await stack.enter_async_context(open_redis(settings))), telemetry)
        (settings.data_dir / ADDRESSES).unlink(missing_ok=True)  # of a server that was killed
        import_transports()
        runtime = MeasuredRuntime(await loading, telemetry)
        engine = await stack.enter_async_context(
            build_engine(settings, runtime=runtime, store=store, observer=telemetry)
        )
        telemetry.sessions_capacity(settings.max_sessions)
        at = await stack.enter_async_context(listening(settings, engine, telemetry))
        stack.enter_context(announced(settings.data_dir, at))
        info = runtime.info
        _log.info("the model is %s (%s)", info.name, info.chosen)
        _log.info("s2spp serves %s: %s", info.name, at.places)
        await process.told_to_stop.wait()
        _log.info("stopping: running requests end, sessions are committed")


async def work(settings: Settings, *, stop_with_stdin: bool = False) -> None:
    """A worker: gRPC for gateways over one engine, sessions in the Redis that it shares with them. After SIGTERM it
    drains: takes nothing new, answers and stores what it has, and tells streams to go on elsewhere. Raises as
    `serve`."""
    from service.cluster.balance import keep_balance
    from service.cluster.heartbeat import Heartbeat
    from service.store.redis_registry import RedisWorkerRegistry
    from service.store.redis_store import RedisSessionStore
    from service.telemetry import MeasuredRuntime, MeasuredStore

    _refuse_without_redis(settings, "worker")
    async with _process("worker", settings, stop_with_stdin) as process:
        stack, telemetry, name = process.stack, process.telemetry, secrets.token_hex(8)
        loading = asyncio.create_task(asyncio.to_thread(load_runtime, settings))
        stack.push_async_callback(_ended, loading)
        redis = await stack.enter_async_context(open_redis(settings))
        store = MeasuredStore(RedisSessionStore(redis, name), telemetry)
        runtime = MeasuredRuntime(await loading, telemetry)
        address, draining = "", False

        def state() -> WorkerState:
            load = engine.load()
            digest = runtime.info.digest
            return WorkerState(name, address, load.sessions, load.busy, settings.max_sessions, digest, draining)

        registry = RedisWorkerRegistry(redis)
        heartbeat = Heartbeat(registry, state, time.monotonic)
        stack.push_async_callback(heartbeat.stop)
        engine = await stack.enter_async_context(
            build_engine(settings, runtime=runtime, store=store, observer=telemetry, held=lambda: heartbeat.held)
        )
        telemetry.sessions_capacity(settings.max_sessions)
        at = await stack.enter_async_context(listening(settings, engine, telemetry, worker=True))
        address = settings.advertise or _reached_at(settings.host, at.grpc)
        await heartbeat.start()
        balance = asyncio.create_task(keep_balance(registry, state, at.hand_over), name="the balance of workers")
        balance.add_done_callback(_told_if_it_failed)
        stack.push_async_callback(cancelled, balance)
        stack.enter_context(announced(settings.data_dir, at))
        _log.info("worker %s serves %s: gRPC %s, metrics %s/metrics", name, runtime.info.name, address, at.http)
        await process.told_to_stop.wait()
        _log.info("draining: running requests end, sessions are stored and go on at the next worker")
        draining = True
        with suppress(Unavailable):
            await heartbeat.beat()


async def gateway(settings: Settings, *, stop_with_stdin: bool = False) -> None:
    """A gateway: REST and gRPC for everybody, over the workers that the shared Redis knows. Raises as `serve`."""
    from service.cluster.engine import ClusterEngine
    from service.store.redis_registry import RedisWorkerRegistry

    _refuse_without_redis(settings, "gateway")
    async with _process("gateway", settings, stop_with_stdin) as process:
        stack = process.stack
        registry = RedisWorkerRegistry(await stack.enter_async_context(open_redis(settings)))
        engine = ClusterEngine(registry, process.telemetry)
        stack.push_async_callback(engine.close)
        await engine.start()
        at = await stack.enter_async_context(listening(settings, engine, process.telemetry))
        stack.enter_context(announced(settings.data_dir, at))
        _log.info("gateway: %s", at.places)
        await process.told_to_stop.wait()
        _log.info("stopping: running requests end; streams go on at the next gateway")


@dataclass(frozen=True)
class _Process:
    stack: AsyncExitStack
    telemetry: Telemetry
    told_to_stop: asyncio.Event


@asynccontextmanager
async def _process(form: Form, settings: Settings, stop_with_stdin: bool) -> AsyncIterator[_Process]:
    """What every form has: logs, traces, metrics, and an end."""
    from service.telemetry import Telemetry, configure_logging

    configure_logging(settings.log_level, settings.log_format)
    for name, meant in misspelt().items():
        _log.warning("%s is no setting, and has no effect; %s is one", name, meant)
    if of_others := settings.of_others(form):
        _log.warning("%s: set, and without effect on a %s", ", ".join(of_others), form)
    told_to_stop = stop_signal(stop_with_stdin)
    async with AsyncExitStack() as stack:
        traces = open_traces(settings.otlp_endpoint)
        if traces is not None:
            stack.push_async_callback(asyncio.to_thread, traces.close)
        try:
            yield _Process(stack, Telemetry(traces), told_to_stop)
        except Unavailable as error:
            check = "redis.log in the data folder"
            if settings.redis_url is not None:
                check = "REDIS_URL, and that its Redis runs; the warning above says more"
            raise CannotServe(f"{error.fault}: check {check}") from error


def _refuse_without_redis(settings: Settings, form: Form) -> None:
    if settings.redis_url is None:
        raise CannotServe(f"a {form} shares a Redis with the others: set REDIS_URL. One process alone is `s2spp serve`")


def _reached_at(host: str, local: str) -> str:
    """Where others reach what listens on `host`: this machine by its name, if it listens on every network."""
    return f"{socket.gethostname()}:{local.rpartition(':')[2]}" if host in ("0.0.0.0", "::") else local


def _told_if_it_failed(task: asyncio.Task[None]) -> None:
    """Nobody waits for it while the process runs."""
    if not task.cancelled() and (problem := task.exception()) is not None:
        _log.error("%s has ended, and is not begun again before the next start", task.get_name(), exc_info=problem)


async def _ended(task: asyncio.Task[Any]) -> None:
    await asyncio.gather(task, return_exceptions=True)
