"""Ports: what the rooms ask of each other. Fakes in the tests implement these, clock included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.state import State, Tensors
from service.core.types import (
    Answer,
    Durability,
    EncodedImage,
    Failure,
    ImageU8,
    ModelInfo,
    ObjectChange,
    SessionId,
    SessionInfo,
    SessionOptions,
    Snapshot,
)

_Result = TypeVar("_Result")


class Clock(Protocol):
    """Monotonic seconds."""

    def __call__(self) -> float: ...


class Period(NamedTuple):
    """From `began` to `ended`, readings of `time.perf_counter`."""

    began: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True)
class Features:
    """What a model makes of a frame alone, all that its objects see of it. `shape`: the frame's own, [h,w,3]. `made`:
    the run that made them."""

    shape: tuple[int, ...]
    tensors: Tensors
    made: Period


Seen = ImageU8 | Features
"""A frame [h,w,3] RGB on its way to a step: as it is, or encoded already."""


@dataclass(frozen=True)
class StepResult:
    """Of one frame. `probability`: float32 [N, H/s, W/s], s the bundle's output stride. `compute_ms`: of the run,
    encoding included where it was done in it. `queue_ms`: how long the frame waited for its run to begin; a runtime
    leaves it 0, the queue sets it."""

    probability: NDArray[np.float32]
    state: State
    compute_ms: float
    queue_ms: float = 0.0


class Runtime(Protocol):
    """A model bundle, ready to run. Calls block. All frames of one call have one size.

    `wide`: on all cores; else on one, beside other calls. What comes out is the same, to the bit."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def lanes(self) -> int:
        """So many calls that are not wide may be under way at a time. 1: one call at a time, and nothing is gained by
        `encode`."""
        ...

    def initialise(self, frames: Sequence[ImageU8], masks: Sequence[NDArray[np.uint8]]) -> list[State]:
        """Of each frame the state of the objects on it, whose `masks` are [N,h,w] 0/1. One call at a time, beside
        others."""
        ...

    def encode(self, frame: ImageU8, *, wide: bool = True) -> Seen:
        """What can be done before the frame's turn: it needs no state."""
        ...

    def step(self, frames: Sequence[Seen], states: Sequence[State], *, wide: bool = True) -> list[StepResult]:
        """One recurrent step on each frame, of the objects that its state is of. A result keeps nothing alive of the
        others."""
        ...


class StepQueue(Protocol):
    """The runtime as the engine sees it, shared by all sessions: one frame and its objects in, the result of just these
    out. `urgent`: before those that wait, and of several the one with the lowest number."""

    @property
    def ahead(self) -> int:
        """So many frames of a session may be read and encoded, or under way to it, before their step begins: more would
        keep no core busier."""
        ...

    async def initialise(self, frame: ImageU8, masks: NDArray[np.uint8]) -> State: ...

    async def encode(self, frame: ImageU8, *, urgent: float | None = None) -> Seen: ...

    async def step(self, frame: Seen, state: State, *, urgent: float | None = None) -> StepResult: ...

    def idle(self, objects: int) -> bool:
        """Nothing runs and nothing waits; and a frame with so many objects would run as one."""
        ...

    async def alone(self, work: Callable[[Callable[[ImageU8, State], StepResult]], _Result]) -> _Result:
        """Run `work` in the runtime's thread, where it steps by the function that it is given: all that a frame takes,
        without waiting for another thread. For who finds the queue idle: others wait for all of it."""
        ...


