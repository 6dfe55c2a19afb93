"""`Client`: the service from ordinary, blocking code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import grpc

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service.client import requests, wire
from service.client.errors import error_from_call, error_from_frame
from service.client.images import FrameLike, MaskLike, labels_of
from service.client.wire import TrackedFrame
from service.core.errors import InvalidOption, S2sppError
from service.core.ports import Opened
from service.core.types import MaskFormat, ModelInfo, SessionInfo


class Client:
    """One connection to an s2spp server at `target` ("host:port"). May be shared by threads.

    Every method raises the classes of `service.core.errors`: those that the server names, and Unavailable
    when it cannot be reached.
    """

    def __init__(self, target: str, *, timeout_s: float = requests.TIMEOUT_S) -> None:
        """`timeout_s`: how long any call but `track` may take. Connects with the first call."""
        self._target = target
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(target, requests.CHANNEL_OPTIONS)
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
        frames: Iterable[FrameLike],
        first_mask: MaskLike,
        *,
        mask_format: MaskFormat = MaskFormat.PNG,
        jpeg_quality: int | None = None,
        on_frame_error: Callable[[int, S2sppError], None] | None = None,
    ) -> Generator[TrackedFrame]:
        """Follows the objects of `first_mask`, the mask of the first of `frames`, through the others.

        Yields one result per frame in their order, each as soon as it is there; the first one's labels are
        the mask that was given. `frames` is read in a thread of its own and may be endless or a live source;
        it is at most a few frames ahead of the results taken. The session lives as long as the iteration.

        Args:
            mask_format: how masks travel: PNG is small, RAW costs no coding.
            jpeg_quality: 1 to 100 sends arrays as JPEG: far smaller, and no longer lossless.
            on_frame_error: told of a frame that the server could not use; the stream goes on with the frames
                after it. Without it the error is raised and the stream ends.
        """
        source = iter(frames)
        labels = labels_of(first_mask)
        try:
            first = next(source)
        except StopIteration:
            raise InvalidOption("there are no frames: the first one belongs to first_mask") from None
        feed = _Feed(source, requests.open_request(first, labels, mask_format, jpeg_quality), jpeg_quality)
        call = self._stub.Track(feed.requests())
        session = ""
        try:
            for event in call:
                if event.HasField("session"):
                    session = event.session.session_id
                    yield wire.first_frame(labels, event.session)
                elif event.HasField("mask"):
                    yield wire.tracked_frame(event.mask)
                    feed.taken(event.mask.frame_index)
                else:
                    error = error_from_frame(event.error)
                    if on_frame_error is None:
                        raise error
                    on_frame_error(event.error.frame_index, error)
                    feed.taken(event.error.frame_index)
            feed.raise_failure()
        except grpc.RpcError as error:
            # The server is away, or the session is no longer ours to delete.
            session = ""
            raise error_from_call(error, self._target) from error
        finally:
            feed.close()
            call.cancel()
            if session:
                self._forget(session)

    def create_session(
        self,
        frame: FrameLike,
        mask: MaskLike,
        *,
        mask_format: MaskFormat = MaskFormat.PNG,
        jpeg_quality: int | None = None,
    ) -> Opened:
        """Opens a session on frame 0 and its mask; returned once the session is stored."""
        request = requests.create_request(frame, labels_of(mask), mask_format, jpeg_quality)
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
            return wire.tracked_frame(self._stub.SegmentFrame(request, timeout=self._timeout_s).mask)

    def session(self, session: str) -> SessionInfo:
        with self._errors():
            response = self._stub.GetSession(
                pb.GetSessionRequest(session_id=session), timeout=self._timeout_s
            )
        return wire.session_info(response.session)

    def delete_session(self, session: str) -> None:
        with self._errors():
            self._stub.DeleteSession(pb.DeleteSessionRequest(session_id=session), timeout=self._timeout_s)

    def model(self) -> ModelInfo:
        with self._errors():
            return wire.model_info(self._stub.GetModel(pb.GetModelRequest(), timeout=self._timeout_s))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise error_from_call(error, self._target) from error

    def _forget(self, session: str) -> None:
        # ValueError: the client has been closed in the meantime.
        with suppress(grpc.RpcError, ValueError):
            self._stub.DeleteSession(
                pb.DeleteSessionRequest(session_id=session), timeout=requests.FORGET_TIMEOUT_S
            )


class _Feed:
    """The sending half of a stream. gRPC runs it in a thread of its own, so that waiting for a slow source
    never holds back a mask that has arrived."""

    def __init__(
        self, source: Iterator[FrameLike], opening: pb.TrackRequest, jpeg_quality: int | None
    ) -> None:
        self._source = source
        self._opening = opening
        self._jpeg_quality = jpeg_quality
        self._slots = threading.Semaphore(requests.WINDOW)
        self._received_through = 0
        self._closed = False
        self._failure: Exception | None = None

    def requests(self) -> Iterator[pb.TrackRequest]:
        yield self._opening
        try:
            # A slot comes before its frame: one fetched earlier would be stale when its turn comes.
            self._slots.acquire()
            for frame_index, frame in enumerate(self._source, 1):
                yield requests.frame_request(frame_index, frame, self._jpeg_quality, self._received_through)
                self._slots.acquire()
                if self._closed:
                    return
        except Exception as error:
            # Half-closes the stream: frames already sent are answered before the caller hears of this.
            self._failure = error

    def taken(self, frame_index: int) -> None:
        """The caller has taken this frame's answer, and asks for the next."""
        self._received_through = frame_index
        self._slots.release()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self._closed = True
        self._slots.release()
