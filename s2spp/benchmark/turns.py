"""Several contenders in turns: a machine whose speed swings within minutes swings for all of them alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

_Seen = TypeVar("_Seen")
_SLICE_S = 3.0


def rounds(seconds: float) -> int:
    """Slices of about three seconds each: long beside a window of frames, short beside the swings."""
    return max(1, round(seconds / _SLICE_S))


async def in_turns(
    contenders: Mapping[str, Callable[[float], Awaitable[_Seen]]],
    seconds: float,
    advance: Callable[[float], object] = lambda share: None,
) -> dict[str, list[_Seen]]:
    """`seconds` of each contender, in slices. Forth and back, A B C C B A, so that a machine that slows down steadily
    does so for all of them. `advance` is told the share of one contender's time that has passed."""
    count = rounds(seconds)
    seen: dict[str, list[_Seen]] = {name: [] for name in contenders}
    for turn in range(count):
        for name in list(contenders) if turn % 2 == 0 else reversed(list(contenders)):
            seen[name].append(await contenders[name](seconds / count))
            advance(1 / count)
    return seen
