"""A session store that can be sent away, and snapshots to put into stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from service.core.errors import Unavailable
from service.core.state import HostRows, Rows, State
from service.core.types import (
    Answer,
    Failure,
    MaskFormat,
    ObjectReport,
    SessionId,
    SessionOptions,
    Snapshot,
    new_session_id,
)
from service.store.memory import MemorySessionStore


class InMemorySessionStore(MemorySessionStore):
    """`away` True: every call raises Unavailable, and nothing is lost."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.away = False

    @property
    def session_ids(self) -> set[SessionId]:
        return set(self._sessions)

    async def save(self, snapshot: Snapshot, ttl_s: float, *, constant: bool, existing: bool = False) -> int:
        self._reach()
        return await super().save(snapshot, ttl_s, constant=constant, existing=existing)

    async def load(self, session: SessionId) -> Snapshot:
        self._reach()
        return await super().load(session)

    async def touch(self, session: SessionId, ttl_s: float) -> None:
        self._reach()
        await super().touch(session, ttl_s)

    async def delete(self, session: SessionId) -> None:
        self._reach()
        await super().delete(session)

    async def note(self, name: str, value: bytes, ttl_s: float, *, new: bool = False) -> bytes:
        self._reach()
        return await super().note(name, value, ttl_s, new=new)

    async def recall(self, name: str) -> bytes | None:
        self._reach()
        return await super().recall(name)

    async def ping(self) -> None:
        self._reach()

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("the store is away; try again")


def make_snapshot(
    session: SessionId | None = None, *, next_frame: int = 8, object_ids: tuple[int, ...] = (1, 7)
) -> Snapshot:
    """Two answers in the outbox, one of them a failure. The changing state follows `next_frame`."""
    random = np.random.default_rng(next_frame)

    def state(*shape: int) -> np.ndarray:
        bits = random.integers(0, 1 << 16, (len(object_ids), *shape), np.uint16)
        return bits.view(np.float16)  # any bits, NaNs of every payload among them

    constant = np.full((len(object_ids), 3, 5), 0.25, np.float16)
    reports = tuple(ObjectReport(object_id, 12, (3, 4, 5, 6), 0.875, object_id == 1) for object_id in object_ids)
    return Snapshot(
        session=session or new_session_id(),
        model_digest="sha256:00ff",
        options=SessionOptions(mask_format=MaskFormat.RAW),
        height=480,
        width=854,
        object_ids=object_ids,
        next_frame=next_frame,
        received_through=next_frame - 3,
        state=State(HostRows(rnn1_h=state(4, 6, 8), rnn1_c=state(2, 3)), HostRows(first_key=constant)),
        outbox=(
            Answer(next_frame - 2, random.bytes(64), MaskFormat.RAW, 480, 854, reports, compute_ms=3.5),
            Failure(next_frame - 1, "INVALID_IMAGE", "not an image", {"field": "frame"}),
        ),
    )


def assert_same(one: Snapshot, other: Snapshot) -> None:
    """Equal, the states bit for bit."""
    assert _bits(one.state.changing) == _bits(other.state.changing), "changing"
    assert _bits(one.state.constant) == _bits(other.state.constant), "constant"
    empty = State(HostRows(), HostRows())
    bare = [replace(snapshot, state=empty) for snapshot in (one, other)]
    assert bare[0] == bare[1]


def _bits(rows: Rows) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (tensor.dtype.str, tensor.shape, tensor.tobytes()) for name, tensor in rows.tensors().items()}
