"""Every limit, set through the environment as an operator does, met over REST and gRPC on the real engine."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import grpc
import httpx
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image
from websockets.asyncio.client import connect

from s2spp import rle
from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service import bootstrap
from service.bootstrap.listening import listening
from service.settings import Settings
from service.telemetry import Telemetry
from tests.fakes.clock import FakeClock
from tests.fakes.runtime import FakeRuntime

FRAME = cv2.imencode(".png", np.full((24, 40, 3), 90, np.uint8))[1].tobytes()


def mask_png(objects: int = 1, height: int = 24, width: int = 40) -> bytes:
    labels = np.zeros((height, width), np.uint8)
    for number in range(1, objects + 1):
        labels[:, 3 * number : 3 * number + 2] = number
    return cv2.imencode(".png", labels)[1].tobytes()


@dataclass
class Served:
    rest: str
    grpc: str
    clock: FakeClock
    runtime: FakeRuntime
    http: httpx.AsyncClient
    stub: Any

    async def open_rest(self, frame: bytes = FRAME, mask: bytes | None = None, source: str = "127.0.0.1") -> Any:
        transport = httpx.AsyncHTTPTransport(local_address=source)
        async with httpx.AsyncClient(base_url=self.rest, transport=transport, timeout=20) as http:
            return await http.post("/v1/sessions", files={"frame": frame, "mask": mask or mask_png()})

    async def open_grpc(self, frame: bytes = FRAME, mask: bytes | None = None) -> str:
        """The session, or the reason why there is none."""
        request = pb.CreateSessionRequest(frame=pb.Image(data=frame), mask=pb.Image(data=mask or mask_png()))
        try:
            return str((await self.stub.CreateSession(request)).session.session_id)
        except grpc.aio.AioRpcError as error:
            return reason(error)


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return f"{error.code().name} {info.reason}"


Serve = Callable[..., Any]


@pytest.fixture
async def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    @asynccontextmanager
    async def served(**environment: object) -> AsyncIterator[Served]:
        for name, value in environment.items():
            monkeypatch.setenv(f"S2SPP_{name}", str(value))
        settings = Settings.load(http_port=0, grpc_port=0)
        clock, runtime = FakeClock(), FakeRuntime()
        async with (
            bootstrap.build_engine(settings, runtime=runtime, clock=clock) as engine,
            listening(settings, engine, Telemetry()) as at,
            httpx.AsyncClient(base_url=at.http, timeout=20) as http,
            grpc.aio.insecure_channel(at.grpc) as channel,
        ):
            stub = segmentation_pb2_grpc.SegmentationStub(channel)
            try:
                yield Served(at.http, at.grpc, clock, runtime, http, stub)
            finally:
                runtime.gate.set()

    return served


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


async def status_before_the_body(served: Served, path: str, content_type: str, length: int) -> int:
    """Of a request whose body never comes."""
    host, port = served.rest.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(20):
        status = int((await reader.readline()).split()[1])
    writer.close()
    return status


FORM = "multipart/form-data; boundary=b"


async def test_image_bytes(serve: Serve) -> None:
    async with serve(MAX_IMAGE_BYTES=2000) as served:
        session = (await served.open_rest()).json()["session"]
        noise = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (24, 40, 3), np.uint8))[1].tobytes()
        assert len(noise) > 2000
        assert told(await served.open_rest(frame=noise)) == (413, "INPUT_TOO_LARGE")
        assert told(await served.http.post(f"/v1/sessions/{session}/frames/1", content=noise)) == (
            413,
            "INPUT_TOO_LARGE",
        )
        assert await status_before_the_body(served, f"/v1/sessions/{session}/frames/1", "image/png", 2001) == 413
        assert await status_before_the_body(served, "/v1/sessions", FORM, 1 << 20) == 413
        assert await served.open_grpc(frame=noise) == "INVALID_ARGUMENT INPUT_TOO_LARGE"
        assert (await served.http.post(f"/v1/sessions/{session}/frames/1", content=FRAME)).status_code == 200


async def test_pixels_are_counted_before_they_are_decoded(serve: Serve) -> None:
    """What is sent has a header and nothing to decode: another error would tell that it was tried."""
    async with serve(MAX_PIXELS=24 * 40) as served:
        assert (await served.open_rest()).status_code == 201
        larger = bytearray(mask_png(height=25))
        start = larger.index(b"IDAT")
        larger[start - 4 :] = larger[-12:]
        assert told(await served.open_rest(frame=bytes(larger))) == (413, "INPUT_TOO_LARGE")
        assert told(await served.open_rest(mask=bytes(larger))) == (413, "INPUT_TOO_LARGE")
        assert await served.open_grpc(frame=bytes(larger)) == "INVALID_ARGUMENT INPUT_TOO_LARGE"


async def test_objects(serve: Serve) -> None:
    async with serve(MAX_OBJECTS=2) as served:
        opened = (await served.open_rest(mask=mask_png(2))).json()
        assert opened["object_ids"] == [1, 2]
        assert told(await served.open_rest(mask=mask_png(3))) == (422, "INVALID_MASK")
        assert await served.open_grpc(mask=mask_png(3)) == "INVALID_ARGUMENT INVALID_MASK"
        files = {"frame": FRAME, "mask": mask_png(3)}
        assert told(await served.http.post(f"/v1/sessions/{opened['session']}/objects", files=files)) == (
            422,
            "INVALID_MASK",
        )
        assert len(served.runtime.batches) == 1, "the model saw none of those"


async def test_255_objects_in_one_session(serve: Serve) -> None:
    """Every id there is, in the mask's bytes, its reports and its run lengths."""
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    labels = np.kron(ids, np.ones((8, 8), np.uint8))
    frame = cv2.imencode(".png", np.kron(ids, np.ones((8, 8), np.uint8))[..., None].repeat(3, 2))[1].tobytes()
    mask = cv2.imencode(".png", labels)[1].tobytes()
    everyone = list(range(1, 256))
    async with serve(MAX_OBJECTS=255) as served:
        opened = (await served.open_rest(frame=frame, mask=mask)).json()
        assert opened["object_ids"] == everyone
        answer = await served.http.post(f"/v1/sessions/{opened['session']}/frames/1", content=frame)
        assert [each["object_id"] for each in json.loads(answer.headers["S2spp-Objects"])] == everyone
        png = np.asarray(Image.open(io.BytesIO(answer.content)))
        assert png.shape == (128, 128) and len(np.unique(png)) > 100, "the model kept most of them apart"
        request = pb.CreateSessionRequest(
            frame=pb.Image(data=frame),
            mask=pb.Image(data=mask),
            options=pb.SessionOptions(mask_format=pb.MASK_FORMAT_RLE),
        )
        session = (await served.stub.CreateSession(request)).session.session_id
        segment = pb.SegmentFrameRequest(session_id=session, frame_index=1, image=pb.Image(data=frame))
        runs = json.loads((await served.stub.SegmentFrame(segment)).mask.data)
        assert [each["object_id"] for each in runs] == everyone
        again = np.zeros((128, 128), np.uint8)
        for each in runs:
            again[rle.decode(each["counts"], 128, 128)] = each["object_id"]
        assert np.array_equal(again, png)


