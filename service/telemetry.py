"""Logs and metrics. Rooms log through the standard library; what a line looks like is decided here."""

from __future__ import annotations

import logging
import secrets
import sys
import time
from typing import Any, Literal

import numpy as np
import structlog
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.ports import FrameTimes, Runtime, StepResult
from service.core.types import ModelInfo, State

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_BATCH = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
_log = logging.getLogger(__name__)


def configure_logging(level: str, style: Literal["console", "json"]) -> None:
    """Every record of the process to stderr, with the request and the session that it belongs to."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    render: list[structlog.types.Processor]
    if style == "json":
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        render = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for talkative in ("uvicorn", "asyncio", "websockets"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


class RequestContext:
    """ASGI: names each request (`X-Request-Id`), and binds that name and its path's session to its log lines.

    Nothing is unbound: the server runs each request in a task of its own, and logs there what was raised."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        request = secrets.token_hex(8)
        bound = {"request": request}
        match scope["path"].split("/"):
            case ["", "v1", "sessions", session, *_]:
                bound["session"] = session
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**bound)
        started, status = time.perf_counter(), 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] in (
                "http.response.start",
                "websocket.accept",
                "websocket.http.response.start",
            ):
                status = message.get("status", 101)
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request.encode())]
            await send(message)

        try:
            await self._app(scope, receive, named)
        finally:
            took_ms = round((time.perf_counter() - started) * 1e3, 1)
            what = f"{scope.get('method', 'WS')} {scope['path']}"
            _log.debug("%s", what, extra={"status": status, "took_ms": took_ms})


class Telemetry:
    """Prometheus metrics of one engine (an EngineObserver), in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own: dict[str, Any] = {"registry": self._registry}
        timed = {**own, "buckets": _SECONDS}
        self._sessions = Counter("s2spp_sessions", "What became of sessions", ["event"], **own)
        self._in_memory = Gauge("s2spp_sessions_in_memory", "Sessions whose state is in memory", **own)
        self._failures = Counter("s2spp_frame_failures", "Frames answered with an error", ["reason"], **own)
        self._dropped = Counter("s2spp_frames_dropped", "Realtime frames that a newer one overtook", **own)
        self._stages = Histogram("s2spp_frame_seconds", "Seconds per answered frame", ["stage"], **timed)
        self._commits = Histogram("s2spp_commit_seconds", "Seconds per save", ["result"], **timed)
        self._batch = Histogram("s2spp_batch_size", "Size of a model run", ["of"], buckets=_BATCH, **own)

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)

    def session_opened(self) -> None:
        self._sessions.labels("opened").inc()

    def session_restored(self) -> None:
        self._sessions.labels("restored").inc()

    def session_resumed(self) -> None:
        self._sessions.labels("resumed").inc()

    def session_parked(self) -> None:
        self._sessions.labels("parked").inc()

    def session_expired(self) -> None:
        self._sessions.labels("expired").inc()

    def session_deleted(self) -> None:
        self._sessions.labels("deleted").inc()

    def sessions_in_memory(self, count: int) -> None:
        self._in_memory.set(count)

    def frame_answered(self, times: FrameTimes) -> None:
        stages = {
            "decode": times.decode_s,
            "queue": times.queue_s,
            "compute": times.compute_s,
            "encode": times.encode_s,
        }
        for stage, seconds in (stages | {"total": sum(stages.values())}).items():
            self._stages.labels(stage).observe(seconds)

    def frame_dropped(self) -> None:
        self._dropped.inc()

    def frame_failed(self, reason: str) -> None:
        self._failures.labels(reason).inc()

    def commit_ended(self, seconds: float, stored: bool) -> None:
        self._commits.labels("stored" if stored else "failed").observe(seconds)

    def batch_ran(self, frames: int, objects: int) -> None:
        self._batch.labels("frames").observe(frames)
        self._batch.labels("objects").observe(objects)


class MeasuredRuntime:
    """A Runtime that tells how large its batches are."""

    def __init__(self, runtime: Runtime, telemetry: Telemetry) -> None:
        self._runtime, self._telemetry = runtime, telemetry

    @property
    def info(self) -> ModelInfo:
        return self._runtime.info

    def initialise(self, frames: NDArray[np.uint8], masks: NDArray[np.uint8], frame_row: NDArray[np.int64]) -> State:
        return self._runtime.initialise(frames, masks, frame_row)

    def step(self, frames: NDArray[np.uint8], frame_row: NDArray[np.int64], state: State) -> StepResult:
        self._telemetry.batch_ran(len(frames), len(frame_row))
        return self._runtime.step(frames, frame_row, state)
