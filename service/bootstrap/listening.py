"""Ports that are listened on: REST and gRPC over an engine, and where they are."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.bootstrap.parts import CannotServe
from service.core.ports import Engine
from service.settings import Settings, variable

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from service.telemetry import Telemetry
    from service.transport.http import Stopping

_log = logging.getLogger(__name__)
ADDRESSES = "server.json"
# Beyond the time that running requests get: for a transport to end by itself.
_OVERDUE_S = 5.0
# A video's sender or reader that pauses longer is let go: there are few places.
_STALL_S = 60.0
# Beside images a message has a few fields, and one only somewhat too large is still told the reason.
_MESSAGE_OVERHEAD = 1 << 20


@dataclass(frozen=True)
class Listening:
    """`http`, `grpc`: the addresses that a client on this machine uses. `elsewhere`: what to say of others'.
    `hand_over`: see GrpcServer."""

    http: str
    grpc: str
    elsewhere: str
    hand_over: Callable[[], bool]

    @property
    def places(self) -> str:
        """For the log."""
        return f"REST {self.http} (try {self.http}/docs), gRPC {self.grpc}{self.elsewhere}"


def import_transports() -> None:
    """What `listening` needs, beforehand: half a second, in which a model can load in another thread."""
    import service.transport.grpc
    import service.transport.rest  # noqa: F401


@asynccontextmanager
async def listening(
    settings: Settings, engine: Engine, telemetry: Telemetry, *, worker: bool = False
) -> AsyncIterator[Listening]:
    """REST and gRPC over `engine`. `worker`: gRPC is for gateways, which say who their caller is, and HTTP for those
    who watch."""
    from service.telemetry import CallRecorder, RecordedApp, RecordingInterceptor
    from service.transport.grpc import start_grpc
    from service.transport.http import Stopping, create_operations_app, start_http

    largest = settings.max_image_bytes + _MESSAGE_OVERHEAD
    app: ASGIApp
    stopping = Stopping()
    if worker:
        app = create_operations_app(engine, telemetry.render)
    else:
        app = _public_app(settings, engine, telemetry, stopping)
    listen = f"[{settings.host}]" if ":" in settings.host else settings.host
    local = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(listen, listen)
    recorder = CallRecorder(telemetry)
    with _settled_by("http_port"):
        http = await start_http(
            RecordedApp(app, recorder), settings.host, settings.http_port, max_message_bytes=largest, stopping=stopping
        )
    try:
        with _settled_by("grpc_port"):
            grpc = await start_grpc(
                engine,
                f"{listen}:{settings.grpc_port}",
                max_message_bytes=2 * largest,  # opening sends a frame and a mask
                window=settings.window,
                interceptors=[RecordingInterceptor(recorder)],
                callers_are_gateways=worker,
            )
    except BaseException:
        await http.stop(0)
        raise
    try:
        elsewhere = "" if local == listen else "; from elsewhere by this machine's name, at the same ports"
        yield Listening(f"http://{local}:{http.port}", f"{local}:{grpc.port}", elsewhere, grpc.hand_over)
    finally:
        await stopped(settings.drain_s, http.stop(settings.drain_s), grpc.stop(settings.drain_s))


@contextmanager
def _settled_by(port: str) -> Iterator[None]:
    """Names the settings of an address that cannot be listened on."""
    try:
        yield
    except OSError as error:
        options = f"--host and --{port.replace('_', '-')}"
        raise CannotServe(f"{error}; choose another with {options} ({variable('host')}, {variable(port)})") from error


def _public_app(settings: Settings, engine: Engine, telemetry: Telemetry, stopping: Stopping) -> ASGIApp:
    from service.transport.rest import VideoBounds, create_app, open_to_pages

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
        stopping=stopping,
    )
    return open_to_pages(app, settings.cors_origins) if settings.cors_origins else app


async def stopped(drain_s: float, *stops: Coroutine[Any, Any, None]) -> None:
    """A transport that does not end in its time keeps neither sessions from being committed nor the process alive."""
    done, hung = await asyncio.wait([asyncio.create_task(stop) for stop in stops], timeout=drain_s + _OVERDUE_S)
    for task in hung:
        _log.warning("a server did not stop within %g seconds; it is left behind", drain_s + _OVERDUE_S)
        task.cancel()
    for task in done:
        task.result()


@contextmanager
def announced(data_dir: Path, at: Listening) -> Iterator[None]:
    """`server.json`, for those who start a server on port 0 and have to find it. It appears whole."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = data_dir / ADDRESSES
    draft = path.with_suffix(".partial")
    draft.write_text(json.dumps({"pid": os.getpid(), "http": at.http, "grpc": at.grpc}))
    draft.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
