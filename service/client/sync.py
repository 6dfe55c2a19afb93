"""`Client`: the service from ordinary, blocking code."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import grpc

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service.client import requests, wire
from service.client.errors import error_from_call
from service.client.feed import TrackItem
from service.client.images import FrameLike, MaskLike
from service.client.stream import OnFrameError, Opening, Resumption, Stream, followed
from service.client.wire import TrackedFrame
from service.core.ports import Opened
from service.core.types import Flow, MaskFormat, ModelInfo, SessionInfo, SessionOptions


class Client:
    """One connection to an s2spp server at `target` ("host:port", or a host, port 50051). May be shared by threads.

    Every method raises the classes of `service.core.errors`: those that the server names, and Unavailable
    when it cannot be reached.
    """

    def __init__(
        self, target: str, *, timeout_s: float = requests.TIMEOUT_S, retry_for_s: float = requests.RETRY_FOR_S
    ) -> None:
        """`timeout_s`: for any call, and for `track` until it has its session. `retry_for_s`: how long it tries
        to go on with a session that was open when the server went away. Connects with the first call."""
        self._target = requests.with_port(target)
        self._timeout_s = timeout_s
        self._retry_for_s = retry_for_s
        self._channel = grpc.insecure_channel(self._target, requests.CHANNEL_OPTIONS)
        self._stub = segmentation_pb2_grpc.SegmentationStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def track(
        self,
        frames: Iterable[TrackItem],
        first_mask: MaskLike,
        *,
        mask_format: MaskFormat = MaskFormat.PNG,
        flow: Flow = Flow.LOSSLESS,
        jpeg_quality: int | None = None,
        on_frame_error: OnFrameError | None = None,
        keep_session: bool = False,
    ) -> Generator[TrackedFrame]:
        """Follows the objects of `first_mask`, the mask of the first of `frames`, through the others.

        Yields one result per frame in their order, each as soon as it is there; the first one's labels are
        the mask that was given. `frames` is read in a thread of its own and may be endless or a live source;
        it is at most a few frames ahead of the results taken. The session lives as long as the iteration.

        Where the server goes away and comes back, it goes on where it was: every frame is answered once, in order.
        Frames are kept until the server has stored what came of them. Among the frames there may be `Draw` and
        `Remove`, which change the objects from there on.

        Args:
            mask_format: how masks travel: PNG and RLE are small, RAW costs no coding, PROBABILITY says how sure.
            flow: REALTIME for a live camera: frames that cannot be computed in time are dropped. Results then have
                gaps in their frame_index, and `on_frame_error` is told of each drop.
            jpeg_quality: 1 to 100 sends arrays as JPEG: far smaller, and no longer lossless.
            on_frame_error: told of a frame that the server could not use; the stream goes on with the frames
                after it. Without it the error is raised and the stream ends (drops are passed over).
            keep_session: leave the session at the server when the iteration ends, however it does, for `resume`; it
                expires when it is idle for long. (One of a process that was killed is left there in any case.)
        """
        options = SessionOptions(mask_format, flow)
        return followed(self.stream(frames, first_mask, options, jpeg_quality, keep_session), on_frame_error)

    def resume(
        self,
        session: str,
        frames: Iterable[TrackItem],
        received_through: int,
        *,
        first_index: int = 0,
        jpeg_quality: int | None = None,
        on_frame_error: OnFrameError | None = None,
        keep_session: bool = False,
    ) -> Generator[TrackedFrame]:
        """Goes on with a session that another client, killed maybe, had begun: yields the results after frame
        `received_through`, the last that is at hand.

        Args:
            session: `TrackedFrame.session` of any of its results.
            frames: the same frames, `Draw` and `Remove` as they were given then, from index `first_index` on. Those
                that the server has are passed over.
            received_through: not before what that client acknowledged, by asking for the result after it.

        The others are as in `track`.
        """
        stream = self.resumed_stream(session, frames, received_through, first_index, jpeg_quality, keep_session)
        return followed(stream, on_frame_error)

    def create_session(
        self,
        frame: FrameLike,
        mask: MaskLike,
        *,
        mask_format: MaskFormat = MaskFormat.PNG,
        flow: Flow = Flow.LOSSLESS,
        jpeg_quality: int | None = None,
    ) -> Opened:
        """Opens a session on frame 0 and its mask; returned once the session is stored."""
        request = requests.create_request(frame, mask, SessionOptions(mask_format, flow), jpeg_quality)
        with self._errors():
            response = self._stub.CreateSession(request, timeout=self._timeout_s)
        return Opened(wire.session_info(response.session), response.state_bytes)

    def segment(
        self,
        session: str,
        frame_index: int,
        frame: FrameLike,
        *,
        received_through: int | None = None,
        jpeg_quality: int | None = None,
    ) -> TrackedFrame:
        """One frame, strictly durable: once this returns, it survives any crash. After Unavailable it may be
        sent again. `received_through` None: the masks of all frames before this one are taken."""
        request = requests.segment_request(session, frame_index, frame, received_through, jpeg_quality)
        with self._errors():
            return wire.tracked_frame(self._stub.SegmentFrame(request, timeout=self._timeout_s).mask, session)

    def draw_objects(
        self,
        session: str,
        frame_index: int,
        frame: FrameLike,
        mask: MaskLike,
        *,
        object_id: int | None = None,
        ordinal: int | None = None,
        jpeg_quality: int | None = None,
    ) -> SessionInfo:
        """Between two frames: every id of `mask`, drawn on `frame`, the one sent last (`frame_index`), is added, or
        starts again from there where it is followed already; the others go on. `object_id`: all that the mask marks is
        this object. Once this returns, it survives any crash. `ordinal`: which change it is after that frame, from 1;
        with it, the same may be sent again."""
        place = requests.Place(frame_index, ordinal or 0)
        drawing = requests.drawing(place, frame, requests.Draw(mask, object_id), jpeg_quality)
        request = pb.DrawObjectsRequest(session_id=session, drawing=drawing)
        with self._errors():
            return wire.session_info(self._stub.DrawObjects(request, timeout=self._timeout_s).session)

    def remove_object(
        self, session: str, frame_index: int, object_id: int, *, ordinal: int | None = None
    ) -> SessionInfo:
        """Follow an object no longer, from the frame after `frame_index`, the one sent last. As `draw_objects`."""
        removal = requests.removal(requests.Place(frame_index, ordinal or 0), object_id)
        with self._errors():
            response = self._stub.RemoveObject(
                pb.RemoveObjectRequest(session_id=session, removal=removal), timeout=self._timeout_s
            )
        return wire.session_info(response.session)

    def session(self, session: str) -> SessionInfo:
        with self._errors():
            response = self._stub.GetSession(pb.GetSessionRequest(session_id=session), timeout=self._timeout_s)
        return wire.session_info(response.session)

    def delete_session(self, session: str) -> None:
        with self._errors():
            self._stub.DeleteSession(pb.DeleteSessionRequest(session_id=session), timeout=self._timeout_s)

    def model(self) -> ModelInfo:
        with self._errors():
            return wire.model_info(self._stub.GetModel(pb.GetModelRequest(), timeout=self._timeout_s))

    def stream(
        self,
        frames: Iterable[TrackItem],
        first_mask: MaskLike,
        options: SessionOptions,
        jpeg_quality: int | None,
        keep_session: bool,
    ) -> Stream:
        """What `track` iterates, for callers that close it from another thread."""
        return self._stream(frames, Opening(first_mask, options), jpeg_quality, keep_session)

    def resumed_stream(
        self,
        session: str,
        frames: Iterable[TrackItem],
        received_through: int,
        first_index: int,
        jpeg_quality: int | None,
        keep_session: bool,
    ) -> Stream:
        """What `resume` iterates."""
        resumption = Resumption(session, received_through, first_index)
        return self._stream(frames, resumption, jpeg_quality, keep_session)

    def _stream(
        self, frames: Iterable[TrackItem], begin: Opening | Resumption, jpeg_quality: int | None, keep: bool
    ) -> Stream:
        return Stream(self._stub, self._target, frames, begin, jpeg_quality, self._timeout_s, self._retry_for_s, keep)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise error_from_call(error, self._target) from error
