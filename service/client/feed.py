"""The sending half of a `Track` call. gRPC runs it in a thread of its own, so that waiting for a slow source never
holds back a mask that has arrived.

What was sent is kept until the server says that it is committed: a call that broke off is followed by another one,
which begins with what the server has not got."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from s2spp.v1 import segmentation_pb2 as pb
from service.client import requests
from service.client.images import FrameLike
from service.client.kept import Kept, Sent
from service.client.requests import Draw, Remove
from service.core.errors import InvalidOption

TrackItem = FrameLike | Draw | Remove
"""A frame, or a change of the objects after the frame before it."""


class Attempt:
    """One call. `go`: the server has said which frame it wants next, and sending may begin."""

    def __init__(self) -> None:
        self.next_frame = 0
        self.go = threading.Event()
        self.change: Sent | None = None
        self.change_answered = threading.Event()
        self.over = False

    def begin(self, next_frame: int) -> None:
        self.next_frame = next_frame
        self.go.set()

    def end(self) -> None:
        self.over = True
        self.go.set()
        self.change_answered.set()


class Feed:
    """Frames and changes as they come from the caller, for one call after another."""

    def __init__(
        self, items: Iterable[TrackItem], jpeg_quality: int | None, first_index: int = 0, received_through: int = 0
    ) -> None:
        """`first_index`: that of the first frame of `items`. `received_through`: the last whose mask the caller has."""
        self._items = iter(items)
        self._jpeg_quality = jpeg_quality
        self._slots = threading.Semaphore(requests.WINDOW)
        # The source is read by one thread at a time: that of a call that broke off may still be waiting for it.
        self._reading = threading.Lock()
        self._keeping = threading.Lock()
        self._kept = Kept()
        self._frame_index = first_index - 1
        self._frame: FrameLike | pb.Image = pb.Image()
        self._changes = 0  # made after this frame
        self._ended = False
        self._failure: Exception | None = None
        self.received_through = received_through
        self.reached = False
        self.closed = False

    def first_frame(self) -> FrameLike:
        """Fetched where its failure is heard at once."""
        first = next(self._items, None)
        if first is None or isinstance(first, Draw | Remove):
            raise InvalidOption("there are no frames: the first one belongs to first_mask")
        self._frame_index += 1
        self._frame = first
        return first

    def requests(self, first: pb.TrackRequest, attempt: Attempt) -> Iterator[pb.TrackRequest]:
        """What one call sends: its first message, what the server lacks of what was sent before, and what comes."""
        yield first
        self.reached = True  # gRPC asks for more only once there is a connection that has taken the first
        attempt.go.wait()
        place = self._kept.first_missing(attempt.next_frame)
        while (sent := self._at(place, attempt)) is not None:
            place += 1
            if sent.refused or sent.stored_by < attempt.next_frame:
                continue
            sent.request.received_through = self.received_through
            attempt.change = sent if sent.is_change else None
            yield sent.request
            if sent.is_change:
                # A frame that overtook a change whose answer was lost would make it come too late.
                attempt.change_answered.wait()
                attempt.change_answered.clear()
        had = max(attempt.next_frame - 1, self.received_through)
        if self._ended and self._failure is None and self._frame_index < had:
            self._failure = InvalidOption(
                f"the session has had frames up to {had}, and those given end with {self._frame_index}: they are not "
                "those that it was begun with"
            )

    def taken(self, frame_index: int) -> None:
        """The mask of a frame that came out of the source, or of one that will: it needs no slot then."""
        with self._keeping:
            self.received_through = frame_index
            read = frame_index <= self._frame_index
        if read:
            self._slots.release()

    def change_answered(self, attempt: Attempt, *, made: bool) -> None:
        if attempt.change is not None and not attempt.change.done:
            attempt.change.done, attempt.change.refused = True, not made
            self._changes += made
        attempt.change_answered.set()

    def committed(self, frame_index: int) -> None:
        """Forget what the server will not ask for again, and the caller has the mask of."""
        self._kept.committed(frame_index, self.received_through)

    @property
    def told_committed(self) -> int:
        return self._kept.told_committed

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        self.closed = True
        self._slots.release()

    def _at(self, place: int, attempt: Attempt) -> Sent | None:
        """What was sent at this place before, or what the source gives now; None at its end."""
        while True:
            # What is kept needs no turn at the source, where the thread of a dead call may be waiting.
            found = self._kept.at(place)
            if found is None and not (attempt.over or self.closed):
                with self._reading:
                    found = self._kept.at(place)
                    if found is None and (attempt.over or self.closed or self._ended or not self._read()):
                        return None
                if found is None:
                    continue
            return None if attempt.over or self.closed else found

    def _read(self) -> bool:
        """One more item out of the source. False: there is none, and never will be."""
        # A slot comes before its frame: one fetched earlier would be stale when its turn comes.
        self._slots.acquire()
        try:
            if not self.closed:
                item = next(self._items)
                sent = self._changed(item) if isinstance(item, Draw | Remove) else self._framed(item)
                with self._keeping:
                    if not isinstance(item, Draw | Remove):
                        self._frame_index += 1
                    self._kept.add(sent)
                    taken = sent.is_change or sent.frame_index <= self.received_through
                if taken:
                    self._slots.release()
                return True
        except StopIteration:
            pass
        except Exception as error:
            # Half-closes the stream: frames already sent are answered before the caller hears of this.
            self._failure = error
        self._ended = True
        return False

    def _framed(self, frame: FrameLike) -> Sent:
        request = requests.frame_request(self._frame_index + 1, frame, self._jpeg_quality, 0)
        # The caller may use an array again, once it is asked for the next.
        self._frame, self._changes = request.frame.image, 0
        return Sent(self._frame_index + 1, False, request)

    def _changed(self, change: Draw | Remove) -> Sent:
        place = requests.Place(self._frame_index, self._changes + 1)
        request = requests.change_request(place, self._frame, change, self._jpeg_quality)
        return Sent(self._frame_index, True, request)
