"""Several contenders in turns: a machine whose speed swings within minutes swings for all of them alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import TypeVar

_Seen = TypeVar("_Seen")
_SLICE_S = 3.0
# Where so many were asked for: one would not tell how far they stray.
_FEWEST = 2


def rounds(seconds: float) -> int:
    """Slices of about three seconds each: long beside a window of frames, short beside the swings."""
    return max(1, round(seconds / _SLICE_S))


async def in_turns(
    contenders: Mapping[str, Callable[[float], Awaitable[_Seen]]],
    seconds: float,
    advance: Callable[[float], object] = lambda share: None,
) -> dict[str, list[_Seen]]:
    """`seconds` of each contender, in slices. Forth and back, A B C C B A, so that a machine that slows down steadily
    does so for all of them. Fewer slices where they take longer than they were asked to. `advance` is told the share of
    one contender's time that has passed."""
    count = rounds(seconds)
    seen: dict[str, list[_Seen]] = {name: [] for name in contenders}
    began = perf_counter()
    for turn in range(count):
        taken = perf_counter() - began
        if turn >= _FEWEST and taken + taken / turn / 2 > seconds * len(contenders):  # not half a round is left
            advance(len(contenders) * (1 - turn / count))
            break
        for name in list(contenders) if turn % 2 == 0 else reversed(list(contenders)):
            seen[name].append(await contenders[name](seconds / count))
            advance(1 / count)
    return seen
