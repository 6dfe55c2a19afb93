"""The ways into the service, as one: what a session's caller does and is told over REST, the WebSocket and gRPC.

Each is the transport itself, with no SDK in between. A way keeps its streams open until it is closed."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import httpx
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Said:
    """`reason`: the error's word; empty for a success. `status`: HTTP's number, or gRPC's name. `mask`: its bytes."""

    reason: str = ""
    status: int | str = ""
    mask: bytes = b""
    session: str = ""
    object_ids: tuple[int, ...] = ()
    frame_index: int = -1
    details: dict[str, str] = field(default_factory=dict)


class Way(Protocol):
    name: str

    def open(self, frame: bytes, mask: bytes, flow: str = "lossless") -> Said: ...

    def resume(
        self, session: str, received_through: int | None = None, committed_frame: int | None = None
    ) -> list[Said]:
        """Take the session up again, as after a lost connection: where it stands (`frame_index` is the next one), and
        the answers not taken."""
        ...

    def frame(self, session: str, index: int, image: bytes, received_through: int | None = None) -> Said: ...

    def draw(self, session: str, index: int, frame: bytes, mask: bytes, ordinal: int | None = None) -> Said: ...

    def remove(self, session: str, index: int, object_id: int, ordinal: int | None = None) -> Said: ...

    def close(self) -> None: ...


class RestWay:
    name = "REST"

    def __init__(self, http: str, grpc_target: str) -> None:
        self._client = httpx.Client(base_url=http, timeout=PATIENCE_S)

    def open(self, frame: bytes, mask: bytes, flow: str = "lossless") -> Said:
        files = {"frame": ("f", frame), "mask": ("m", mask), "options": ("o", json.dumps({"flow": flow}))}
        return self._said(self._client.post("/v1/sessions", files=files))

    def resume(
        self, session: str, received_through: int | None = None, committed_frame: int | None = None
    ) -> list[Said]:
        """REST has no streams: one asks where the session stands, and for each answer by sending its frame again."""
        return [self._said(self._client.get(f"/v1/sessions/{session}"))]

    def frame(self, session: str, index: int, image: bytes, received_through: int | None = None) -> Said:
        params = {} if received_through is None else {"received_through": received_through}
        path = f"/v1/sessions/{session}/frames/{index}"
        return self._said(self._client.post(path, content=image, params=params))

    def draw(self, session: str, index: int, frame: bytes, mask: bytes, ordinal: int | None = None) -> Said:
        files = {"frame": ("f", frame), "mask": ("m", mask)}
        path = f"/v1/sessions/{session}/objects"
        return self._said(self._client.post(path, files=files, params=self._place(index, ordinal)))

    def remove(self, session: str, index: int, object_id: int, ordinal: int | None = None) -> Said:
        path = f"/v1/sessions/{session}/objects/{object_id}"
        return self._said(self._client.delete(path, params=self._place(index, ordinal)))

    def close(self) -> None:
        self._client.close()

    @staticmethod
    def _place(index: int, ordinal: int | None) -> dict[str, int]:
        return {"frame_index": index} | ({} if ordinal is None else {"ordinal": ordinal})

    @staticmethod
    def _said(response: httpx.Response) -> Said:
        if response.is_error:
            return _of_problem(response.json())
        if "S2spp-Frame-Index" in response.headers:
            objects = json.loads(response.headers["S2spp-Objects"])
            ids = tuple(one["object_id"] for one in objects)
            return Said(mask=response.content, object_ids=ids, frame_index=int(response.headers["S2spp-Frame-Index"]))
        return _of_session(response.json())


class WebSocketWay:
    """Sessions are opened, and looked at, by REST: the WebSocket is for frames."""

    name = "WebSocket"

    def __init__(self, http: str, grpc_target: str) -> None:
        self._rest = RestWay(http, grpc_target)
        self._base = http.replace("http", "ws", 1)
        self._sockets: dict[str, ClientConnection] = {}
        self._open_sockets = ExitStack()

    def open(self, frame: bytes, mask: bytes, flow: str = "lossless") -> Said:
        return self._rest.open(frame, mask, flow)

    def resume(
        self, session: str, received_through: int | None = None, committed_frame: int | None = None
    ) -> list[Said]:
        given = {"received_through": received_through, "committed_frame": committed_frame}
        query = "&".join(f"{name}={value}" for name, value in given.items() if value is not None)
        try:
            url = f"{self._base}/v1/sessions/{session}/stream?{query}"
            socket = self._open_sockets.enter_context(connect(url, max_size=None))
        except InvalidStatus as refused:
            return [_of_problem(json.loads(refused.response.body))]
        self._sockets[session] = socket
        where = self._read(socket)
        first = where.frame_index if received_through is None else received_through + 1
        return [where, *(self._read(socket) for _ in range(first, where.frame_index))]

    def frame(self, session: str, index: int, image: bytes, received_through: int | None = None) -> Said:
        """The stream counts the frames itself: `index` is what it is expected to come to."""
        socket = self._socket(session)
        if isinstance(socket, Said):
            return socket
        if received_through is not None:
            socket.send(json.dumps({"received_through": received_through}))
        socket.send(image)
        return self._read(socket)

    def draw(self, session: str, index: int, frame: bytes, mask: bytes, ordinal: int | None = None) -> Said:
        socket = self._socket(session)
        if isinstance(socket, Said):
            return socket
        socket.send(json.dumps({"draw": RestWay._place(index, ordinal)}))
        socket.send(frame)
        socket.send(mask)
        return self._read(socket)

    def remove(self, session: str, index: int, object_id: int, ordinal: int | None = None) -> Said:
        socket = self._socket(session)
        if isinstance(socket, Said):
            return socket
        socket.send(json.dumps({"remove": {"object_id": object_id} | RestWay._place(index, ordinal)}))
        return self._read(socket)

    def close(self) -> None:
        self._open_sockets.close()
        self._rest.close()

    def _socket(self, session: str) -> ClientConnection | Said:
        if session not in self._sockets:
            (where, *_) = self.resume(session)
            if where.reason:
                return where
        return self._sockets[session]

    @staticmethod
    def _read(socket: ClientConnection) -> Said:
        said = json.loads(socket.recv(PATIENCE_S))
        if "reason" in said:
            return _of_problem(said)
        for kind in ("session", "objects"):
            if isinstance(said.get(kind), dict):
                return _of_session(said[kind])
        ids = tuple(one["object_id"] for one in said["objects"])
        mask = socket.recv(PATIENCE_S)
        assert isinstance(mask, bytes)
        return Said(mask=mask, object_ids=ids, frame_index=said["frame_index"])


