"""The keys in Redis. The braces put a session's keys into one slot of a Redis Cluster."""

from __future__ import annotations

import hashlib

from service.core.types import SessionId


def snapshot_key(session: SessionId) -> str:
    return f"s2spp:{{{session}}}:snapshot"


def owner_key(session: SessionId) -> str:
    return f"s2spp:{{{session}}}:owner"


def note_key(name: str) -> str:
    """Names are the callers', of any length and any characters: a brace of theirs must not choose the slot."""
    return f"s2spp:note:{hashlib.sha256(name.encode()).hexdigest()}"


def session_keys(session: SessionId) -> list[str]:
    """Both, as the scripts take them."""
    return [snapshot_key(session), owner_key(session)]
