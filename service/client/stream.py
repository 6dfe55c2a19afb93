"""A session followed through `Track` calls: frames go ahead, answers are taken as they come. Both clients iterate it.

A call that breaks off is followed by another that resumes: nothing is lost, and nothing comes twice.

It stands on gRPC's blocking API, which keeps the server's status: grpc.aio loses it when a write fails as the
server ends the stream (grpc issue 36066).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import grpc

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service.client import requests, wire
from service.client.errors import error_from_call, error_from_frame
from service.client.feed import Attempt, Feed, TrackItem
from service.client.images import MaskLike, labels_of
from service.client.patience import Patience
from service.client.wire import TrackedFrame
from service.core.errors import (
    FrameDropped,
    FrameGap,
    IdempotencyKeyInUse,
    InvalidOption,
    Overloaded,
    S2sppError,
    Unavailable,
)
from service.core.types import SessionOptions

OnFrameError = Callable[[int, S2sppError], None]
"""Told the index of a frame that the server could not use, or after which objects could not be changed, and why."""

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_SILENT_S = 5.0
"""A server that is started anew takes as long; beyond, whoever waits hears why."""


@dataclass(frozen=True)
class FrameFailure:
    frame_index: int
    error: S2sppError


Outcome = TrackedFrame | FrameFailure


@dataclass(frozen=True, eq=False)
class Opening:
    """A session that begins with the first of the frames and its mask."""

    first_mask: MaskLike
    options: SessionOptions


@dataclass(frozen=True)
class Resumption:
    """A session that another stream began. `first_index`: that of the first of the frames."""

    session: str
    received_through: int
    first_index: int


def followed(stream: Stream, on_frame_error: OnFrameError | None) -> Generator[TrackedFrame]:
    """The results of a stream, which is closed however this ends."""
    try:
        for outcome in stream:
            result = result_of(outcome, on_frame_error)
            if result is not None:
                yield result
    except Exception:
        stream.failed = True
        raise
    finally:
        stream.close()


def result_of(outcome: Outcome, on_frame_error: OnFrameError | None) -> TrackedFrame | None:
    """None for a failure that has been told to `on_frame_error`; without that, it is raised, unless it is a drop."""
    if isinstance(outcome, TrackedFrame):
        return outcome
    if on_frame_error is not None:
        on_frame_error(outcome.frame_index, outcome.error)
    elif not isinstance(outcome.error, FrameDropped):
        raise outcome.error
    return None


class _Interrupted(Exception):
    """The server went away, or could not answer now: the session may be taken up again."""

    def __init__(self, problem: S2sppError) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _may_pass(problem: S2sppError) -> bool:
    """Away, full, failed within, or out of step after such a failure: what a resume can mend."""
    return isinstance(problem, Unavailable | Overloaded | FrameGap) or type(problem) is S2sppError


class Stream:
    """Iterating opens the session, or resumes it, and gives one outcome per frame. Asking for the next takes the one
    before.

    `close` ends it at any time, from any thread, and deletes the session, unless it is to be kept, or was resumed and
    something `failed`: what another one began may be taken up once more.
    """

    def __init__(
        self,
        stub: segmentation_pb2_grpc.SegmentationStub,
        target: str,
        items: Iterable[TrackItem],
        begin: Opening | Resumption,
        jpeg_quality: int | None,
        timeout_s: float,
        retry_for_s: float,
        keep_session: bool,
    ) -> None:
        self._stub = stub
        self._target = target
        self._begin = begin
        self._jpeg_quality = jpeg_quality
        self._timeout_s = timeout_s
        self._patience = Patience(retry_for_s, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, at_once=False)
        self._keep_session = keep_session
        if isinstance(begin, Opening):
            self._session = ""
            self._feed = Feed(items, jpeg_quality)
        else:
            if begin.received_through < 0:
                raise InvalidOption(f"received_through is the index of a frame, not {begin.received_through}")
            self._session = begin.session
            self._feed = Feed(items, jpeg_quality, begin.first_index, begin.received_through)
        self._call: grpc.Call | None = None
        self._closing = threading.Event()
        self.failed = False

    def __iter__(self) -> Iterator[Outcome]:
        first = self._first_request()
        while True:
            self._patience.begin()
            try:
                yield from self._follow(first)
                break
            except _Interrupted as interruption:
                pause_s = self._patience.pause_s(interruption.problem)
                if pause_s is None or self._closing.wait(pause_s):
                    # The session expires by itself.
                    self._session = ""
                    raise interruption.problem from interruption
                if self._patience.worth_telling(_SILENT_S):
                    _log.warning("no answer yet, trying for %g s: %s", self._patience.retry_for_s, interruption.problem)
                first = self._resume_request() if self._session else first
        self._feed.raise_failure()

    def _first_request(self) -> pb.TrackRequest:
        if isinstance(self._begin, Resumption):
            return self._resume_request()
        frame = self._feed.first_frame()
        return requests.open_request(frame, self._begin.first_mask, self._begin.options, self._jpeg_quality)

    def _resume_request(self) -> pb.TrackRequest:
        resume = pb.ResumeSession(session_id=self._session, committed_frame=self._feed.told_committed)
        return pb.TrackRequest(resume=resume, received_through=self._feed.received_through)

    def _follow(self, first: pb.TrackRequest) -> Iterator[Outcome]:
        """One call, until everything is answered. Raises _Interrupted."""
        attempt = Attempt()
        try:
            call = self._stub.Track(self._feed.requests(first, attempt))
        except ValueError as error:
            self._session = ""
            raise Unavailable("this client was closed") from error
        self._call = call
        if self._feed.closed:
            # Cancelled from another thread while there was no call yet.
            call.cancel()
        # Whatever happens to a connection or a server: a session is told in time, or not at all.
        late = threading.Timer(self._timeout_s, self._give_up, [attempt, call])
        late.daemon = True
        late.start()
        try:
            for event in call:
                late.cancel()
                yield from self._told(event, attempt)
        except grpc.RpcError as error:
            problem = error_from_call(error, self._target)
            if self._may_go_on(problem) and not self._feed.closed:
                raise _Interrupted(problem) from error
            # The server is away, or the session is no longer ours to delete.
            self._session = ""
            raise problem from error
        finally:
            late.cancel()
            attempt.end()
            call.cancel()

    @staticmethod
    def _give_up(attempt: Attempt, call: grpc.Call) -> None:
        if not attempt.go.is_set():
            call.cancel()

    def _may_go_on(self, problem: S2sppError) -> bool:
        """A server that never was there is told at once; so is one that has no room for another session."""
        if self._session:
            return _may_pass(problem)
        return self._feed.reached and isinstance(problem, Unavailable | IdempotencyKeyInUse)

    def _told(self, event: pb.TrackResponse, attempt: Attempt) -> Iterator[Outcome]:
        match event.WhichOneof("event"):
            case "session":
                opened = not self._session
                self._session = event.session.session_id
                self._patience.join()
                self._feed.committed(event.session.committed_frame)
                attempt.begin(event.session.next_frame)
                if opened and isinstance(self._begin, Opening):
                    yield wire.first_frame(labels_of(self._begin.first_mask), event.session)
            case "mask":
                self._feed.committed(event.mask.committed_frame)
                # After a crash, frames whose masks were taken are sent once more; that is no progress yet.
                if event.mask.frame_index > self._feed.received_through:
                    self._patience.progress()
                    yield wire.tracked_frame(event.mask, self._session)
                    self._feed.taken(event.mask.frame_index)
            case "objects":
                self._feed.committed(event.objects.committed_frame)
                self._feed.change_answered(attempt, made=True)
            case "error":
                yield from self._failed(event.error, attempt)

    def _failed(self, answer: pb.FrameError, attempt: Attempt) -> Iterator[Outcome]:
        error = error_from_frame(answer)
        self._feed.committed(answer.committed_frame)
        if _may_pass(error):
            # Its index is open again, and so are those behind it.
            raise _Interrupted(error)
        if answer.of_change:
            self._feed.change_answered(attempt, made=False)
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
        kept = self._keep_session or (self.failed and isinstance(self._begin, Resumption))
        if self._session and not kept:
            # ValueError: the client has been closed in the meantime.
            with suppress(grpc.RpcError, ValueError):
                self._stub.DeleteSession(
                    pb.DeleteSessionRequest(session_id=self._session), timeout=requests.FORGET_TIMEOUT_S
                )
