"""The one place that builds the parts and wires them. Commands and tests start a server or an engine here."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from service.batching import BatchingQueue
from service.core.ports import Runtime, SessionStore
from service.engine import EngineLimits, LocalEngine
from service.imaging import ImageLimits
from service.runtime import OnnxRuntime, load_bundle
from service.settings import Settings
from service.store.memory import MemorySessionStore
from service.telemetry import MeasuredRuntime, Telemetry, configure_logging

_log = logging.getLogger(__name__)
ADDRESS_FILE = "server.json"
"""In the data folder while a server runs: {"http", "grpc", "pid"}. How others find a server on free ports."""


def build_runtime(settings: Settings) -> OnnxRuntime:
    """The bundle, loaded and warm. Raises BundleError."""
    runtime = OnnxRuntime(load_bundle(settings.bundle), settings.threads, settings.provider)
    runtime.warm_up()
    return runtime


@asynccontextmanager
async def running_engine(
    settings: Settings, runtime: Runtime, store: SessionStore | None = None, telemetry: Telemetry | None = None
) -> AsyncIterator[LocalEngine]:
    """The engine of one process; on leaving, sessions are committed. Without a `store` they live in memory only."""
    told = telemetry or Telemetry()
    queue = BatchingQueue(MeasuredRuntime(runtime, told), settings.max_batch)
    limits = EngineLimits(
        max_sessions=settings.max_sessions,
        max_objects=settings.max_objects,
        images=ImageLimits(settings.max_image_bytes, settings.max_pixels),
        idle_timeout_s=settings.idle_timeout_s,
    )
    engine = LocalEngine(queue, store or MemorySessionStore(), runtime.info, limits, time.monotonic, told)
    try:
        yield engine
    finally:
        await engine.close()
        await queue.close()


async def serve(settings: Settings) -> None:
    """The embedded server: Redis (ours, or REDIS_URL's), engine, REST and gRPC, until SIGTERM or SIGINT.

    Raises DataFolderInUse when another server has the data folder, BundleError, OSError for a port that is taken."""
    from service.store.embedded import EmbeddedRedis
    from service.store.redis_store import RedisSessionStore, connect
    from service.transport.grpc import start_grpc
    from service.transport.rest import create_app, start_rest

    configure_logging(settings.log_level, settings.log_format)
    started = time.monotonic()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    telemetry = Telemetry()
    async with AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            url = (await stack.enter_async_context(EmbeddedRedis(settings.data_dir))).url
        redis = connect(url)
        stack.push_async_callback(redis.aclose)
        runtime = await asyncio.to_thread(build_runtime, settings)
        engine = await stack.enter_async_context(
            running_engine(settings, runtime, RedisSessionStore(redis), telemetry)
        )
        app = create_app(
            engine,
            max_image_bytes=settings.max_image_bytes,
            metrics=telemetry.render,
            version=version("s2spp"),
            stream_window=settings.window,
        )
        rest = await start_rest(
            app, settings.host, settings.http_port, max_message_bytes=2 * settings.max_image_bytes
        )
        stack.push_async_callback(rest.stop, settings.drain_s)
        grpc = await start_grpc(
            engine,
            f"{settings.host}:{settings.grpc_port}",
            max_message_bytes=2 * settings.max_image_bytes,
            window=settings.window,
        )
        stack.push_async_callback(grpc.stop, settings.drain_s)
        addresses = {
            "http": f"http://{settings.host}:{rest.port}",
            "grpc": f"{settings.host}:{grpc.port}",
            "pid": os.getpid(),
        }
        _publish(settings.data_dir / ADDRESS_FILE, addresses)
        stack.callback((settings.data_dir / ADDRESS_FILE).unlink, missing_ok=True)
        _log.info(
            "ready",
            extra=addresses | {"model": runtime.info.name, "seconds": round(time.monotonic() - started, 2)},
        )
        await stop.wait()
        _log.info("stopping: sessions are committed, streams end")


def _publish(path: Path, addresses: dict[str, object]) -> None:
    """Written whole or not at all: whoever waits for the file reads it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(addresses) + "\n")
    partial.replace(path)