class SessionStore(Protocol):
    """Durable home of snapshots. Every method raises Unavailable when the store cannot be reached."""

    async def save(self, snapshot: Snapshot, ttl_s: float, *, constant: bool, existing: bool = False) -> int:
        """Returns the epoch of this worker's ownership, once the snapshot is durable. `constant` False: the constant
        states are there already. Writing replaces what the session had; answers no longer in the outbox are forgotten.
        `existing`, and where `constant` is False: raises SessionUnknown or SessionExpired when the session is gone,
        OwnershipLost when another worker has taken it. One that does not exist yet is this worker's from now on."""
        ...

    async def load(self, session: SessionId) -> Snapshot:
        """Takes the session: from now on no other worker can save it. Raises SessionUnknown, or SessionExpired for a
        session that was there once."""
        ...

    async def held(self, session: SessionId) -> bool:
        """Whether the session is this worker's still: nobody else has taken or deleted it."""
        ...

    async def touch(self, session: SessionId, ttl_s: float) -> None: ...

    async def delete(self, session: SessionId) -> None:
        """Raises SessionUnknown or SessionExpired when there is nothing to delete."""
        ...

    async def note(self, name: str, value: bytes, ttl_s: float, *, new: bool = False) -> bytes:
        """Keeps `value` under `name`, beside the sessions; `new`: only where nothing is kept yet. Returns, once that is
        durable, what is kept now. `name`: any text, in a space of its own."""
        ...

    async def recall(self, name: str) -> bytes | None:
        """What `note` keeps under `name`, None where that is nothing (any more)."""
        ...

    async def ping(self) -> None: ...


@dataclass(frozen=True)
class Opened:
    info: SessionInfo
    state_bytes: int
    """Bytes of state that the session keeps, all objects together, constant ones included."""
    replayed: bool = False
    """It was opened before, by a request with the same idempotency key."""


@dataclass(frozen=True)
class Delivered:
    """An answer, how far the session is safe, and the epoch of the worker that says so."""

    answer: Answer
    committed_frame: int
    epoch: int = 0


@dataclass(frozen=True)
class Resumed:
    """`info.next_frame` is what to send next, `answers` those of the frames before it that the caller has not taken, in
    their order. A frame that is under way counts as not sent: sent again, it gets the answer that is being made."""

    info: SessionInfo
    answers: tuple[Answer | Failure, ...]


class Engine(Protocol):
    """The one core under every transport. Raises service.core.errors only."""

    async def open(
        self,
        frame: EncodedImage,
        mask: EncodedImage,
        options: SessionOptions,
        *,
        client: str = "",
        idempotency_key: str | None = None,
        stream: str | None = None,
    ) -> Opened:
        """Frame 0 and its mask. Returned once the first snapshot is stored. `client`: who asks, by address; "" is
        nobody in particular, and has no limit of its own. `idempotency_key`: the same request with the same key opens
        one session, however often it is sent within a day and whatever crashes meanwhile, and is told what it was told
        first. IdempotencyKeyReused for another request, IdempotencyKeyInUse while the first is under way;
        SessionUnknown or SessionExpired when the session is gone since. The session is `stream`'s, if one is
        named."""
        ...

    def refuse_if_full(self, client: str = "") -> None:
        """Raises Overloaded when `client` could open no session now: to be asked before a large request is read."""
        ...

    async def segment(
        self,
        session: SessionId,
        frame_index: int,
        frame: EncodedImage,
        *,
        durability: Durability,
        received_through: int | None = None,
        told_committed: int = 0,
        stream: str | None = None,
        again: bool = False,
    ) -> Delivered:
        """The next frame, or one that was sent before (same bytes back). Calls for consecutive frames may overlap; the
        order of the calls is the order of the frames. `received_through` None: frame_index - 1. `stream`: who sends, by
        the name that it opened or resumed with; OwnershipLost once another one has resumed the session. In a realtime
        session indices may be skipped, and FrameDropped is raised for a frame that a newer one has overtaken.
        `told_committed`: as in `resume`. `again`: it was sent before a crash; as
        many as one can take need not wait for others."""
        ...

    async def resume(
        self,
        session: SessionId,
        received_through: int | None,
        stream: str | None = None,
        told_committed: int = 0,
    ) -> Resumed:
        """Where a session stands, for a caller whose connection or server was lost: the answers after
        `received_through` that are made; None: none of them. After a crash `next_frame` may be one
        whose mask was taken: it is to be sent again. `told_committed`: the highest committed_frame that the caller has
        heard of; SessionRolledBack when the store has lost it. FrameAcknowledged for answers that the caller said it
        had. From now on the session is `stream`'s."""
        ...

    async def leave(self, session: SessionId, stream: str) -> None:
        """The stream has ended: the session, if it is still this one's, is nobody's, and what it did is stored soon.
        Raises nothing."""
        ...

    def pause(self, session: SessionId, stream: str) -> bool:
        """`stream` is about to end here: its frames whose step has not begun are given back. They raise Unavailable,
        and are to be sent anew, wherever the session goes on. Over with `release`, `leave` or `resume`. False: the
        session is not in use here, or another stream's."""
        ...

    async def release(self, session: SessionId, stream: str | None = None) -> SessionInfo:
        """Store all that was answered, and let the session go: another worker takes it up without a step done twice.
        It comes back with its next use. Raises OwnershipLost: it is another stream's."""
        ...

    async def change(
        self,
        session: SessionId,
        frame_index: int | None,
        change: ObjectChange,
        *,
        durability: Durability,
        ordinal: int | None = None,
        stream: str | None = None,
    ) -> SessionInfo:
        """Change the objects after frame `frame_index`, the last one sent (0: the first; None: whichever it is), and
        before the next. `ordinal`: it is so manieth change after that frame, from 1; sent again it has no further
        effect. None: nor has one that is the same as the last after that frame. Like frames, calls may overlap those
        around them, and take effect in the order of the calls. One that cannot be used changes nothing."""
        ...

    def committed_frame(self, session: SessionId, stream: str) -> int:
        """The last frame of `stream`'s session that is known here, without asking anybody, to be stored."""
        ...

    async def describe(self, session: SessionId) -> SessionInfo: ...

    async def delete(self, session: SessionId) -> None: ...

    async def ready(self) -> None:
        """Raises Unavailable when a session could not be served now."""
        ...

    def models(self) -> Sequence[ModelInfo]: ...


