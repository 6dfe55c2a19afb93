"""The composition root: the one place where settings become parts and parts are wired."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.batching import BatchingQueue
from service.core.ports import Clock, Engine, EngineObserver, Runtime, SessionStore
from service.engine import EngineLimits, LocalEngine
from service.imaging import ImageLimits
from service.settings import Settings

if TYPE_CHECKING:  # serving alone needs it, and traces alone OpenTelemetry
    from service.telemetry import Telemetry
    from service.telemetry.tracing import Traces

_log = logging.getLogger(__name__)
_ADDRESSES = "server.json"
_STDIN = 0
# Beyond the time that running requests get: for a transport to end by itself.
_OVERDUE_S = 5.0
# A video's sender or reader that pauses longer is let go: there are few places.
_STALL_S = 60.0
# Beside images a message has a few fields, and one only somewhat too large is still told the reason.
_MESSAGE_OVERHEAD = 1 << 20


class CannotServe(OSError):
    """The server cannot start. The message says why and what to do."""


def load_runtime(settings: Settings) -> Runtime:
    """The model, checked and warmed up. Blocks. Raises BundleError (a ValueError)."""
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
    from service.runtime import OnnxRuntime, check_stored_step, load_bundle

    loaded = load_bundle(bundle)
    runtime = OnnxRuntime(loaded, settings.threads, settings.provider, why)
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
) -> AsyncIterator[Engine]:
    """An engine in this process until the context ends; every session is committed then. Without a `runtime`
    it loads the bundle; without a `store` sessions live in memory only, which is what a command needs."""
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
    queue = BatchingQueue(runtime, settings.max_batch)
    engine = LocalEngine(queue, store, runtime.info, limits, clock, observer)
    try:
        yield engine
    finally:
        await engine.close()
        await queue.close()


def run(settings: Settings, *, stop_with_stdin: bool = False) -> None:
    """`serve` on the fastest event loop there is."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):  # not made for every platform
        from uvloop import new_event_loop as factory
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(settings, stop_with_stdin=stop_with_stdin))


async def serve(settings: Settings, *, stop_with_stdin: bool = False) -> None:
    """The embedded server: REST and gRPC over one engine, sessions in a Redis. Returns after SIGTERM or
    SIGINT, when running requests have ended and every session is committed. `stop_with_stdin`: so, too, when
    standard input, a pipe, is closed.

    While it serves, `server.json` in the data folder tells its addresses. Raises CannotServe (the data folder
    or its Redis), BundleError, Unavailable (REDIS_URL does not answer), OSError (a port is taken)."""
    from service.telemetry import MeasuredRuntime, MeasuredStore, Telemetry, configure_logging

    configure_logging(settings.log_level, settings.log_format)
    told_to_stop = _stop_signal(stop_with_stdin)
    async with AsyncExitStack() as stack:
        traces = _traces(settings.otlp_endpoint)
        if traces is not None:
            stack.push_async_callback(asyncio.to_thread, traces.close)
        telemetry = Telemetry(traces)
        # The model loads while Redis starts, and is waited for whatever happens to Redis.
        loading = asyncio.create_task(asyncio.to_thread(load_runtime, settings))
        stack.push_async_callback(_ended, loading)
        store = MeasuredStore(await stack.enter_async_context(_redis_store(settings)), telemetry)
        (settings.data_dir / _ADDRESSES).unlink(missing_ok=True)  # of a server that was killed
        runtime = MeasuredRuntime(await loading, telemetry)
        engine = await stack.enter_async_context(
            build_engine(settings, runtime=runtime, store=store, observer=telemetry)
        )
        http, grpc = await stack.enter_async_context(_transports(settings, engine, telemetry))
        stack.enter_context(_announced(settings.data_dir, http, grpc))
        info = runtime.info
        _log.info("the model is %s (%s)", info.name, info.chosen)
        _log.info("s2spp serves %s: REST %s (try %s/docs), gRPC %s", info.name, http, http, grpc)
        await told_to_stop.wait()
        _log.info("stopping: running requests end, sessions are committed")


