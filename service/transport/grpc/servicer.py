"""s2spp.v1.Segmentation: parse, call the engine, render. What a call means is decided in the engine alone."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import grpc
from grpc_status import rpc_status

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service.core.call import about
from service.core.errors import InvalidOption, Unavailable
from service.core.ports import Engine, Resumed
from service.core.types import Durability, ObjectChange, RemoveObject, SessionInfo, parse_session_id
from service.transport.grpc import convert
from service.transport.grpc.errors import status_of
from service.transport.grpc.track import FrameLoop, replayed
from service.transport.peer import client_name

Context = grpc.aio.ServicerContext[Any, Any]


@asynccontextmanager
async def _errors_as_status(context: Context) -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        status = rpc_status.to_status(status_of(error))
        await context.abort(status.code, status.details, status.trailing_metadata)


class SegmentationServicer(segmentation_pb2_grpc.SegmentationServicer):
    def __init__(self, engine: Engine, window: int, callers_are_gateways: bool = False) -> None:
        """`window`: frames of one Track stream that may be in flight. `callers_are_gateways`: they say whose calls they
        pass on."""
        self._callers_are_gateways = callers_are_gateways
        self._engine = engine
        self._window = window
        self.stopping = asyncio.Event()
        """Set: streams answer what they have begun, say where to resume, and end."""
        self._streams: set[FrameLoop] = set()

    def hand_over(self) -> bool:
        """One stream is to go on at another worker: the one that can soonest. False: there is none, or one leaves
        already."""
        if any(frames.leaving for frames in self._streams):
            return False
        return any(frames.hand_over() for frames in sorted(self._streams, key=lambda frames: frames.under_way))

    # The stub knows generators only; written answers let one task own the stream, and end with it.
    async def Track(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.TrackRequest], context: Context
    ) -> None:
        async with _errors_as_status(context):
            stream = secrets.token_hex(8)
            first = await anext(request_iterator, pb.TrackRequest())
            begun = await self._begin(first, stream, self._client(context))
            session = begun.info.session
            try:
                said = convert.session_message(begun.info)
                said.answers_following = len(begun.answers)
                await context.write(pb.TrackResponse(session=said))
                for answer in begun.answers:
                    await context.write(replayed(answer, begun.info.committed_frame))
                frames = FrameLoop(
                    self._engine,
                    session,
                    stream,
                    request_iterator,
                    context.write,
                    self._window,
                    self.stopping,
                    begun.info.committed_frame,
                )
                self._streams.add(frames)
                try:
                    await frames.run()
                finally:
                    self._streams.discard(frames)
            finally:
                await self._engine.leave(session, stream)

    async def _begin(self, first: pb.TrackRequest, stream: str, client: str) -> Resumed:
        match first.WhichOneof("command"):
            case "open":
                opened = await self._engine.open(
                    convert.image(first.open.frame),
                    convert.image(first.open.mask),
                    convert.options(first.open.options),
                    client=client,
                    idempotency_key=first.open.idempotency_key if first.open.HasField("idempotency_key") else None,
                    stream=stream,
                )
                about(opened.info.session)
                return Resumed(opened.info, ())
            case "resume":
                taken = first.received_through if first.HasField("received_through") else None
                session, told = about(parse_session_id(first.resume.session_id)), first.resume.committed_frame
                return await self._engine.resume(session, taken, stream, told)
            case _:
                raise InvalidOption("the first message of a Track stream must be `open` or `resume`")

    async def CreateSession(self, request: pb.CreateSessionRequest, context: Context) -> pb.CreateSessionResponse:
        async with _errors_as_status(context):
            opened = await self._engine.open(
                convert.image(request.frame),
                convert.image(request.mask),
                convert.options(request.options),
                client=self._client(context),
                idempotency_key=request.idempotency_key if request.HasField("idempotency_key") else None,
            )
            about(opened.info.session)
            return pb.CreateSessionResponse(
                session=convert.session_message(opened.info),
                state_bytes=opened.state_bytes,
                replayed=opened.replayed,
            )

    async def SegmentFrame(self, request: pb.SegmentFrameRequest, context: Context) -> pb.SegmentFrameResponse:
        async with _errors_as_status(context):
            delivered = await self._engine.segment(
                about(parse_session_id(request.session_id)),
                request.frame_index,
                convert.image(request.image),
                durability=convert.durability(request, Durability.STRICT),
                received_through=request.received_through if request.HasField("received_through") else None,
                told_committed=request.committed_frame,
            )
            return pb.SegmentFrameResponse(mask=convert.mask_message(delivered))

    async def DrawObjects(self, request: pb.DrawObjectsRequest, context: Context) -> pb.DrawObjectsResponse:
        async with _errors_as_status(context):
            drawing = request.drawing
            info = await self._change(request.session_id, drawing, convert.drawing(drawing))
            return pb.DrawObjectsResponse(session=convert.session_message(info))

    async def RemoveObject(self, request: pb.RemoveObjectRequest, context: Context) -> pb.RemoveObjectResponse:
        async with _errors_as_status(context):
            removal = request.removal
            info = await self._change(request.session_id, removal, RemoveObject(removal.object_id))
            return pb.RemoveObjectResponse(session=convert.session_message(info))

    async def _change(self, session: str, placed: pb.Drawing | pb.Removal, change: ObjectChange) -> SessionInfo:
        frame_index, ordinal = convert.place(placed)
        durability = convert.durability(placed, Durability.STRICT)
        return await self._engine.change(
            about(parse_session_id(session)), frame_index, change, durability=durability, ordinal=ordinal
        )

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.GetSessionResponse:
        async with _errors_as_status(context):
            info = await self._engine.describe(about(parse_session_id(request.session_id)))
            return pb.GetSessionResponse(session=convert.session_message(info))

    async def DeleteSession(self, request: pb.DeleteSessionRequest, context: Context) -> pb.DeleteSessionResponse:
        async with _errors_as_status(context):
            await self._engine.delete(about(parse_session_id(request.session_id)))
            return pb.DeleteSessionResponse()

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        async with _errors_as_status(context):
            models = self._engine.models()
            if not models:
                raise Unavailable("no model is served yet; try again in a moment")
            return convert.model_message(models[0])

    def _client(self, context: Context) -> str:
        """gRPC says `ipv4:HOST:PORT`, `ipv6:%5BHOST%5D:PORT` or `unix:PATH`; a gateway, whom it calls for."""
        if self._callers_are_gateways:
            return str(dict(context.invocation_metadata() or ()).get("x-s2spp-client", ""))
        family, _, rest = unquote(context.peer()).partition(":")
        return client_name(rest.rpartition(":")[0].strip("[]") if family.startswith("ip") else rest)
