"""What a log line carries and what the metrics count."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from service.core.ports import FrameTimes
from service.telemetry import RequestContext, Telemetry, configure_logging


def samples(telemetry: Telemetry) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(telemetry.render().decode())
    return {
        (sample.name, ",".join(f"{key}={value}" for key, value in sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_sessions_and_frames_are_counted() -> None:
    telemetry = Telemetry()
    telemetry.session_opened()
    telemetry.session_opened()
    telemetry.session_expired()
    telemetry.sessions_in_memory(5)
    telemetry.frame_answered(FrameTimes(decode_s=0.25, queue_s=0.5, compute_s=1.0, encode_s=2.0))
    telemetry.frame_failed("INVALID_IMAGE")
    telemetry.commit_ended(0.125, stored=False)
    telemetry.batch_ran(frames=2, objects=7)
    found = samples(telemetry)
    assert found["s2spp_sessions_total", "event=opened"] == 2
    assert found["s2spp_sessions_total", "event=expired"] == 1
    assert found["s2spp_sessions_in_memory", ""] == 5
    assert found["s2spp_frame_failures_total", "reason=INVALID_IMAGE"] == 1
    assert found["s2spp_commit_seconds_count", "result=failed"] == 1
    assert found["s2spp_batch_size_sum", "of=objects"] == 7
    stages = ("decode", "queue", "compute", "encode", "total")
    assert [found["s2spp_frame_seconds_sum", f"stage={stage}"] for stage in stages] == [0.25, 0.5, 1, 2, 3.75]
    assert found["process_resident_memory_bytes", ""] > 1e6


def test_two_engines_in_one_process_count_apart() -> None:
    one, other = Telemetry(), Telemetry()
    one.session_opened()
    assert ("s2spp_sessions_total", "event=opened") not in samples(other)


@pytest.fixture
def root_logger() -> Iterator[None]:
    root, uvicorn = logging.getLogger(), logging.getLogger("uvicorn")
    kept = root.handlers[:], root.level, uvicorn.level
    yield
    root.handlers[:], _, _ = kept
    root.setLevel(kept[1])
    uvicorn.setLevel(kept[2])


async def test_log_lines_of_a_request_name_it_and_its_session(
    root_logger: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("debug", "json")

    async def work(request: Request) -> PlainTextResponse:
        logging.getLogger("service.somewhere").info("working on %s", "it", extra={"frame": 3})
        return PlainTextResponse("done")

    app = RequestContext(Starlette(routes=[Route("/v1/sessions/{session}", work)]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/v1/sessions/S123")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    work_line = next(line for line in lines if line["event"] == "working on it")
    request_line = next(line for line in lines if line["event"] == "GET /v1/sessions/S123")
    assert work_line["request"] == answer.headers["x-request-id"] == request_line["request"]
    assert (work_line["session"], work_line["frame"], work_line["level"]) == ("S123", 3, "info")
    assert request_line["status"] == 200


def test_a_trace_fits_on_one_json_line(root_logger: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    try:
        np.zeros(2).reshape(3)
    except ValueError:
        logging.getLogger("service").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot reshape" in json.loads(line)["exception"]


def test_below_the_level_nothing_is_said(root_logger: None, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "console")
    logging.getLogger("service").info("quiet")
    logging.getLogger("service").warning("loud")
    said = capsys.readouterr().err
    assert "loud" in said and "quiet" not in said
