"""A deterministic Runtime without a model, whose masks depend on everything that came before.

The memory is a chaotic map of frames and first mask: leave one step out, swap two, or mix two sessions, and
from there on the masks are other ones. Each object is computed by itself: its neighbours do not matter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from service.core.ports import Features, Period, Seen, StepResult
from service.core.state import HostRows, State
from service.core.types import ImageU8, ModelInfo, StateSpec

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

    `batches`: what ran, as (kind, frames, objects), without `encoded`, what was encoded ahead; `wide`: whether they had
    all lanes. `gate` cleared holds every call until it is set. `poison(frame)` True makes the whole batch that holds
    such a frame fail; `failures` makes that many batches fail, whatever they hold, `unencodable(frame)` a frame's
    encoding. Calls that the port forbids beside each other fail the test.
    """

    def __init__(self, info: ModelInfo = INFO, delay_s: float = 0.0, lanes: int = 1) -> None:
        self.info = info
        self.delay_s = delay_s
        self.lanes = lanes
        self.wide: list[bool] = []
        self.encoded: list[ImageU8] = []
        self.unencodable: Callable[[ImageU8], bool] = lambda frame: False
        self.batches: list[tuple[str, int, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.poison: Callable[[ImageU8], bool] = lambda frame: False
        self.failures = 0
        self._entered: list[tuple[str, bool]] = []
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """A call is under way, held at the gate maybe."""
        return bool(self._entered)

    def initialise(self, frames: Sequence[ImageU8], masks: Sequence[NDArray[np.uint8]]) -> list[State]:
        self._run("initialise", frames, sum(len(own) for own in masks))
        states = []
        for frame, own in zip(frames, masks, strict=True):
            first = np.stack([_shrink(mask.astype(np.float16)) for mask in own])
            memory = (0.5 * first + 0.25 * _brightness(frame)).astype(np.float16)
            changing = HostRows(memory=memory, steps=np.zeros(len(own), np.float16))
            states.append(State(changing, HostRows(first=first)))
        return states

    def encode(self, frame: ImageU8, *, wide: bool = True) -> Seen:
        if self.lanes == 1:
            return frame
        began = time.perf_counter()
        with self._call("encode", wide):
            self.encoded.append(frame)
            if self.unencodable(frame):
                raise RuntimeError("a frame that cannot be encoded")
        return Features(frame.shape, {"frame": frame}, Period(began, began + 0.002))

    def step(self, frames: Sequence[Seen], states: Sequence[State], *, wide: bool = True) -> list[StepResult]:
        pixels = [_pixels(frame) for frame in frames]
        self._run("step", pixels, sum(state.objects for state in states), wide)
        return [_stepped(frame, state) for frame, state in zip(pixels, states, strict=True)]

    def _run(self, kind: str, frames: Sequence[ImageU8], objects: int, wide: bool = False) -> None:
        with self._call(kind, wide):
            with self._lock:
                self.batches.append((kind, len(frames), objects))
                self.wide.append(wide)
            if self.failures:
                self.failures -= 1
                raise RuntimeError("the fake runtime fails as it was told to")
            if any(self.poison(frame) for frame in frames):
                raise RuntimeError("a poisoned frame")

    @contextmanager
    def _call(self, kind: str, wide: bool) -> Iterator[None]:
        call = (kind, wide)
        with self._lock:
            self._entered.append(call)
            kinds = [kind for kind, _ in self._entered]
            assert len(kinds) <= self.lanes, "the runtime was called while it ran"
            assert kinds.count("initialise") <= 1, "openings beside each other"
            assert len(kinds) == 1 or not any(wide for _, wide in self._entered), "something beside a wide run"
        try:
            assert self.gate.wait(20), "the test left the gate shut"
            time.sleep(self.delay_s)
            yield
        finally:
            with self._lock:
                self._entered.remove(call)


def _pixels(frame: Seen) -> ImageU8:
    return np.asarray(frame.tensors["frame"], np.uint8) if isinstance(frame, Features) else frame


def _stepped(frame: ImageU8, state: State) -> StepResult:
    changing, constant = state.changing.tensors(), state.constant.tensors()
    memory, steps, first = (np.asarray(part, np.float16) for part in (*changing.values(), *constant.values()))
    light = _brightness(frame)
    memory = np.stack([_next_memory(*row, light) for row in zip(memory, first, steps, strict=True)])
    after = HostRows(memory=memory, steps=np.asarray(steps + 1, np.float16))
    return StepResult(memory.astype(np.float32), State(after, state.constant), compute_ms=1.0)


def _next_memory(
    memory: NDArray[np.float16], first: NDArray[np.float16], steps: np.float16, light: NDArray[np.float16]
) -> NDArray[np.float16]:
    stirred = memory.astype(np.float32) * 1.7 + light * 0.9 + first * 0.3 + float(steps) * 0.01
    return np.mod(stirred, 1).astype(np.float16)


def _brightness(frame: ImageU8) -> NDArray[np.float16]:
    return _shrink(frame.mean(axis=-1, dtype=np.float32).astype(np.float16)) / np.float16(255)


def _shrink(plane: NDArray[np.float16]) -> NDArray[np.float16]:
    return plane[::STRIDE, ::STRIDE]
