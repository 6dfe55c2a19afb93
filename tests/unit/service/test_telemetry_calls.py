"""Calls over real REST and gRPC servers: their ids, their log lines, their counts."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service.core.types import new_session_id
from service.telemetry import CallRecorder, RecordedApp, RecordingInterceptor, Telemetry, configure_logging
from service.transport.grpc import start_grpc
from service.transport.http import start_http
from service.transport.rest import create_app
from tests.fakes.engine import FakeEngine
from tests.fakes.messages import create_request, frame_request, open_request, raw_image
from tests.fakes.waiting import PATIENCE_S, until
from tests.unit.service.test_telemetry_metrics import samples

TRACK = "/s2spp.v1.Segmentation/Track"


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def http(engine: FakeEngine, telemetry: Telemetry) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(engine, max_image_bytes=1 << 20, metrics=telemetry.render, version="9")
    server = await start_http(RecordedApp(app, CallRecorder(telemetry)))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=PATIENCE_S) as client:
        yield client
    await server.stop(5)


@pytest.fixture
async def channel(engine: FakeEngine, telemetry: Telemetry) -> AsyncIterator[grpc.aio.Channel]:
    server = await start_grpc(engine, interceptors=[RecordingInterceptor(CallRecorder(telemetry))])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel
    await server.stop(0)


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    return segmentation_pb2_grpc.SegmentationStub(channel)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def requests(telemetry: Telemetry) -> dict[str, float]:
    return {labels: value for (name, labels), value in samples(telemetry).items() if name == "s2spp_requests_total"}


async def opened(http: httpx.AsyncClient) -> httpx.Response:
    frame, mask = raw_image(), create_request().mask.data
    files = {"frame": ("f", frame.data, "application/x-rgb8"), "mask": ("m.png", mask)}
    return await http.post("/v1/sessions", files=files, params={"height": 4, "width": 6})


@pytest.mark.parametrize(
    ("given", "kept"),
    [("trace-17.b_C", True), ("", False), ("x" * 65, False), ("two words", False), ('"quoted"', False)],
)
async def test_a_caller_may_name_its_request(http: httpx.AsyncClient, stub: Any, given: str, kept: bool) -> None:
    answer = await http.get("/v1/models", headers={"X-Request-Id": given})
    call = stub.GetModel(pb.GetModelRequest(), metadata=(("x-request-id", given),))
    told = dict(await call.initial_metadata())
    for name in (answer.headers["x-request-id"], told["x-request-id"]):
        assert (name == given) if kept else (len(name) == 16 and int(name, 16) >= 0)


async def test_calls_without_a_name_get_one_each(http: httpx.AsyncClient, stub: Any) -> None:
    names = {(await http.get("/v1/models")).headers["x-request-id"] for _ in range(3)}
    calls = [stub.GetModel(pb.GetModelRequest()) for _ in range(3)]
    names |= {dict(await call.initial_metadata())["x-request-id"] for call in calls}
    assert len(names) == 6


async def test_lines_of_a_grpc_stream_name_its_call_and_its_session(
    root_logger: None, capsys: pytest.CaptureFixture[str], engine: FakeEngine, stub: Any
) -> None:
    configure_logging("debug", "json")
    engine.frame_failures[1] = ZeroDivisionError("nobody foresaw this")
    call = stub.Track(iter([open_request(), frame_request(1)]), metadata=(("x-request-id", "mine"),))
    events = [event async for event in call]
    session = events[0].session.session_id
    assert events[1].error.status.code == grpc.StatusCode.INTERNAL.value[0]
    said = [line for line in lines(capsys) if line["logger"].startswith("service.")]
    (failure,) = [line for line in said if "ZeroDivisionError" in line.get("exception", "")]
    (ended,) = [line for line in said if line["event"] == TRACK]
    assert failure["level"] == "error" and "Traceback" in failure["exception"]
    for line in (failure, ended):
        assert (line["request"], line["session"]) == ("mine", session)
    assert (ended["level"], ended["status"]) == ("debug", "OK") and ended["took_ms"] > 0


async def test_lines_of_a_rest_request_name_it_and_its_session(
    root_logger: None, capsys: pytest.CaptureFixture[str], engine: FakeEngine, http: httpx.AsyncClient
) -> None:
    configure_logging("debug", "json")
    session = (await opened(http)).json()["session"]
    engine.frame_failures[1] = ZeroDivisionError("nobody foresaw this")
    answer = await http.post(f"/v1/sessions/{session}/frames/1", content=b"x", headers={"X-Request-Id": "mine"})
    assert answer.status_code == 500
    said = []

    def ended_twice() -> bool:
        said.extend(lines(capsys))
        return sum(line["event"].startswith("POST ") for line in said) == 2

    await until(ended_twice)  # a call's line comes once the answer has left
    (failure,) = [line for line in said if "ZeroDivisionError" in line.get("exception", "")]
    opening, ended = [line for line in said if line["event"].startswith("POST ")]
    assert opening["session"] == session, "known once the session is open"
    for line in (failure, ended):
        assert (line["request"], line["session"]) == ("mine", session)
    assert (ended["level"], ended["status"]) == ("debug", "500")


async def test_requests_are_counted_by_route_and_status(http: httpx.AsyncClient, telemetry: Telemetry) -> None:
    for path in ("/v1/models", "/v1/models", f"/v1/sessions/{new_session_id()}", "/nowhere/1", "/nowhere/2"):
        await http.get(path)
    await http.request("PROPFIND", "/v1/models")
    await until(lambda: sum(requests(telemetry).values()) == 6)  # counted once the answer has left
    assert requests(telemetry) == {
        "route=GET /v1/models,status=200,transport=rest": 2,
        "route=GET /v1/sessions/{session},status=404,transport=rest": 1,
        "route=other,status=404,transport=rest": 2,
        "route=other /v1/models,status=405,transport=rest": 1,
    }


async def test_web_sockets_are_counted_while_open_and_when_they_end(
    http: httpx.AsyncClient, telemetry: Telemetry
) -> None:
    session = (await opened(http)).json()["session"]
    address = str(http.base_url).replace("http", "ws", 1)
    async with connect(f"{address}/v1/sessions/{session}/stream") as socket:
        assert socket.response is not None and len(socket.response.headers["x-request-id"]) == 16
        assert samples(telemetry)["s2spp_streams_open", "transport=websocket"] == 1
    await until(lambda: samples(telemetry)["s2spp_streams_open", "transport=websocket"] == 0)
    with pytest.raises(InvalidStatus):
        await connect(f"{address}/v1/sessions/{new_session_id()}/stream")
    route = "route=WS /v1/sessions/{session}/stream"
    await until(lambda: requests(telemetry).get(f"{route},status=404,transport=websocket") == 1)
    assert requests(telemetry)[f"{route},status=101,transport=websocket"] == 1


async def test_grpc_calls_are_counted_while_open_and_when_they_end(
    channel: grpc.aio.Channel, stub: Any, telemetry: Telemetry
) -> None:
    call = stub.Track()
    await call.write(open_request())
    await call.read()
    assert samples(telemetry)["s2spp_streams_open", "transport=grpc"] == 1
    call.cancel()
    await until(lambda: samples(telemetry)["s2spp_streams_open", "transport=grpc"] == 0)
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.GetSession(pb.GetSessionRequest(session_id=new_session_id()))
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await channel.unary_unary("/s2spp.v1.Segmentation/Nothing")(b"")
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert requests(telemetry) == {
        f"route={TRACK},status=CANCELLED,transport=grpc": 1,
        "route=/s2spp.v1.Segmentation/GetSession,status=NOT_FOUND,transport=grpc": 1,
        "route=other,status=UNIMPLEMENTED,transport=grpc": 1,
        "route=/grpc.health.v1.Health/Check,status=OK,transport=grpc": 1,
    }


async def test_reflection_still_answers(channel: grpc.aio.Channel) -> None:
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    wanted = reflection_pb2.ServerReflectionRequest(list_services="")
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([wanted]))
    names = [service.name async for answer in call for service in answer.list_services_response.service]
    assert "s2spp.v1.Segmentation" in names


async def test_a_healthy_server_is_quiet(
    root_logger: None, capsys: pytest.CaptureFixture[str], http: httpx.AsyncClient, stub: Any
) -> None:
    configure_logging("info", "json")
    await opened(http)
    await stub.CreateSession(create_request())
    logging.getLogger("service").info("the only line")
    assert [line["event"] for line in lines(capsys) if line["logger"] != "httpx"] == ["the only line"]
