"""What a store says of a session that it does not have."""

from __future__ import annotations

from service.core.errors import S2sppError, SessionExpired, SessionUnknown
from service.core.types import SessionId

SEEN_FOR_S = 24 * 3600.0
"""How long an expired session is told from one that never was."""


def absent(session: SessionId, *, expired: bool) -> S2sppError:
    if expired:
        return SessionExpired(f"session {session} has expired; open a new one", session=session)
    return SessionUnknown(f"no session {session} is known; it was deleted, or never opened", session=session)
