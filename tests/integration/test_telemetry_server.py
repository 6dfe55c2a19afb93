"""What an operator sees of a real server: its metrics, its log, its traces."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from tests.fakes.otlp import Collector, attributes
from tests.integration.server_process import ServerProcess, eventually, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle

DOCS = Path(__file__).resolve().parents[2] / "docs" / "TELEMETRY.md"
TRACE, ABOVE = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{ABOVE}-01", "x-request-id": "from-outside"}
TRACK = "s2spp.v1.Segmentation/Track"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def server(
    tmp_path: Path, tiny: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    monkeypatch.setenv("S2SPP_LOG_LEVEL", "debug")
    monkeypatch.setenv("S2SPP_LOG_FORMAT", "json")
    with ServerProcess(tmp_path / "data", str(tiny), threads=1) as server:
        yield server


def over_rest(server: ServerProcess, frames: list[bytes], mask: bytes) -> str:
    """A session of one strict frame."""
    files = {"frame": ("f.jpg", frames[0]), "mask": ("m.png", mask)}
    session: str = server.client.post("/v1/sessions", files=files).json()["session"]
    answer = server.client.post(f"/v1/sessions/{session}/frames/1", content=frames[1], headers=HEADERS)
    assert answer.status_code == 200 and answer.headers["x-request-id"] == HEADERS["x-request-id"]
    return session


def over_grpc(server: ServerProcess, frames: list[bytes], mask: bytes) -> str:
    """A stream, its second frame no image."""
    sent = [
        pb.TrackRequest(open=pb.OpenSession(frame=pb.Image(data=frames[0]), mask=pb.Image(data=mask))),
        *(
            pb.TrackRequest(frame=pb.Frame(frame_index=index, image=pb.Image(data=data)))
            for index, data in enumerate((frames[1], b"no image", frames[2]), start=1)
        ),
    ]
    with grpc.insecure_channel(server.grpc) as channel:
        call = segmentation_pb2_grpc.SegmentationStub(channel).Track(iter(sent), metadata=tuple(HEADERS.items()))
        answers = list(call)
        assert dict(call.initial_metadata())["x-request-id"] == HEADERS["x-request-id"]
    assert [answer.WhichOneof("event") for answer in answers] == ["session", "mask", "error", "mask"]
    return str(answers[0].session.session_id)


def metrics(server: ServerProcess) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(server.client.get("/metrics").text)}


def value(found: dict[str, Any], name: str, **labels: str) -> float:
    samples = (each for family in found.values() for each in family.samples)
    (sample,) = [each for each in samples if each.name == name and each.labels == labels]
    return float(sample.value)


def log_lines(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


def test_the_metrics_after_a_few_frames_are_those_of_the_documentation(server: ServerProcess) -> None:
    frames, mask = make_clip(3)
    session = over_rest(server, frames, mask)
    over_grpc(server, frames, mask)
    with connect(f"{server.http.replace('http', 'ws', 1)}/v1/sessions/{session}/stream") as socket:
        socket.send(frames[2])
        socket.recv(), socket.recv()
        assert value(metrics(server), "s2spp_streams_open", transport="websocket") == 1
    assert server.client.delete(f"/v1/sessions/{session}").status_code == 204
    found = metrics(server)
    assert value(found, "s2spp_sessions_total", event="opened") == 2
    assert value(found, "s2spp_sessions_total", event="deleted") == 1
    assert (value(found, "s2spp_sessions_in_memory"), value(found, "s2spp_sessions_capacity")) == (1, 64)
    for stage in ("decode", "queue", "compute", "encode", "total"):
        assert value(found, "s2spp_frame_seconds_count", stage=stage) == 4
    stages = sum(value(found, "s2spp_frame_seconds_sum", stage=stage) for stage in ("decode", "compute", "encode"))
    assert 0 < stages < value(found, "s2spp_frame_seconds_sum", stage="total") < 60
    assert value(found, "s2spp_frame_failures_total", reason="UNSUPPORTED_MEDIA") == 1
    stored = value(found, "s2spp_commit_seconds_count", result="stored")
    assert value(found, "s2spp_commit_age_seconds_count", result="stored") == stored >= 1
    assert value(found, "s2spp_store_seconds_count", operation="save", result="ok") == stored + 2
    route = "POST /v1/sessions/{session}/frames/{index}"
    assert value(found, "s2spp_requests_total", transport="rest", route=route, status="200") == 1
    assert value(found, "s2spp_requests_total", transport="grpc", route=f"/{TRACK}", status="OK") == 1
    documented = set(re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCS.read_text(), re.MULTILINE))
    counters = {name for name, family in found.items() if family.type == "counter"}
    assert documented == {(name + "_total" * (name in counters), family.type) for name, family in found.items()}


def test_the_log_names_request_session_and_trace_of_each_line(server: ServerProcess) -> None:
    frames, mask = make_clip(3)
    sessions = {over_rest(server, frames, mask), over_grpc(server, frames, mask)}
    wanted = {"/frames/1", TRACK}

    def ended() -> list[dict[str, Any]] | None:
        found = [line for line in log_lines(server) if line["event"].endswith(tuple(wanted))]
        return found if len(found) == 2 else None

    calls = eventually(ended)
    assert {line["session"] for line in calls} == sessions
    assert {line["status"] for line in calls} == {"200", "OK"}
    for line in calls:
        assert (line["request"], line["trace"], line["level"]) == (HEADERS["x-request-id"], TRACE, "debug")


def test_traces_reach_the_collector_below_the_callers_own(server: ServerProcess, collector: Collector) -> None:
    frames, mask = make_clip(3)
    over_rest(server, frames, mask)
    session = over_grpc(server, frames, mask)
    assert server.stop() == 0, server.log.read_text()  # what is left is sent then
    assert collector.resource["service.name"] == "s2spp"
    (post,) = collector.named("POST /v1/sessions/{session}/frames/{index}")
    (stream,) = collector.named(TRACK)
    for call in (post, stream):
        assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, ABOVE)
        assert attributes(call)["s2spp.request"] == HEADERS["x-request-id"]
    assert attributes(stream)["s2spp.session"] == session
    assert attributes(post)["http.response.status_code"] == 200
    assert [event.name for event in stream.events] == ["frame failed"]
    assert [span.name for span in collector.below(post)] == ["frame", "commit"]
    tracked = [span for span in collector.below(stream) if span.name == "frame"]
    assert len(tracked) == 2 and {attributes(frame)["s2spp.session"] for frame in tracked} == {session}
    for frame in (*tracked, collector.below(post)[0]):
        stages = collector.below(frame)
        assert [span.name for span in stages] == ["decode", "queue", "compute", "encode"]
        marks = [frame.start_time_unix_nano, *(span.start_time_unix_nano for span in stages)]
        assert marks == sorted(marks) and stages[-1].end_time_unix_nano <= frame.end_time_unix_nano
    opening = collector.named("POST /v1/sessions")
    assert len(opening) == 1 and not opening[0].parent_span_id, "no caller named a trace there"
    assert not [span for span in collector.spans if "metrics" in span.name or "ealth" in span.name]
