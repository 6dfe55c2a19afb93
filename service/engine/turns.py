"""The order of a session: every accepted frame, and every change of the objects, waits for the one before it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from service.core.errors import FrameDropped, S2sppError
from service.core.types import Answer, Failure
from service.engine.objects import Change, Followed

Outcome = Answer | Failure


@dataclass(eq=False)
class Turn:
    """What comes next in a session waits for this. `begun`: its step is under way, or never will be. `stepped`: objects
    and state after it, None when they will never come. `settled`: whether its answer stands."""

    begun: asyncio.Future[None]
    stepped: asyncio.Future[Followed | None]
    settled: asyncio.Future[bool]

    @classmethod
    def waiting(cls) -> Turn:
        loop = asyncio.get_running_loop()
        return cls(loop.create_future(), loop.create_future(), loop.create_future())

    @classmethod
    def over(cls, followed: Followed) -> Turn:
        turn = cls.waiting()
        turn.step(followed)
        turn.settled.set_result(True)
        return turn

    def begin(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    def step(self, followed: Followed) -> None:
        self.begin()
        self.stepped.set_result(followed)

    @property
    def abandoned(self) -> bool:
        return self.stepped.done() and self.stepped.result() is None

    def abandon(self) -> None:
        """Nothing more comes of this frame: those behind it must not step."""
        self.begin()
        if not self.stepped.done():
            self.stepped.set_result(None)
        if not self.settled.done():
            self.settled.set_result(False)


class Ahead:
    """Frames of a session that are read before their turn: so many at a time as `most` says then, in their order."""

    def __init__(self) -> None:
        self._reading = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self, turn: Turn, most: Callable[[], int]) -> None:
        """Waits until the frame of `turn` may be read; it counts until its step begins."""
        if self._waiting or self._reading >= most():
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting
        else:
            self._reading += 1
        turn.begun.add_done_callback(lambda _: self._leave(most))

    def _leave(self, most: Callable[[], int]) -> None:
        self._reading -= 1
        while self._waiting and self._reading < max(1, most()):
            if not (waiting := self._waiting.popleft()).done():
                self._reading += 1
                waiting.set_result(None)


@dataclass(eq=False)
class Entry:
    """A frame in the outbox. `work` is the engine's own task, so a caller that departs cancels nothing; None
    when the outcome came out of the store. `changes_before`: those between the frame before and this one.
    `instead_of`: the failure that is tried anew. `next_before`: the index that was expected before it. `urgent`: it was
    sent before a crash already, and came here at that reading of the engine's clock. `of_stream`: no single call sent
    it."""

    index: int
    outcome: Outcome | None = None
    revision: int = 0
    work: asyncio.Task[Outcome | S2sppError] | None = field(default=None, repr=False)
    changes_before: list[Change] = field(default_factory=list, repr=False)
    instead_of: Entry | None = field(default=None, repr=False)
    next_before: int = 0
    urgent: float | None = None
    of_stream: bool = False

    @property
    def comes_after(self) -> int:
        """The frame that had been the last one when this index came first."""
        return self.next_before - 1 if self.instead_of is None else self.instead_of.comes_after


def overtaken(frame_index: int) -> FrameDropped:
    """What is said of a realtime frame that is not stepped any more."""
    return FrameDropped(f"frame {frame_index} was dropped: a newer one had come before its turn")
