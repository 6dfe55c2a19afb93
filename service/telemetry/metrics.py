"""Prometheus metrics. docs/TELEMETRY.md lists them; a test compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from service.core.ports import CommitResult, FrameTimes

if TYPE_CHECKING:  # OpenTelemetry is not always there
    from service.telemetry.tracing import Traces

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_AGE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BATCH = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)

# A second series for each one, which nobody reads.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Telemetry:
    """What is known of one engine (it is its EngineObserver) and of the calls to it: metrics in a registry of their
    own, and spans where there are `traces`."""

    def __init__(self, traces: Traces | None = None) -> None:
        self.traces = traces
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own: dict[str, Any] = {"registry": self._registry}
        timed = {**own, "buckets": _SECONDS}
        self._sessions = Counter("s2spp_sessions", "What became of sessions", ["event"], **own)
        self._in_memory = Gauge("s2spp_sessions_in_memory", "Sessions whose state is in memory", **own)
        self._capacity = Gauge("s2spp_sessions_capacity", "Sessions that may be in memory at a time", **own)
        self._stages = Histogram("s2spp_frame_seconds", "Seconds per answered frame", ["stage"], **timed)
        self._failures = Counter("s2spp_frame_failures", "Frames answered with an error", ["reason"], **own)
        self._dropped = Counter("s2spp_frames_dropped", "Frames of live streams that were not stepped", **own)
        self._batch = Histogram("s2spp_batch_size", "Size of a model run", ["of"], buckets=_BATCH, **own)
        self._commits = Histogram("s2spp_commit_seconds", "Seconds per save", ["result"], **timed)
        self._ages = Histogram(
            "s2spp_commit_age_seconds",
            "Age of the oldest answered frame that a save covered, when the save ended",
            ["result"],
            buckets=_AGE_SECONDS,
            **own,
        )
        self._store = Histogram(
            "s2spp_store_seconds", "Seconds per request to the session store", ["operation", "result"], **timed
        )
        self._calls = Counter(
            "s2spp_requests", "Requests and streams that have ended", ["transport", "route", "status"], **own
        )
        self._moves = Counter("s2spp_streams_moved", "Streams that went on at another worker", **own)
        self._again = Counter("s2spp_frames_sent_again", "Frames and changes that another worker was sent anew", **own)
        self._streams = Gauge("s2spp_streams_open", "Streams that are open", ["transport"], **own)
        self._name_series()

    def _name_series(self) -> None:
        """From the start, at zero: what appears with its first event cannot be told from what is missing."""
        for event in ("opened", "restored", "resumed", "parked", "expired", "deleted"):
            self._sessions.labels(event)
        for result in ("stored", "failed", "refused"):
            self._commits.labels(result)
            self._ages.labels(result)
        for transport in ("websocket", "grpc"):
            self._streams.labels(transport)

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

    def sessions_capacity(self, count: int) -> None:
        self._capacity.set(count)

    def frame_answered(self, times: FrameTimes) -> None:
        for stage, period in times.stages().items():
            self._stages.labels(stage).observe(period.seconds)
        self._stages.labels("total").observe(times.total.seconds)
        if self.traces is not None:
            self.traces.frame_answered(times)

    def frame_failed(self, reason: str) -> None:
        self._failures.labels(reason).inc()
        if self.traces is not None:
            self.traces.frame_failed(reason)

    def frame_dropped(self) -> None:
        self._dropped.inc()

    def stream_moved(self, sent_again: int) -> None:
        self._moves.inc()
        self._again.inc(sent_again)

    def commit_ended(self, seconds: float, result: CommitResult, age_s: float | None) -> None:
        self._commits.labels(result).observe(seconds)
        if age_s is not None:
            self._ages.labels(result).observe(age_s)
        if self.traces is not None:
            self.traces.commit_ended(seconds, result, age_s)

    def batch_ran(self, frames: int, objects: int) -> None:
        self._batch.labels("frames").observe(frames)
        self._batch.labels("objects").observe(objects)

    def store_answered(self, operation: str, result: str, seconds: float) -> None:
        self._store.labels(operation, result).observe(seconds)

    def stream_opened(self, transport: str) -> None:
        self._streams.labels(transport).inc()

    def stream_closed(self, transport: str) -> None:
        self._streams.labels(transport).dec()

    def call_ended(self, transport: str, route: str, status: str) -> None:
        """`route`: a template or a method's full name, never a path; it is a label."""
        self._calls.labels(transport, route, status).inc()