def _traces(endpoint: str | None) -> Traces | None:
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
async def _redis_store(settings: Settings) -> AsyncIterator[SessionStore]:
    """On REDIS_URL, or else on a Redis of our own in the data folder, which no other server may use then."""
    from service.store.calls import connect
    from service.store.embedded import EmbeddedRedis
    from service.store.redis_process import EmbeddedRedisError
    from service.store.redis_store import RedisSessionStore

    async with AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            try:
                url = (await stack.enter_async_context(EmbeddedRedis(settings.data_dir))).url
            except EmbeddedRedisError as error:
                raise CannotServe(str(error)) from error
        store = RedisSessionStore(await stack.enter_async_context(connect(url)))
        await store.ping()
        yield store


@asynccontextmanager
async def _transports(settings: Settings, engine: Engine, telemetry: Telemetry) -> AsyncIterator[tuple[str, str]]:
    """REST and gRPC over `engine`; yields the addresses that a client on this machine uses."""
    from service.telemetry import CallRecorder, RecordedApp, RecordingInterceptor
    from service.transport.grpc import start_grpc
    from service.transport.rest import VideoBounds, create_app, start_rest

    largest = settings.max_image_bytes + _MESSAGE_OVERHEAD
    app = create_app(
        engine,
        max_image_bytes=settings.max_image_bytes,
        metrics=telemetry.render,
        version=importlib.metadata.version("s2spp"),
        stream_window=settings.window,
        videos=VideoBounds(
            max_bytes=settings.max_video_bytes,
            max_frames=settings.max_video_frames,
            max_pixels=settings.max_pixels,
            at_a_time=settings.max_videos,
            stall_s=min(settings.idle_timeout_s, _STALL_S),
        ),
        cors_origins=settings.cors_origins,
    )
    listen = f"[{settings.host}]" if ":" in settings.host else settings.host
    local = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(listen, listen)
    recorder = CallRecorder(telemetry)
    rest = await start_rest(RecordedApp(app, recorder), settings.host, settings.http_port, max_message_bytes=largest)
    try:
        grpc = await start_grpc(
            engine,
            f"{listen}:{settings.grpc_port}",
            max_message_bytes=2 * largest,  # opening sends a frame and a mask
            window=settings.window,
            interceptors=[RecordingInterceptor(recorder)],
        )
    except BaseException:
        await rest.stop(0)
        raise
    try:
        yield f"http://{local}:{rest.port}", f"{local}:{grpc.port}"
    finally:
        await _stopped(settings.drain_s, rest.stop(settings.drain_s), grpc.stop(settings.drain_s))


async def _stopped(drain_s: float, *stops: Coroutine[Any, Any, None]) -> None:
    """A transport that does not end in its time keeps neither sessions from being committed nor the process alive."""
    done, hung = await asyncio.wait([asyncio.create_task(stop) for stop in stops], timeout=drain_s + _OVERDUE_S)
    for task in hung:
        _log.warning("a server did not stop within %g seconds; it is left behind", drain_s + _OVERDUE_S)
        task.cancel()
    for task in done:
        task.result()


@contextmanager
def _announced(data_dir: Path, http: str, grpc: str) -> Iterator[None]:
    """`server.json`, for those who start a server on port 0 and have to find it. It appears whole."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / _ADDRESSES
    draft = path.with_suffix(".partial")
    draft.write_text(json.dumps({"pid": os.getpid(), "http": http, "grpc": grpc}))
    draft.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


async def _ended(task: asyncio.Task[Any]) -> None:
    await asyncio.gather(task, return_exceptions=True)


def _stop_signal(stop_with_stdin: bool) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def tell() -> None:
        told.set()
        for each in signals:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    def read_stdin() -> None:
        if not os.read(_STDIN, 1024):
            loop.remove_reader(_STDIN)
            tell()

    for each in signals:
        loop.add_signal_handler(each, tell)
    if stop_with_stdin:
        loop.add_reader(_STDIN, read_stdin)
    return told
