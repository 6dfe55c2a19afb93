"""One `Track` call: sends frames ahead, takes answers as they come. Both clients iterate it.

It stands on gRPC's blocking API, which keeps the server's status: grpc.aio loses it when a write fails as the
server ends the stream (grpc issue 36066).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import grpc

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service.client import requests, wire
from service.client.errors import error_from_call, error_from_frame
from service.client.images import FrameLike, MaskLike, labels_of
from service.client.wire import TrackedFrame
from service.core.errors import InvalidOption, S2sppError
from service.core.types import MaskFormat

OnFrameError = Callable[[int, S2sppError], None]
"""Told the index of a frame that the server could not use, and why."""


@dataclass(frozen=True)
class FrameFailure:
    frame_index: int
    error: S2sppError


Outcome = TrackedFrame | FrameFailure


def result_of(outcome: Outcome, on_frame_error: OnFrameError | None) -> TrackedFrame | None:
    """None for a failure that has been told to `on_frame_error`; without that, the failure is raised."""
    if isinstance(outcome, TrackedFrame):
        return outcome
    if on_frame_error is None:
        raise outcome.error
    on_frame_error(outcome.frame_index, outcome.error)
    return None


class Stream:
    """Iterating opens the stream and gives one outcome per frame. Asking for the next takes the one before.

    `close` ends it at any time, from any thread, and deletes the session, whose id nobody else has.
    """

    def __init__(
        self,
        stub: segmentation_pb2_grpc.SegmentationStub,
        target: str,
        frames: Iterable[FrameLike],
        first_mask: MaskLike,
        mask_format: MaskFormat,
        jpeg_quality: int | None,
    ) -> None:
        self._stub = stub
        self._target = target
        self._first_mask = first_mask
        self._feed = _Feed(frames, first_mask, mask_format, jpeg_quality)
        self._call: grpc.Call | None = None
        self._session = ""

    def __iter__(self) -> Iterator[Outcome]:
        opening = self._feed.opening()
        self._call = call = self._stub.Track(self._feed.requests(opening))
        if self._feed.closed:
            # Cancelled from another thread while there was no call yet.
            call.cancel()
        try:
            for event in call:
                if event.HasField("session"):
                    self._session = event.session.session_id
                    yield wire.first_frame(labels_of(self._first_mask), event.session)
                elif event.HasField("mask"):
                    yield wire.tracked_frame(event.mask)
                    self._feed.taken(event.mask.frame_index)
                else:
                    yield FrameFailure(event.error.frame_index, error_from_frame(event.error))
                    self._feed.taken(event.error.frame_index)
        except grpc.RpcError as error:
            # The server is away, or the session is no longer ours to delete.
            self._session = ""
            raise error_from_call(error, self._target) from error
        self._feed.raise_failure()

    def cancel(self) -> None:
        """Wakes whoever waits for an outcome or for room to send."""
        self._feed.close()
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        self.cancel()
        if self._session:
            # ValueError: the client has been closed in the meantime.
            with suppress(grpc.RpcError, ValueError):
                self._stub.DeleteSession(
                    pb.DeleteSessionRequest(session_id=self._session), timeout=requests.FORGET_TIMEOUT_S
                )


class _Feed:
    """The sending half. gRPC runs it in a thread of its own, so that waiting for a slow source never holds
    back a mask that has arrived."""

    def __init__(
        self,
        frames: Iterable[FrameLike],
        first_mask: MaskLike,
        mask_format: MaskFormat,
        jpeg_quality: int | None,
    ) -> None:
        self._frames = iter(frames)
        self._first_mask = first_mask
        self._mask_format = mask_format
        self._jpeg_quality = jpeg_quality
        self._slots = threading.Semaphore(requests.WINDOW)
        self._received_through = 0
        self.closed = False
        self._failure: Exception | None = None

    def opening(self) -> pb.TrackRequest:
        """The first frame, fetched where its failure is heard at once."""
        try:
            first = next(self._frames)
        except StopIteration:
            raise InvalidOption("there are no frames: the first one belongs to first_mask") from None
        return requests.open_request(first, self._first_mask, self._mask_format, self._jpeg_quality)

    def requests(self, opening: pb.TrackRequest) -> Iterator[pb.TrackRequest]:
        yield opening
        try:
            # A slot comes before its frame: one fetched earlier would be stale when its turn comes.
            self._slots.acquire()
            for frame_index, frame in enumerate(self._frames, 1):
                yield requests.frame_request(frame_index, frame, self._jpeg_quality, self._received_through)
                self._slots.acquire()
                if self.closed:
                    return
        except Exception as error:
            # Half-closes the stream: frames already sent are answered before the caller hears of this.
            self._failure = error

    def taken(self, frame_index: int) -> None:
        self._received_through = frame_index
        self._slots.release()

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self.closed = True
        self._slots.release()
