"""A session followed through `Track` calls: frames go ahead, answers are taken as they come. Both clients iterate it.

A call that breaks off is followed by another that resumes: nothing is lost, and nothing comes twice.

It stands on gRPC's blocking API, which keeps the server's status: grpc.aio loses it when a write fails as the
server ends the stream (grpc issue 36066).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import grpc

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service.client import requests, wire
from service.client.errors import error_from_call, error_from_frame
from service.client.feed import Attempt, Feed, TrackItem
from service.client.images import MaskLike, labels_of
from service.client.wire import TrackedFrame
from service.core.errors import Overloaded, S2sppError, Unavailable
from service.core.types import MaskFormat

OnFrameError = Callable[[int, S2sppError], None]
"""Told the index of a frame that the server could not use, or after which objects could not be changed, and why."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


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


class _Interrupted(Exception):
    """The server went away, or could not answer now: the session may be taken up again."""

    def __init__(self, problem: S2sppError) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Stream:
    """Iterating opens the session and gives one outcome per frame. Asking for the next takes the one before.

    `close` ends it at any time, from any thread, and deletes the session, whose id nobody else has.
    """

    def __init__(
        self,
        stub: segmentation_pb2_grpc.SegmentationStub,
        target: str,
        items: Iterable[TrackItem],
        first_mask: MaskLike,
        mask_format: MaskFormat,
        jpeg_quality: int | None,
        retry_for_s: float,
    ) -> None:
        self._stub = stub
        self._target = target
        self._first_mask = first_mask
        self._retry_for_s = retry_for_s
        self._feed = Feed(items, first_mask, mask_format, jpeg_quality)
        self._call: grpc.Call | None = None
        self._session = ""
        self._closing = threading.Event()
        self._lost_since: float | None = None

    def __iter__(self) -> Iterator[Outcome]:
        first = self._feed.opening()
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                yield from self._follow(first)
                break
            except _Interrupted as interruption:
                now = time.monotonic()
                if self._lost_since is None:
                    self._lost_since, pause_s = now, _FIRST_PAUSE_S
                if now - self._lost_since > self._retry_for_s or self._closing.wait(pause_s):
                    # The session expires by itself.
                    self._session = ""
                    raise interruption.problem from interruption
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                resume = pb.ResumeSession(session_id=self._session, committed_frame=self._feed.told_committed)
                first = pb.TrackRequest(resume=resume, received_through=self._feed.received_through)
        self._feed.raise_failure()

    def _follow(self, first: pb.TrackRequest) -> Iterator[Outcome]:
        """One call, until everything is answered. Raises _Interrupted."""
        attempt = Attempt()
        self._call = call = self._stub.Track(self._feed.requests(first, attempt))
        if self._feed.closed:
            # Cancelled from another thread while there was no call yet.
            call.cancel()
        try:
            for event in call:
                if event.HasField("session"):
                    opened = not self._session
                    self._session = event.session.session_id
                    attempt.begin(event.session.next_frame)
                    if opened:
                        yield wire.first_frame(labels_of(self._first_mask), event.session)
                elif event.HasField("mask"):
                    self._lost_since = None
                    self._feed.committed(event.mask.committed_frame)
                    # After a crash, frames whose masks were taken are sent once more.
                    if event.mask.frame_index > self._feed.received_through:
                        yield wire.tracked_frame(event.mask)
                        self._feed.taken(event.mask.frame_index)
                elif event.HasField("objects"):
                    self._feed.committed(event.objects.committed_frame)
                    attempt.change_answered.set()
                elif event.HasField("error"):
                    yield from self._failed(event.error)
                    if event.error.of_change:
                        attempt.change_answered.set()
        except grpc.RpcError as error:
            problem = error_from_call(error, self._target)
            if self._session and isinstance(problem, Unavailable | Overloaded) and not self._feed.closed:
                raise _Interrupted(problem) from error
            # The server is away, or the session is no longer ours to delete.
            self._session = ""
            raise problem from error
        finally:
            attempt.end()
            call.cancel()

    def _failed(self, answer: pb.FrameError) -> Iterator[Outcome]:
        error = error_from_frame(answer)
        if isinstance(error, Unavailable):
            # Its index is open again, and so are those behind it.
            raise _Interrupted(error)
        if answer.of_change:
            yield FrameFailure(answer.frame_index, error)
        elif answer.frame_index > self._feed.received_through:
            yield FrameFailure(answer.frame_index, error)
            self._feed.taken(answer.frame_index)

    def cancel(self) -> None:
        """Wakes whoever waits for an outcome or for room to send."""
        self._closing.set()
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