async def test_sessions_in_all(serve: Serve) -> None:
    async with serve(MAX_SESSIONS=2) as served:
        assert (await served.open_rest()).status_code == 201
        assert len(await served.open_grpc()) == 32
        full = await served.open_rest(frame=b"not looked at")
        assert told(full) == (429, "OVERLOADED")
        assert full.headers["retry-after"] == "1" and float(full.json()["retry_after_s"]) > 0
        assert await served.open_grpc(frame=b"not looked at") == "RESOURCE_EXHAUSTED OVERLOADED"
        assert await status_before_the_body(served, "/v1/sessions", FORM, 5000) == 429
        served.clock.advance(2)
        assert (await served.open_rest()).status_code == 201


async def test_sessions_of_one_client(serve: Serve) -> None:
    async with serve(MAX_SESSIONS_PER_CLIENT=2) as served:
        assert (await served.open_rest()).status_code == 201
        assert len(await served.open_grpc()) == 32, "the same client, by whichever transport"
        assert told(await served.open_rest(frame=b"not looked at")) == (429, "OVERLOADED")
        assert await served.open_grpc(frame=b"not looked at") == "RESOURCE_EXHAUSTED OVERLOADED"
        assert await status_before_the_body(served, "/v1/sessions", FORM, 5000) == 429
        assert (await served.open_rest(source="127.0.0.2")).status_code == 201


