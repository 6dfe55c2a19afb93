"""The parts that every form of the server is made of, built from settings."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from service.batching import BatchingQueue
from service.core.ports import Clock, EngineObserver, Runtime, SessionStore
from service.engine import EngineLimits, LocalEngine
from service.imaging import ImageLimits
from service.settings import Settings, SettingsError

if TYPE_CHECKING:  # serving alone needs them, and traces alone OpenTelemetry
    from service.store.calls import AnyRedis
    from service.telemetry.tracing import Traces

_log = logging.getLogger(__name__)
# A CPU gains nothing from more, its runs being side by side.
FRAMES_IN_A_RUN = {"cpu": 1, "cuda": 64}
"""By provider; beside it, a run has at most `Settings.max_batch` objects."""
# Threads: beyond, a frame takes seconds.
_MOST_PER_CORE = 4


class CannotServe(OSError):
    """The server cannot start. The message says why and what to do."""


def load_runtime(settings: Settings) -> Runtime:
    """The model, checked and warmed up. Blocks. Raises BundleError and SettingsError (each a ValueError)."""
    from service.runtime import AUTO, FLOAT, StoredStepError, suitable

    if settings.bundle != AUTO:
        return _ready(settings, settings.bundle, "named in the settings")
    name, why = suitable(settings.provider)
    try:
        return _ready(settings, name, why)
    except StoredStepError as error:
        if name == FLOAT:
            raise
        _log.warning("%s is not used: %s", name, error)
        return _ready(settings, FLOAT, f"float, since a stored step of {name} comes out differently on this machine")


def _ready(settings: Settings, bundle: str, why: str) -> Runtime:
    from service.runtime import DeviceRuntime, OnnxRuntime, check_stored_step, cores, load_bundle

    loaded = load_bundle(bundle)
    runtime: OnnxRuntime | DeviceRuntime
    if settings.provider == "cpu":
        if settings.threads > (there := cores()):
            # Either may have said so.
            told = f"--threads or S2SPP_THREADS is {settings.threads}, the cores that this process may use {there}"
            if settings.threads > _MOST_PER_CORE * there:
                raise SettingsError(f"{told}: give {there}, or 0 for all that there are")
            _log.warning("%s: runs hold each other up", told)
        runtime = OnnxRuntime(loaded, settings.threads, why)
    else:
        runtime = DeviceRuntime(loaded, why, max_batch=min(settings.max_batch, FRAMES_IN_A_RUN["cuda"]))
    check_stored_step(runtime, loaded.folder)
    runtime.warm_up()
    return runtime


@asynccontextmanager
async def build_engine(
    settings: Settings,
    *,
    runtime: Runtime | None = None,
    store: SessionStore | None = None,
    clock: Clock = time.monotonic,
    observer: EngineObserver | None = None,
    held: Callable[[], bool] = lambda: True,
) -> AsyncIterator[LocalEngine]:
    """An engine in this process until the context ends; every session is committed then. Without a `runtime`
    it loads the bundle; without a `store` sessions live in memory only, which is what a command needs. `held`: a
    worker's lease."""
    if runtime is None:
        runtime = await asyncio.to_thread(load_runtime, settings)
    if store is None:
        from service.store.memory import MemorySessionStore

        store = MemorySessionStore(clock)
    limits = EngineLimits(
        max_sessions=settings.max_sessions,
        max_client_sessions=settings.max_sessions_per_client,
        max_objects=settings.max_objects,
        images=ImageLimits(settings.max_image_bytes, settings.max_pixels),
        idle_timeout_s=settings.idle_timeout_s,
        window=max(EngineLimits.window, settings.window),
        commit_every=settings.commit_every,
        commit_bytes_per_s=settings.commit_bytes_per_s,
    )
    queue = BatchingQueue(runtime, settings.max_batch, FRAMES_IN_A_RUN[settings.provider])
    engine = LocalEngine(queue, store, runtime.info, limits, clock, observer, held)
    try:
        yield engine
    finally:
        await engine.close()
        await queue.close()


def open_traces(endpoint: str | None) -> Traces | None:
    if endpoint is None:
        return None
    try:
        from service.telemetry.tracing import Traces
    except ModuleNotFoundError as error:
        raise CannotServe(
            f"traces are to go to {endpoint}, but OpenTelemetry is not installed ({error}): "
            "pip install 's2spp[otel]', or unset S2SPP_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from error
    return Traces(endpoint, importlib.metadata.version("s2spp"))


@asynccontextmanager
async def open_redis(settings: Settings) -> AsyncIterator[AnyRedis]:
    """REDIS_URL, or else a Redis of our own in the data folder. It answers; and the folder is no other process's
    meanwhile. Raises CannotServe, Unavailable."""
    from service.store.calls import ask, connect
    from service.store.embedded import EmbeddedRedis, lock_folder
    from service.store.redis_process import EmbeddedRedisError

    async with AsyncExitStack() as stack:
        try:
            if settings.redis_url is None:
                embedded = await stack.enter_async_context(EmbeddedRedis(settings.data_dir))
                redis = connect(embedded.url, embedded.trouble)
            else:
                stack.enter_context(lock_folder(settings.data_dir))
                redis = connect(settings.redis_url)
        except EmbeddedRedisError as error:
            raise CannotServe(str(error)) from error
        stack.push_async_callback(redis.aclose)
        await ask(redis, redis.ping)
        yield redis
