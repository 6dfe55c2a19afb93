"""A deterministic Runtime without a model, whose masks depend on everything that came before.

The memory is a chaotic map of frames and first mask: leave one step out, swap two, or mix two sessions, and
from there on the masks are other ones. Each object is computed by itself: its neighbours do not matter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.core.ports import StepResult
from service.core.types import ImageU8, ModelInfo, State, StateSpec

STRIDE = 4
INFO = ModelInfo(
    name="fake",
    digest="sha256:fa4e",
    pixel_budget=48 * 80,
    multiple=16,
    states=(
        StateSpec("memory", ("H/4", "W/4"), "float16", False),
        StateSpec("steps", (), "float16", False),
        StateSpec("first", ("H/4", "W/4"), "float16", True),
    ),
    training_data="none",
    licence="Apache-2.0",
    scores={},
    provider="CPUExecutionProvider",
)


class FakeRuntime:
    """The Runtime port.

    `batches`: what ran, as (kind, frames, objects). `gate` cleared holds every call until it is set.
    `poison(frame)` True makes the whole call that holds such a frame fail; `failures` makes that many calls
    fail, whatever they hold.
    """

    def __init__(self, info: ModelInfo = INFO, delay_s: float = 0.0) -> None:
        self.info = info
        self.delay_s = delay_s
        self.batches: list[tuple[str, int, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.poison: Callable[[ImageU8], bool] = lambda frame: False
        self.failures = 0
        self._entered = threading.Lock()

    @property
    def busy(self) -> bool:
        """A call is under way, held at the gate maybe."""
        return self._entered.locked()

    def initialise(self, frames: NDArray[np.uint8], masks: NDArray[np.uint8], frame_row: NDArray[np.int64]) -> State:
        self._run("initialise", frames, frame_row)
        pairs = list(zip(masks, frame_row, strict=True))
        first = np.stack([_shrink(mask.astype(np.float16)) for mask, _ in pairs])
        light = np.stack([_brightness(frames[row]) for _, row in pairs])
        memory = (0.5 * first + 0.25 * light).astype(np.float16)
        return {"memory": memory, "steps": np.zeros(len(pairs), np.float16), "first": first}

    def step(self, frames: NDArray[np.uint8], frame_row: NDArray[np.int64], state: State) -> StepResult:
        self._run("step", frames, frame_row)
        memory = np.stack(
            [
                _next_memory(memory, first, steps, _brightness(frames[row]))
                for memory, first, steps, row in zip(
                    np.asarray(state["memory"], np.float16),
                    np.asarray(state["first"], np.float16),
                    np.asarray(state["steps"], np.float16),
                    frame_row,
                    strict=True,
                )
            ]
        )
        steps = np.asarray(np.asarray(state["steps"], np.float16) + 1, np.float16)
        after: State = {"memory": memory, "steps": steps, "first": state["first"]}
        return StepResult(memory.astype(np.float32), after, compute_ms=1.0)

    def _run(self, kind: str, frames: NDArray[np.uint8], frame_row: NDArray[np.int64]) -> None:
        assert self._entered.acquire(blocking=False), "the runtime was called while it ran"
        try:
            assert self.gate.wait(20), "the test left the gate shut"
            time.sleep(self.delay_s)
            self.batches.append((kind, len(frames), len(frame_row)))
            if self.failures:
                self.failures -= 1
                raise RuntimeError("the fake runtime fails as it was told to")
            if any(self.poison(frame) for frame in frames):
                raise RuntimeError("a poisoned frame")
        finally:
            self._entered.release()


def _next_memory(
    memory: NDArray[np.float16], first: NDArray[np.float16], steps: np.float16, light: NDArray[np.float16]
) -> NDArray[np.float16]:
    stirred = memory.astype(np.float32) * 1.7 + light * 0.9 + first * 0.3 + float(steps) * 0.01
    return np.mod(stirred, 1).astype(np.float16)


def _brightness(frame: ImageU8) -> NDArray[np.float16]:
    return _shrink(frame.mean(axis=-1, dtype=np.float32).astype(np.float16)) / np.float16(255)


def _shrink(plane: NDArray[np.float16]) -> NDArray[np.float16]:
    return plane[::STRIDE, ::STRIDE]
