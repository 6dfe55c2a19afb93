"""One accepted frame on its way: decoded at once, stepped in its turn, answered in its turn.

So frame n+1 is decoded while n is computed, and computed while n is encoded; the order of states and answers
is that of the indices all the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from service.core.errors import FrameGap, InvalidInput, S2sppError
from service.core.ports import EngineObserver, FrameTimes, StepQueue
from service.core.types import EncodedImage, Failure, ImageU8
from service.engine.faults import told
from service.engine.pixels import make_answer, read_frame
from service.engine.session import Entry, Outcome, Turn
from service.engine.table import Resident
from service.imaging import ImageLimits

_Result = TypeVar("_Result")


class _PredecessorFailed(Exception):
    """A frame before this one is gone from the order, and with it the state that this one was to step."""


class Stepper:
    """Takes accepted frames to their outcome."""

    def __init__(self, queue: StepQueue, threads: Executor, limits: ImageLimits, observer: EngineObserver) -> None:
        self._queue = queue
        self._threads = threads
        self._limits = limits
        self._observer = observer

    async def answer(
        self, resident: Resident, entry: Entry, image: EncodedImage, before: Turn, turn: Turn
    ) -> Outcome | S2sppError:
        """The outcome, settled in the session; or the error to raise, the frame's index being open again."""
        session = resident.session
        try:
            return await self._answer(resident, entry, image, before, turn)
        except _PredecessorFailed:
            return FrameGap(
                f"frame {entry.index} cannot be answered, because one before it failed; "
                f"send frame {session.next_frame} next",
                expected=session.next_frame,
            )
        except Exception as error:
            session.roll_back(entry, before)
            problem = told(error, f"answering frame {entry.index} of session {session.id}")
            self._observer.frame_failed(problem.reason)
            return problem
        finally:
            turn.abandon()

    async def _answer(self, resident: Resident, entry: Entry, image: EncodedImage, before: Turn, turn: Turn) -> Outcome:
        session = resident.session
        read = await self._read(resident, image)
        state = await before.stepped
        if state is None:
            raise _PredecessorFailed
        if resident.commits.gone is not None:
            raise resident.commits.gone
        outcome: Outcome
        if isinstance(read, InvalidInput):
            times = None
            outcome = Failure(entry.index, read.reason, read.message, read.metadata)
            turn.stepped.set_result(state)
        else:
            frame, decode_s = read
            result = await self._queue.step(frame, state)
            state = result.state
            turn.stepped.set_result(state)
            outcome, encode_s = await self._timed(
                lambda: make_answer(
                    entry.index,
                    result.probability,
                    session.object_ids,
                    session.frame_size,
                    session.options.mask_format,
                    result.compute_ms,
                )
            )
            times = FrameTimes(decode_s, result.queue_ms / 1e3, result.compute_ms / 1e3, encode_s)
        if not await before.settled:
            raise _PredecessorFailed
        session.settle(entry, outcome, state)
        turn.settled.set_result(True)
        if times is not None:
            self._observer.frame_answered(times)
        elif isinstance(outcome, Failure):
            self._observer.frame_failed(outcome.reason)
        return outcome

    async def _read(self, resident: Resident, image: EncodedImage) -> tuple[ImageU8, float] | InvalidInput:
        session = resident.session
        try:
            return await self._timed(lambda: read_frame(image, self._limits, session.frame_size, session.size))
        except InvalidInput as error:
            return error

    async def _timed(self, work: Callable[[], _Result]) -> tuple[_Result, float]:
        """Run in a thread; the seconds are those of the work itself."""

        def measured() -> tuple[_Result, float]:
            began = time.perf_counter()
            result = work()
            return result, time.perf_counter() - began

        return await asyncio.get_running_loop().run_in_executor(self._threads, measured)
