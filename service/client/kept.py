"""What a stream has sent and the server has not stored yet: after a crash it is asked for again. The SDK keeps it for
its caller, and a gateway for those who come without the SDK."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from s2spp.v1 import segmentation_pb2 as pb


@dataclass(eq=False)
class Sent:
    """`done`: it was answered; `refused`: with an error, and is not to be sent again."""

    frame_index: int
    is_change: bool
    request: pb.TrackRequest
    done: bool = False
    refused: bool = False

    @property
    def stored_by(self) -> int:
        """Once this frame is committed, so is what came of it: a change may be stored later than its frame."""
        return self.frame_index + self.is_change


class Kept:
    """In the order of sending. Each has a place, counted from the first of the session. May be shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[Sent] = deque()
        self._forgotten = 0
        self._over_through = 0
        self.told_committed = 0

    def __len__(self) -> int:
        return len(self._sent)

    def add(self, sent: Sent) -> None:
        """Nothing, where it is over already."""
        with self._lock:
            if sent.stored_by > self._over_through:
                self._sent.append(sent)

    def committed(self, frame_index: int, answered_through: int | None = None) -> None:
        """Forget what is stored and answered; None: all that is kept here is answered. A frame that another stream had
        sent may be stored while its answer is on its way to nobody: it has to be sent all the same."""
        with self._lock:
            self.told_committed = max(self.told_committed, frame_index)
            over = frame_index if answered_through is None else min(frame_index, answered_through)
            self._over_through = max(self._over_through, over)
            while self._sent and self._sent[0].stored_by <= self._over_through:
                self._sent.popleft()
                self._forgotten += 1

    def first_missing(self, next_frame: int) -> int:
        """The place of what a server lacks that wants `next_frame`."""
        with self._lock:
            have = [sent.stored_by < next_frame for sent in self._sent]
            return self._forgotten + (have.index(False) if False in have else len(have))

    def at(self, place: int) -> Sent | None:
        """None: not sent yet."""
        with self._lock:
            index = max(0, place - self._forgotten)
            return self._sent[index] if index < len(self._sent) else None

    def since(self, next_frame: int) -> list[Sent]:
        """What a server lacks that wants `next_frame`."""
        with self._lock:
            return [sent for sent in self._sent if sent.stored_by >= next_frame and not sent.refused]
