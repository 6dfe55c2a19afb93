"""What a server offers beside its service: health, reflection, limits, an end with grace."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from s2spp.v1 import segmentation_pb2 as pb
from service.client.errors import error_from_status
from service.core.errors import Unavailable
from service.transport.grpc import GrpcServer, start_grpc
from tests.fakes.engine import FakeEngine
from tests.fakes.messages import create_request, frame_request, open_request, raw_image
from tests.fakes.waiting import PATIENCE_S, until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(channel: grpc.aio.Channel, service: str) -> Any:
    stub = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def health_becomes(channel: grpc.aio.Channel, wanted: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await health(channel, "s2spp.v1.Segmentation") != wanted:
            await asyncio.sleep(0.01)


async def test_health_of_the_service_follows_the_engine_and_the_process_stays_alive(
    engine: FakeEngine, channel: grpc.aio.Channel
) -> None:
    assert await health(channel, "s2spp.v1.Segmentation") == SERVING
    engine.failure = Unavailable("the store is away")
    await health_becomes(channel, NOT_SERVING)
    assert await health(channel, "") == SERVING
    engine.failure = RuntimeError("a defect")
    await health_becomes(channel, NOT_SERVING)
    engine.failure = None
    await health_becomes(channel, SERVING)


async def test_a_server_that_starts_without_its_store_never_says_serving(engine: FakeEngine) -> None:
    engine.failure = Unavailable("the store is away")
    server = await start_grpc(engine)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            assert await health(channel, "s2spp.v1.Segmentation") == NOT_SERVING
    finally:
        await server.stop(0)


async def test_reflection_lists_and_describes_the_service(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="s2spp.v1.Segmentation"),
    ]
    listed, described = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert {"s2spp.v1.Segmentation", "grpc.health.v1.Health"} <= names
    assert described.file_descriptor_response.file_descriptor_proto


async def test_a_message_beyond_the_limit_is_refused_and_the_server_goes_on(stub: Any) -> None:
    request = create_request()
    request.frame.CopyFrom(raw_image(0, 1000, 1000))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateSession(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await stub.CreateSession(create_request())).session.next_frame == 1


async def test_a_taken_port_is_an_error(engine: FakeEngine, server: GrpcServer) -> None:
    with pytest.raises(OSError, match=str(server.port)):
        await start_grpc(engine, f"127.0.0.1:{server.port}")


async def test_stopping_answers_what_is_under_way_says_where_to_resume_and_takes_nothing_new(
    engine: FakeEngine, server: GrpcServer, stub: Any
) -> None:
    engine.hold(1)
    call = stub.Track(timeout=PATIENCE_S)
    await call.write(open_request())
    await call.write(frame_request(1))
    await until(lambda: engine.in_flight == 1)
    stopping = asyncio.create_task(server.stop(PATIENCE_S))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await stub.GetModel(pb.GetModelRequest(), timeout=1)
            except grpc.aio.AioRpcError as refused:
                if refused.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue  # it came through the door as that was shut, and grpc.aio answers it when the server ends
                # CANCELLED: the call came in the moment in which the door was being closed.
                assert refused.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
                break
    engine.unhold(1)
    events = []
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async for event in call:
            events.append(event)
    assert events[-1].mask.frame_index == 1
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    error = error_from_status(rpc_status.from_call(ended.value))
    assert error.metadata == {"session": events[0].session.session_id, "next_frame": "2"}
    await stopping


async def test_a_stream_that_is_handed_over_answers_what_it_has_read_and_says_where_to_go_on(
    engine: FakeEngine, server: GrpcServer, stub: Any
) -> None:
    assert not server.hand_over(), "there is none"
    engine.hold(1)
    engine.hold(2)
    calls = [stub.Track(timeout=PATIENCE_S) for _ in range(2)]
    for number, call in enumerate(calls):
        await call.write(open_request())
        await call.write(frame_request(1))
        await until(lambda wanted=number + 1: engine.in_flight == wanted)  # type: ignore[misc]
    await calls[0].write(frame_request(2))
    await until(lambda: engine.in_flight == 3)
    assert server.hand_over()
    assert not server.hand_over(), "one after the other"
    engine.unhold(1)
    engine.unhold(2)
    for call in reversed(calls):
        events = []
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for event in call:
                events.append(event)
        error = error_from_status(rpc_status.from_call(ended.value))
        session = events[0].session.session_id
        next_frame = "2" if call is calls[1] else "3"
        assert error.metadata == {"session": session, "next_frame": next_frame, "handed_over": "true"}
        assert server.hand_over() == (call is calls[1]), "then the one that had more under way"
    assert (await stub.GetModel(pb.GetModelRequest())).name, "the server goes on"


async def test_stopping_cancels_what_outlasts_the_grace(engine: FakeEngine, server: GrpcServer, stub: Any) -> None:
    engine.hold(1)
    call = stub.Track(timeout=PATIENCE_S)
    await call.write(open_request())
    await call.write(frame_request(1))
    await until(lambda: engine.in_flight == 1)
    async with asyncio.timeout(PATIENCE_S):
        await server.stop(0)
    await until(lambda: engine.in_flight == 0)
    assert engine.cancelled == 1
