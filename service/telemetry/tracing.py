"""OpenTelemetry spans, sent by OTLP over HTTP. Imported only where an endpoint is set: the packages are an extra.

A frame's spans are made when its answer is: the engine tells when each stage began and ended, and knows nothing of
spans. Whose they are is told by the context, which a call hands down to all that it starts."""

from __future__ import annotations

import time
from collections.abc import Mapping

from opentelemetry import context, propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode

from service.core.call import Call, current_call
from service.core.ports import CommitResult, FrameTimes
from service.telemetry.record import CallRecord

_PATH = "/v1/traces"


class Traces:
    """Spans of this process. The sampler (OTEL_TRACES_SAMPLER), headers, batches and more of the resource are read by
    the SDK from its standard variables."""

    def __init__(self, endpoint: str, version: str) -> None:
        """`endpoint`: of the collector, as in OTEL_EXPORTER_OTLP_ENDPOINT: `/v1/traces` is added."""
        own = Resource.create({"service.name": "s2spp", "service.version": version})
        # What the operator says goes before what is known here.
        self._provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()))
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + _PATH)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("s2spp", version)

    def begin(self, name: str, headers: Mapping[str, str]) -> Span:
        """A call's span, below the caller's (W3C `traceparent`), and that of all this task does from here on."""
        above = propagate.extract(headers)
        span = self._tracer.start_span(name, above, SpanKind.SERVER)
        context.attach(trace.set_span_in_context(span, above))
        return span

    @staticmethod
    def trace_id(span: Span) -> str:
        return trace.format_trace_id(span.get_span_context().trace_id)

    @staticmethod
    def end(span: Span, record: CallRecord, call: Call) -> None:
        span.update_name(record.name)
        span.set_attributes({**record.attributes, "s2spp.request": call.request})
        if call.session is not None:
            span.set_attribute("s2spp.session", call.session)
        if record.failed:
            span.set_status(StatusCode.ERROR, record.status)
        span.end()

    def frame_answered(self, times: FrameTimes) -> None:
        # Stages are told in readings of the clock that never jumps.
        shift = time.time() - time.perf_counter()

        def at(reading: float) -> int:
            return int((reading + shift) * 1e9)

        span = self._tracer.start_span("frame", start_time=at(times.total.began))
        if span.is_recording():
            span.set_attributes({"s2spp.frame_index": times.frame_index, **_session()})
            below = trace.set_span_in_context(span)
            for stage, period in times.stages().items():
                self._tracer.start_span(stage, below, start_time=at(period.began)).end(at(period.ended))
        span.end(at(times.total.ended))

    @staticmethod
    def frame_failed(reason: str) -> None:
        trace.get_current_span().add_event("frame failed", {"s2spp.reason": reason})

    def commit_ended(self, seconds: float, result: CommitResult, age_s: float | None) -> None:
        now = time.time()
        span = self._tracer.start_span("commit", start_time=int((now - seconds) * 1e9))
        span.set_attributes(_session())
        if age_s is not None:
            span.set_attribute("s2spp.age_s", age_s)
        if result != "stored":
            span.set_status(StatusCode.ERROR)
        span.end(int(now * 1e9))

    def close(self) -> None:
        """Sends what is left. Blocks for as long as the exporter may take."""
        self._provider.shutdown()


def _session() -> dict[str, str]:
    call = current_call()
    return {} if call is None or call.session is None else {"s2spp.session": call.session}
