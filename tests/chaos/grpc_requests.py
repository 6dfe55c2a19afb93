"""Senseless calls of s2spp.v1: good messages of bad pictures, and bytes that hardly are messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import grpc

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from tests.chaos.mutate import damaged, damaged_picture, noise
from tests.chaos.server_faults import Faults

_SIZES = (0, 1, 48, 80, 1 << 16, (1 << 32) - 1)
_INDICES = (0, 1, 2, 1 << 40, (1 << 64) - 1)


class GrpcFuzzer:
    """One session is there to be maltreated; those that a call opens by luck are deleted at once."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        blocking: grpc.Channel,
        pictures: Sequence[bytes],
        mask: bytes,
        faults: Faults,
    ) -> None:
        self._channel = channel
        self._blocking = blocking
        self._stub: Any = segmentation_pb2_grpc.SegmentationStub(channel)
        self._pictures = pictures
        self._mask = mask
        self._faults = faults
        self._victim = ""
        self.ways = (self.bad_pictures, self.bad_bytes, self.bad_stream)

    async def bad_pictures(self, random: Random) -> None:
        method, request = await self._call(random, bad=True)
        await self._unary(method, request.SerializeToString())

    async def bad_bytes(self, random: Random) -> None:
        method, request = await self._call(random, bad=False)
        data = request.SerializeToString()
        # Tags and lengths are where it hurts, and most bytes are a picture's.
        where = random.randrange(1, 80)
        data = damaged(random, data[:where]) + data[where:] if random.random() < 0.7 else damaged(random, data)
        await self._unary(method, data if random.random() < 0.9 else noise(random))

    async def bad_stream(self, random: Random) -> None:
        session, index = await self._standing()
        opening = pb.OpenSession(frame=self._image(random, bad=False), mask=pb.Image(data=self._mask))
        resuming = pb.ResumeSession(session_id=session)
        first = pb.TrackRequest(open=opening) if random.random() < 0.3 else pb.TrackRequest(resume=resuming)
        index = 1 if first.HasField("open") else index
        messages = [first.SerializeToString()]
        for _ in range(random.randrange(1, 6)):
            drawing = pb.Drawing(frame_index=index - 1, frame=self._image(random), mask=self._image(random, mask=True))
            frame = pb.Frame(frame_index=index, image=self._image(random))
            removal = pb.Removal(frame_index=index - 1, object_id=random.choice((0, 1, 9, 1 << 31)))
            message = random.choice(
                (
                    pb.TrackRequest(frame=frame),
                    pb.TrackRequest(frame=frame, received_through=random.choice(_INDICES)),
                    pb.TrackRequest(draw=drawing),
                    pb.TrackRequest(remove=removal),
                )
            )
            index += message.HasField("frame")
            messages.append(message.SerializeToString())
        if random.random() < 0.5:
            broken = random.randrange(len(messages))
            messages[broken] = damaged(random, messages[broken][:40]) + messages[broken][40:]
        opened = await asyncio.to_thread(self._track, messages)
        if opened not in ("", session):
            await self._stub.DeleteSession(pb.DeleteSessionRequest(session_id=opened))

    def _track(self, messages: list[bytes]) -> str:
        """The session that the stream names. Blocking: a client of grpc.aio that still sends when the server has ended
        the stream calls that INTERNAL itself."""
        named = ""
        stream = self._blocking.stream_stream("/s2spp.v1.Segmentation/Track")(iter(messages), timeout=60)
        try:
            for data in stream:
                answer = pb.TrackResponse.FromString(data)
                if answer.HasField("error"):
                    self._faults.judge_number(answer.error.status.code, answer.error.status.message)
                elif answer.HasField("session"):
                    named = answer.session.session_id
        except grpc.RpcError:
            pass  # the code says it
        self._faults.judge_code(stream.code(), stream.details())
        return named

    async def _unary(self, method: str, data: bytes) -> None:
        call = self._channel.unary_unary(f"/s2spp.v1.Segmentation/{method}")(data, timeout=60)
        code = await call.code()
        self._faults.judge_code(code, await call.details())
        if method == "CreateSession" and code is grpc.StatusCode.OK:
            opened = pb.CreateSessionResponse.FromString(await call).session.session_id
            await self._stub.DeleteSession(pb.DeleteSessionRequest(session_id=opened))

    async def _call(self, random: Random, bad: bool) -> tuple[str, Any]:
        session, index = await self._standing()
        frame, mask = self._image(random, bad), self._image(random, bad, mask=True)
        if random.random() < 0.2:
            index = random.choice(_INDICES)
        drawing = pb.Drawing(frame_index=max(0, index - 1), frame=frame, mask=mask)
        calls = {
            "CreateSession": pb.CreateSessionRequest(
                frame=frame, mask=mask, options=pb.SessionOptions(mask_format=random.randrange(6))
            ),
            "SegmentFrame": pb.SegmentFrameRequest(session_id=session, frame_index=index, image=frame),
            "DrawObjects": pb.DrawObjectsRequest(session_id=session, drawing=drawing),
            "RemoveObject": pb.RemoveObjectRequest(session_id=session, removal=pb.Removal(object_id=7)),
            "GetSession": pb.GetSessionRequest(session_id=session),
            "GetModel": pb.GetModelRequest(),
        }
        method = random.choice(list(calls))
        return method, calls[method]

    def _image(self, random: Random, bad: bool = True, *, mask: bool = False) -> pb.Image:
        good = self._mask if mask else random.choice(self._pictures)
        if not bad or random.random() < 0.4:
            return pb.Image(data=good)
        data = damaged_picture(random, [good])
        if random.random() < 0.8:
            return pb.Image(data=data)
        return pb.Image(
            data=data, format=random.choice((0, 1, 2)), height=random.choice(_SIZES), width=random.choice(_SIZES)
        )

    async def _standing(self) -> tuple[str, int]:
        if self._victim:
            try:
                found = await self._stub.GetSession(pb.GetSessionRequest(session_id=self._victim))
                return self._victim, found.session.next_frame
            except grpc.aio.AioRpcError as error:
                self._faults.judge_code(error.code(), error.details())
        request = pb.CreateSessionRequest(frame=pb.Image(data=self._pictures[0]), mask=pb.Image(data=self._mask))
        self._victim = (await self._stub.CreateSession(request)).session.session_id
        return self._victim, 1