async def test_a_deadline_ends_the_call_and_not_the_frame(serve: Serve) -> None:
    """The caller's own limit: what was taken goes on, and is there for who asks again."""
    async with serve() as served:
        session = await served.open_grpc()
        served.runtime.gate.clear()
        first = pb.SegmentFrameRequest(session_id=session, frame_index=1, image=pb.Image(data=FRAME))
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await served.stub.SegmentFrame(first, timeout=0.2)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        second = pb.Frame(frame_index=2, image=pb.Image(data=FRAME))
        track = served.stub.Track(
            iter([pb.TrackRequest(resume=pb.ResumeSession(session_id=session)), pb.TrackRequest(frame=second)]),
            timeout=0.3,
        )
        with pytest.raises(grpc.aio.AioRpcError) as late:
            [event async for event in track]
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        served.runtime.gate.set()
        assert (await served.stub.SegmentFrame(first)).mask.frame_index == 1
        requests = [pb.TrackRequest(resume=pb.ResumeSession(session_id=session), received_through=1)]
        async with asyncio.timeout(20):
            answered: list[int] = []
            while not answered:  # frame 2 may be under way yet
                events = [event async for event in served.stub.Track(iter(requests))]
                answered = [event.mask.frame_index for event in events if event.HasField("mask")]
        assert answered == [2]


async def test_window(serve: Serve) -> None:
    async with serve(WINDOW=2) as served:
        sessions = [(await served.open_rest()).json()["session"], await served.open_grpc()]
        served.runtime.gate.clear()
        requests = [
            pb.TrackRequest(resume=pb.ResumeSession(session_id=sessions[1])),
            *(pb.TrackRequest(frame=pb.Frame(frame_index=n, image=pb.Image(data=FRAME))) for n in range(1, 9)),
        ]
        track = served.stub.Track(iter(requests))
        await track.read()
        async with connect(f"{served.rest.replace('http', 'ws')}/v1/sessions/{sessions[0]}/stream") as socket:
            assert "session" in json.loads(await socket.recv())
            for _ in range(8):
                await socket.send(FRAME)

            async def under_way() -> list[int]:
                answers = [await served.http.get(f"/v1/sessions/{session}") for session in sessions]
                return [answer.json()["next_frame"] - 1 for answer in answers]

            while sum(await under_way()) < 4:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)  # whoever would read ahead has done so by now
            assert await under_way() == [2, 2]
            served.runtime.gate.set()
            for index in range(1, 9):
                assert json.loads(await socket.recv())["frame_index"] == index
                await socket.recv()
        assert [(await track.read()).mask.frame_index for _ in range(8)] == list(range(1, 9))


async def test_idle_time(serve: Serve) -> None:
    async with serve(IDLE_TIMEOUT_S=30) as served:
        session = (await served.open_rest()).json()["session"]
        served.clock.advance(29)
        assert (await served.http.post(f"/v1/sessions/{session}/frames/1", content=FRAME)).status_code == 200
        served.clock.advance(31)
        assert told(await served.http.post(f"/v1/sessions/{session}/frames/2", content=FRAME)) == (
            410,
            "SESSION_EXPIRED",
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await served.stub.GetSession(pb.GetSessionRequest(session_id=session))
        assert reason(raised.value) == "NOT_FOUND SESSION_EXPIRED"
