"""What only the store in memory has to care for: it grows with what is alive, not with what ever was."""

from __future__ import annotations

import gc
import weakref

import pytest

from service.core.errors import SessionExpired, SessionUnknown
from service.store.memory import MemorySessionStore
from tests.fakes.clock import FakeClock
from tests.fakes.store import make_snapshot


async def test_an_expired_session_frees_its_state_and_is_forgotten_after_a_day() -> None:
    clock = FakeClock()
    store = MemorySessionStore(clock)
    snapshot = make_snapshot()
    session, kept = snapshot.session, weakref.ref(snapshot)
    await store.save(snapshot, 60, constant=True)
    del snapshot
    clock.advance(61)
    with pytest.raises(SessionExpired):
        await store.load(session)
    gc.collect()
    assert kept() is None
    clock.advance(24 * 3600)
    with pytest.raises(SessionUnknown):
        await store.load(session)
