"""Spans as a collector gets them."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from service.bootstrap import CannotServe, serve
from service.core.call import about
from service.core.ports import FrameTimes, Period
from service.core.types import SessionId
from service.settings import Settings, SettingsError
from service.telemetry import CallRecorder, Telemetry
from service.telemetry.tracing import Traces
from tests.fakes.otlp import Collector, attributes

ABOVE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def one_frame() -> FrameTimes:
    now = time.perf_counter()
    marks = [now - 1 + tenth / 10 for tenth in range(11)]
    return FrameTimes(
        7,
        Period(marks[0], marks[10]),
        Period(marks[1], marks[2]),
        Period(marks[2], marks[3]),
        Period(marks[4], marks[5]),
        Period(marks[5], marks[8]),
        Period(marks[8], marks[9]),
    )


def one_call(telemetry: Telemetry, headers: dict[str, str]) -> None:
    """A call with a frame, a frame that fails, a commit that fails; in a context of its own."""

    def call() -> None:
        with CallRecorder(telemetry).record("grpc", "/a.B/C", headers, stream=True, traced=True) as record:
            about(SessionId("S1"))
            telemetry.frame_answered(one_frame())
            telemetry.frame_failed("INVALID_IMAGE")
            telemetry.commit_ended(0.25, result="failed", age_s=1.5)
            record.name, record.status, record.failed = "a.B/C", "INTERNAL", True
            record.attributes["rpc.system"] = "grpc"

    contextvars.copy_context().run(call)


def test_a_call_and_its_frames_and_commits(collector: Collector) -> None:
    traces = Traces(collector.endpoint + "/", "1.2.3")
    one_call(Telemetry(traces), {"traceparent": ABOVE, "x-request-id": "r1"})
    traces.close()
    assert collector.paths == {"/v1/traces"}
    assert collector.resource["service.name"] == "s2spp" and collector.resource["service.version"] == "1.2.3"
    assert {span.trace_id.hex() for span in collector.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    (server,) = collector.named("a.B/C")
    assert server.parent_span_id.hex() == "b7ad6b7169203331" and server.kind == server.SPAN_KIND_SERVER
    assert server.status.code == Status.STATUS_CODE_ERROR
    told = attributes(server)
    assert (told["s2spp.request"], told["s2spp.session"], told["rpc.system"]) == ("r1", "S1", "grpc")
    assert [event.name for event in server.events] == ["frame failed"]
    (frame,) = collector.named("frame")
    (commit,) = collector.named("commit")
    assert frame.parent_span_id == commit.parent_span_id == server.span_id
    assert commit.status.code == Status.STATUS_CODE_ERROR
    assert commit.end_time_unix_nano - commit.start_time_unix_nano == pytest.approx(0.25e9, abs=1e4)
    assert frame.end_time_unix_nano == pytest.approx(time.time_ns(), abs=60e9)
    stages = collector.below(frame)
    assert [span.name for span in stages] == ["decode", "features", "queue", "compute", "encode"]
    begun = [(span.start_time_unix_nano - frame.start_time_unix_nano) / 1e9 for span in stages]
    took = [(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 for span in stages]
    assert begun == pytest.approx([0.1, 0.2, 0.4, 0.5, 0.8], abs=1e-4)
    assert took == pytest.approx([0.1, 0.1, 0.1, 0.3, 0.1], abs=1e-4)


def test_the_standard_variables_of_the_sdk_hold(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "masks")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=here")
    traces = Traces(collector.endpoint, "1")
    one_call(Telemetry(traces), {})
    one_call(Telemetry(traces), {"traceparent": ABOVE})
    traces.close()
    assert len(collector.named("frame")) == 1, "the caller decides for its own trace"
    assert (collector.resource["service.name"], collector.resource["deployment.environment"]) == ("masks", "here")


def test_a_commit_that_no_call_caused_is_a_trace_of_its_own(collector: Collector) -> None:
    traces = Traces(collector.endpoint, "1")
    Telemetry(traces).commit_ended(0.1, result="stored", age_s=None)
    traces.close()
    (commit,) = collector.spans
    assert not commit.parent_span_id and commit.status.code != Status.STATUS_CODE_ERROR


def test_a_collector_that_is_away_holds_up_the_end_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    traces = Traces("http://127.0.0.1:9", "1")
    one_call(Telemetry(traces), {})
    began = time.monotonic()
    traces.close()
    assert time.monotonic() - began < 5


def test_without_an_endpoint_nothing_of_opentelemetry_is_loaded() -> None:
    code = (
        "import sys, service.bootstrap, service.telemetry, service.transport.rest, service.transport.grpc\n"
        "sys.exit(any(name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_without_the_packages_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "service.telemetry.tracing", None)
    settings = Settings.load(otlp_endpoint="http://there:4318")
    with pytest.raises(CannotServe, match=r"pip install 's2spp\[otel\]'.*unset S2SPP_OTLP_ENDPOINT"):
        asyncio.run(serve(settings))


def test_the_endpoint_has_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S2SPP_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert Settings.load().otlp_endpoint is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://standard:4318")
    assert Settings.load().otlp_endpoint == "http://standard:4318"
    monkeypatch.setenv("S2SPP_OTLP_ENDPOINT", "https://own")
    assert Settings.load().otlp_endpoint == "https://own"
    monkeypatch.setenv("S2SPP_OTLP_ENDPOINT", "there:4318")
    with pytest.raises(SettingsError, match="S2SPP_OTLP_ENDPOINT=there:4318"):
        Settings.load()
    monkeypatch.delenv("S2SPP_OTLP_ENDPOINT")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "there:4317")
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT=there:4317"):
        Settings.load()