class GrpcWay:
    """`Track`: a stream of its own for each session, resumed where another way or an earlier one had it."""

    name = "gRPC"

    def __init__(self, http: str, grpc_target: str) -> None:
        self._channel = grpc.insecure_channel(grpc_target, [("grpc.max_receive_message_length", -1)])
        self._stub = segmentation_pb2_grpc.SegmentationStub(self._channel)
        self._streams: dict[str, _Stream] = {}

    def open(self, frame: bytes, mask: bytes, flow: str = "lossless") -> Said:
        options = pb.SessionOptions(flow=pb.Flow.Value(f"FLOW_{flow.upper()}"))
        opening = pb.OpenSession(frame=pb.Image(data=frame), mask=pb.Image(data=mask), options=options)
        stream = _Stream(self._stub, pb.TrackRequest(open=opening))
        said = stream.read()
        if not said.reason:
            self._streams[said.session] = stream
        return said

    def resume(
        self, session: str, received_through: int | None = None, committed_frame: int | None = None
    ) -> list[Said]:
        resume = pb.ResumeSession(session_id=session, committed_frame=committed_frame or 0)
        stream = _Stream(self._stub, pb.TrackRequest(resume=resume, received_through=received_through))
        where = stream.read()
        if where.reason:
            return [where]
        self._streams[session] = stream
        first = where.frame_index if received_through is None else received_through + 1
        return [where, *(stream.read() for _ in range(first, where.frame_index))]

    def frame(self, session: str, index: int, image: bytes, received_through: int | None = None) -> Said:
        frame = pb.Frame(frame_index=index, image=pb.Image(data=image))
        return self._ask(session, pb.TrackRequest(frame=frame, received_through=received_through))

    def draw(self, session: str, index: int, frame: bytes, mask: bytes, ordinal: int | None = None) -> Said:
        images = {"frame": pb.Image(data=frame), "mask": pb.Image(data=mask)}
        return self._ask(session, pb.TrackRequest(draw=pb.Drawing(frame_index=index, ordinal=ordinal or 0, **images)))

    def remove(self, session: str, index: int, object_id: int, ordinal: int | None = None) -> Said:
        removal = pb.Removal(frame_index=index, ordinal=ordinal or 0, object_id=object_id)
        return self._ask(session, pb.TrackRequest(remove=removal))

    def close(self) -> None:
        for stream in self._streams.values():
            stream.close()
        self._channel.close()

    def _ask(self, session: str, request: pb.TrackRequest) -> Said:
        if session not in self._streams:
            (where, *_) = self.resume(session)
            if where.reason:
                return where
        stream = self._streams[session]
        stream.send(request)
        said = stream.read()
        if stream.over:
            del self._streams[session]
        return said


class _Stream:
    def __init__(self, stub: segmentation_pb2_grpc.SegmentationStub, first: pb.TrackRequest) -> None:
        self._requests: queue.SimpleQueue[pb.TrackRequest | None] = queue.SimpleQueue()
        self.send(first)
        self._call = stub.Track(self._source(), timeout=10 * PATIENCE_S)
        self.over = False

    def _source(self) -> Iterator[pb.TrackRequest]:
        while (request := self._requests.get()) is not None:
            yield request

    def send(self, request: pb.TrackRequest) -> None:
        self._requests.put(request)

    def read(self) -> Said:
        try:
            event = next(self._call)
        except grpc.RpcError as error:
            self.over = True
            status = rpc_status.from_call(error)
            return _of_status(status) if status is not None else Said("", error.code().name)
        match event.WhichOneof("event"):
            case "mask":
                ids = tuple(report.object_id for report in event.mask.objects)
                return Said(mask=event.mask.data, object_ids=ids, frame_index=event.mask.frame_index)
            case "error":
                return _of_status(event.error.status)
        where = event.session if event.HasField("session") else event.objects
        return Said(session=where.session_id, object_ids=tuple(where.object_ids), frame_index=where.next_frame)

    def close(self) -> None:
        self._requests.put(None)
        with suppress(grpc.RpcError):
            self._call.cancel()


def _of_problem(problem: dict[str, Any]) -> Said:
    return Said(problem["reason"], problem["status"], details={key: str(value) for key, value in problem.items()})


def _of_session(session: dict[str, Any]) -> Said:
    return Said(session=session["session"], object_ids=tuple(session["object_ids"]), frame_index=session["next_frame"])


def _of_status(status: status_pb2.Status) -> Said:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            break
    codes = {code.value[0]: code.name for code in grpc.StatusCode}
    return Said(info.reason, codes[status.code], details={**info.metadata, "detail": status.message})


WAYS: list[type[RestWay] | type[WebSocketWay] | type[GrpcWay]] = [RestWay, WebSocketWay, GrpcWay]
