"""Shapes that travel between the rooms. Legend: N objects, F frames, H x W pixels, h x w the model's own grid."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType

import numpy as np
from numpy.typing import NDArray

from service.core.errors import SessionUnknown
from service.core.state import State

SessionId = NewType("SessionId", str)
ImageU8 = NDArray[np.uint8]
"""RGB frame uint8 [H,W,3]."""
LabelMap = NDArray[np.uint8]
"""Object ids uint8 [H,W]; 0 is background, 1..255 are objects."""

SESSION_ID_PATTERN = "^[A-Za-z0-9_-]{32}$"


def new_session_id() -> SessionId:
    """192 random bits: not to be guessed, safe in URLs and in Redis keys."""
    return SessionId(secrets.token_urlsafe(24))


PASSING_KEY = "s2spp-once-"


def passing_key() -> str:
    """An idempotency key that this software makes up, to be able to send a request again while it is tried: not worth
    being known for a day."""
    return PASSING_KEY + secrets.token_hex(16)


def parse_session_id(text: str) -> SessionId:
    """What cannot be a session's id names no session: SessionUnknown, as of one that is not there."""
    if not re.fullmatch(SESSION_ID_PATTERN, text):
        raise SessionUnknown(f"not a session id: {text[:64]!r}; use the id that opening a session returned")
    return SessionId(text)


class ImageFormat(StrEnum):
    """How a frame travels. AUTO: the file's own signature decides among JPEG, PNG, WebP."""

    AUTO = "auto"
    RAW_RGB8 = "raw-rgb8"


@dataclass(frozen=True)
class EncodedImage:
    """A frame or mask as it arrived. `height` and `width` are needed for RAW_RGB8 only."""

    data: bytes
    format: ImageFormat = ImageFormat.AUTO
    height: int = 0
    width: int = 0


class MaskFormat(StrEnum):
    """How masks travel back. PNG: indexed, DAVIS palette. RAW: H*W bytes of object ids. RLE: JSON, for each object
    `object_id` and COCO's `size` and `counts`. PROBABILITY: a grey PNG of the objects' planes [H,W], one below the
    other in the order of the reports; an object's own probability in 1/255, 128 and more being above one half."""

    PNG = "png"
    RAW = "raw"
    RLE = "rle"
    PROBABILITY = "probability"


class Durability(StrEnum):
    """STRICT: an answer leaves only once the store has it. RELAXED: commits follow behind, every few frames."""

    STRICT = "strict"
    RELAXED = "relaxed"


class Flow(StrEnum):
    """LOSSLESS: every frame is stepped, and a sender that is too fast is slowed. REALTIME, for a live camera: of the
    frames that wait, the newest is stepped; the others are answered FRAME_DROPPED, and the caller may skip indices."""

    LOSSLESS = "lossless"
    REALTIME = "realtime"


@dataclass(frozen=True)
class DrawObjects:
    """Objects drawn on the frame that was sent last, which comes along: every id of `mask` is added, or starts again
    from there where it is followed already. The others go on. `as_object`: all that `mask` marks is this one object."""

    frame: EncodedImage
    mask: EncodedImage
    as_object: int | None = None


@dataclass(frozen=True)
class RemoveObject:
    object_id: int


ObjectChange = DrawObjects | RemoveObject


@dataclass(frozen=True)
class SessionOptions:
    mask_format: MaskFormat = MaskFormat.PNG
    flow: Flow = Flow.LOSSLESS


@dataclass(frozen=True)
class ObjectReport:
    """What is said of one object in one frame. `box`: x, y, width, height in pixels, all 0 when it has none.
    `confidence`: mean probability over the object's pixels, 0 when it has none. `visible`: the model is sure of one of
    its pixels at least (engine/pixels.py has the rule); few unsure ones are what is often left of an object that is
    gone, and stay in the mask."""

    object_id: int
    area: int
    box: tuple[int, int, int, int]
    confidence: float
    visible: bool

    @classmethod
    def certain(cls, object_id: int, inside: NDArray[np.bool_]) -> ObjectReport:
        """Of an object whose pixels, `inside` [H,W], were given: that of a first mask."""
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        if not len(rows):
            return cls(object_id, 0, (0, 0, 0, 0), 0.0, visible=False)
        x, y = int(columns[0]), int(rows[0])
        box = (x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)
        return cls(object_id, int(np.count_nonzero(inside)), box, 1.0, visible=True)


@dataclass(frozen=True)
class Answer:
    """The answer to one frame. The same bytes come back whenever the frame is sent again before it is acknowledged.
    `mask` is encoded as `mask_format` says, `height` x `width` being the frame's own size.
    `compute_ms`: the share of time inside the model runtime; 0 in a replayed answer of another process."""

    frame_index: int
    mask: bytes
    mask_format: MaskFormat
    height: int
    width: int
    objects: tuple[ObjectReport, ...]
    compute_ms: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Failure:
    """The answer to a frame that could not be used (not an image, wrong size) or was dropped (realtime): the index is
    taken, the state did not step. The index last sent may be sent again, or the next one, whichever the caller
    prefers."""

    frame_index: int
    reason: str
    message: str
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class SessionInfo:
    """Public view of a session. `next_frame`: the index expected next. `committed_frame`: the last index that
    survives a crash. `expires_in_s`: seconds of idling left. `epoch`: rises whenever another worker
    takes the session over."""

    session: SessionId
    model: str
    model_digest: str
    height: int
    width: int
    object_ids: tuple[int, ...]
    next_frame: int
    committed_frame: int
    expires_in_s: float
    epoch: int = 0


@dataclass(frozen=True)
class StateSpec:
    """One state tensor of the model contract; `shape` without N, symbolic where it follows the input size
    (for example "H/16"). A `constant` state is written by init only, and committed once."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    constant: bool


@dataclass(frozen=True)
class ModelInfo:
    """What /v1/models says. `pixel_budget` and `multiple`: see s2spp.geometry. `scores`: measured, as in the card.
    `chosen`: why this model serves, for people."""

    name: str
    digest: str
    pixel_budget: int
    multiple: int
    states: tuple[StateSpec, ...]
    training_data: str
    licence: str
    scores: Mapping[str, float]
    provider: str
    chosen: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Everything that brings a session back, bit for bit. `state` has its rows in the
    order of `object_ids`. `outbox`: answers after `received_through`, oldest first. `changes`: digests of the
    changes of objects that were made since the last frame before `next_frame`, in their order, should they be sent
    again. `client`: who opened it, by address."""

    session: SessionId
    model_digest: str
    options: SessionOptions
    height: int
    width: int
    object_ids: tuple[int, ...]
    next_frame: int
    received_through: int
    state: State
    outbox: tuple[Answer | Failure, ...]
    changes: tuple[str, ...] = ()
    client: str = ""
    epoch: int = field(default=0, compare=False)
    """How often the session changed hands, as the store has it; no part of what is stored."""

    def stored_bytes(self, *, constant: bool) -> int:
        """What a save of it takes: states and masks, not the few hundred bytes beside them."""
        masks = (len(kept.mask) for kept in self.outbox if isinstance(kept, Answer))
        return (self.state if constant else self.state.changing).nbytes + sum(masks)