@dataclass(frozen=True)
class FrameTimes:
    """Where the time of one answered frame went. `total`: from its acceptance until its answer was ready; what is in
    none of the stages was spent waiting for the frames before, or for a thread. `features`: encoding it ahead of its
    turn, None where that was part of its step. `queue`: from handing the frame to the runtime until its run began.
    `compute`: that run inside the model, all frames of its batch together."""

    frame_index: int
    total: Period
    decode: Period
    features: Period | None
    queue: Period
    compute: Period
    encode: Period

    def stages(self) -> dict[str, Period]:
        """In their order, by name."""
        stages = {"decode": self.decode, "features": self.features, "queue": self.queue, "compute": self.compute}
        return {name: period for name, period in {**stages, "encode": self.encode}.items() if period is not None}


CommitResult = Literal["stored", "failed", "refused"]


class EngineObserver(Protocol):
    """What telemetry hears of the engine. Called on the event loop: must return at once and must not raise."""

    def session_opened(self) -> None: ...

    def session_restored(self) -> None:
        """Brought back from the store into memory."""
        ...

    def session_resumed(self) -> None:
        """A caller whose connection or server was lost goes on."""
        ...

    def session_parked(self) -> None:
        """Stored, and out of memory until its next use."""
        ...

    def session_expired(self) -> None: ...

    def session_deleted(self) -> None: ...

    def sessions_in_memory(self, count: int) -> None: ...

    def frame_answered(self, times: FrameTimes) -> None:
        """A frame was stepped and its answer made; not called for an answer that is given again."""
        ...

    def frame_failed(self, reason: str) -> None:
        """A frame could not be used or the model failed on it; `reason` as in service.core.errors."""
        ...

    def frame_dropped(self) -> None:
        """A frame of a live stream was answered DROPPED, without a step."""
        ...

    def commit_ended(self, seconds: float, result: CommitResult, age_s: float | None) -> None:
        """One save of a snapshot (it may cover several frames): it is stored, it failed, or it was refused since
        another worker has the session. `age_s`: since the oldest frame that it covers was answered; None where it
        covers none."""
        ...
