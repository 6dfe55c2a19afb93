"""Words of messages."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """1 mask, 2 masks."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
