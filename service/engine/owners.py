"""Which stream a session belongs to: the one that opened or resumed it last."""

from __future__ import annotations

from collections.abc import Callable

from service.core.errors import OwnershipLost
from service.core.types import SessionId


class Owners:
    """Knows the streams that live, and no more: a session out of memory keeps its owner, one without a stream has
    none."""

    def __init__(self, held: Callable[[], bool]) -> None:
        """`held`: others take this worker for alive. One that stood still, or was cut off from the store, for longer
        than its lease may have been replaced meanwhile."""
        self._held = held
        self._stream: dict[SessionId, str] = {}
        self._lost: set[str] = set()

    def give(self, session: SessionId, stream: str | None) -> None:
        if stream is not None:
            self._stream[session] = stream

    def has(self, session: SessionId, stream: str) -> bool:
        return self._stream.get(session) == stream

    def check(self, session: SessionId, stream: str | None) -> None:
        """Raises OwnershipLost. A caller that is no stream (None) may always send."""
        if stream is None or self._stream.get(session) == stream:
            return
        if stream in self._lost:
            raise OwnershipLost("another worker has this session now", by="worker")
        raise OwnershipLost("a newer stream has resumed this session; this one has no say in it any more", by="stream")

    def check_lease(self) -> None:
        """Before an answer leaves. Raises OwnershipLost."""
        if not self._held():
            raise OwnershipLost("this worker was silent for too long; its sessions may be another one's", by="worker")

    def lose(self, session: SessionId) -> None:
        """Another worker has the session: its stream here must not bring it back by its next frame."""
        stream = self._stream.pop(session, None)
        if stream is not None:
            self._lost.add(stream)

    def leave(self, session: SessionId, stream: str) -> bool:
        """False: it was another one's."""
        self._lost.discard(stream)
        if self._stream.get(session) != stream:
            return False
        del self._stream[session]
        return True
