"""A deterministic Engine without a model: frame n's mask is the first mask, moved n pixels to the right."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from service.core.errors import FrameGap, InvalidImage, InvalidMask, SessionUnknown
from service.core.ports import Delivered, Opened, Resumed
from service.core.types import (
    Answer,
    Durability,
    EncodedImage,
    ImageFormat,
    MaskFormat,
    ModelInfo,
    ObjectChange,
    ObjectReport,
    RemoveObject,
    SessionId,
    SessionInfo,
    SessionOptions,
    StateSpec,
    new_session_id,
)
from service.imaging.header import ImageLimits
from service.imaging.mask import decode_mask

MODEL = ModelInfo(
    name="fake",
    digest="sha256:00ff",
    pixel_budget=256 * 448,
    multiple=16,
    states=(StateSpec("rnn1_h", (64, "H/16", "W/16"), "float16", False),),
    training_data="none",
    licence="Apache-2.0",
    scores={"J": 0.5, "F": 0.25},
    provider="CPUExecutionProvider",
)


@dataclass(frozen=True)
class Call:
    """One call of `segment`, as it arrived."""

    session: SessionId
    frame_index: int
    frame: EncodedImage
    durability: Durability
    received_through: int | None


@dataclass
class FakeSession:
    labels: NDArray[np.uint8]
    options: SessionOptions
    next_frame: int = 1


class FakeEngine:
    """`hold(n)` keeps frame n unanswered until `release(n)`. `frame_failures[n]` is raised for frame n;
    `failure`, when set, by every method. Sessions have one object per id in the mask."""

    def __init__(self) -> None:
        self.sessions: dict[SessionId, FakeSession] = {}
        self.clients: list[str] = []
        self.keys: dict[str, SessionId] = {}
        self.calls: list[Call] = []
        self.streams: list[str | None] = []
        self.opened: list[tuple[EncodedImage, EncodedImage, SessionOptions]] = []
        self.deleted: list[SessionId] = []
        self.left: list[str] = []
        self.changes: list[tuple[SessionId, int | None, ObjectChange, Durability]] = []
        self.ordinals: list[int | None] = []
        self.failure: Exception | None = None
        self.frame_failures: dict[int, Exception] = {}
        self.in_flight = 0
        self.most_in_flight = 0
        self.cancelled = 0
        self._held: dict[int, asyncio.Event] = {}

    def hold(self, *frame_indices: int) -> None:
        self._held |= {frame_index: asyncio.Event() for frame_index in frame_indices}

    def unhold(self, *frame_indices: int) -> None:
        for frame_index in frame_indices:
            self._held[frame_index].set()

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
        self._fail()
        height, width = image_size(frame)
        labels = decode_mask(mask, ImageLimits())
        if labels.shape != (height, width):
            raise InvalidMask("the mask is not of the frame's size")
        self.opened.append((frame, mask, options))
        self.streams.append(stream)
        self.clients.append(client)
        replayed = idempotency_key in self.keys
        session = self.keys[idempotency_key] if replayed and idempotency_key else new_session_id()
        if idempotency_key is not None:
            self.keys[idempotency_key] = session
        self.sessions.setdefault(session, FakeSession(labels, options))
        return Opened(await self.describe(session), state_bytes=1234, replayed=replayed)

    def refuse_if_full(self, client: str = "") -> None:
        self._fail()

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
        self.streams.append(stream)
        self.calls.append(Call(session, frame_index, frame, durability, received_through))
        state = self._session(session)
        if frame_index != state.next_frame:
            raise FrameGap("wrong frame index", expected=state.next_frame)
        state.next_frame += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if frame_index in self._held:
                await self._held[frame_index].wait()
            if frame_index in self.frame_failures:
                raise self.frame_failures[frame_index]
            image_size(frame)
            return Delivered(answer(state, frame_index), committed_frame=frame_index - 1)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    async def resume(
        self,
        session: SessionId,
        received_through: int | None,
        stream: str | None = None,
        told_committed: int = 0,
    ) -> Resumed:
        state = self._session(session)
        first = state.next_frame if received_through is None else received_through + 1
        self.streams.append(stream)
        answers = tuple(answer(state, index) for index in range(first, state.next_frame))
        return Resumed(await self.describe(session), answers)

    async def leave(self, session: SessionId, stream: str) -> None:
        self.left.append(stream)

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
        self.changes.append((session, frame_index, change, durability))
        self.ordinals.append(ordinal)
        state = self._session(session)
        frame_index = state.next_frame - 1 if frame_index is None else frame_index
        if frame_index != state.next_frame - 1:
            raise FrameGap("wrong frame index", expected=state.next_frame)
        if isinstance(change, RemoveObject):
            state.labels = np.where(state.labels == change.object_id, np.uint8(0), state.labels)
        else:
            image_size(change.frame)
            drawn = np.roll(decode_mask(change.mask, ImageLimits()), -frame_index, axis=1)
            state.labels = np.where(drawn > 0, drawn, state.labels)
        return await self.describe(session)

    def pause(self, session: SessionId, stream: str) -> bool:
        """What waits here is held by the test."""
        return True

    async def release(self, session: SessionId, stream: str | None = None) -> SessionInfo:
        return await self.describe(session)

    def committed_frame(self, session: SessionId, stream: str) -> int:
        return self.sessions[session].next_frame - 1

    async def describe(self, session: SessionId) -> SessionInfo:
        state = self._session(session)
        height, width = state.labels.shape
        return SessionInfo(
            session=session,
            model=MODEL.name,
            model_digest=MODEL.digest,
            height=height,
            width=width,
            object_ids=object_ids(state.labels),
            next_frame=state.next_frame,
            committed_frame=state.next_frame - 1,
            expires_in_s=600.0,
        )

    async def delete(self, session: SessionId) -> None:
        self._session(session)
        del self.sessions[session]
        self.deleted.append(session)

    async def ready(self) -> None:
        self._fail()

    def models(self) -> Sequence[ModelInfo]:
        self._fail()
        return [MODEL]

    def _session(self, session: SessionId) -> FakeSession:
        self._fail()
        if session not in self.sessions:
            raise SessionUnknown(f"no session {session}")
        return self.sessions[session]

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def image_size(image: EncodedImage) -> tuple[int, int]:
    if image.format is ImageFormat.RAW_RGB8:
        if len(image.data) != image.height * image.width * 3:
            raise InvalidImage("raw pixels do not fill the frame")
        return image.height, image.width
    pixels = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_COLOR) if image.data else None
    if pixels is None:
        raise InvalidImage("not an image")
    return pixels.shape[0], pixels.shape[1]


def moved(labels: NDArray[np.uint8], frame_index: int) -> NDArray[np.uint8]:
    """The label map that the fake answers to frame `frame_index` of a session that began with `labels`."""
    return np.roll(labels, frame_index, axis=1)


def object_ids(labels: NDArray[np.uint8]) -> tuple[int, ...]:
    return tuple(int(value) for value in np.unique(labels) if value)


def answer(session: FakeSession, frame_index: int) -> Answer:
    labels = moved(session.labels, frame_index)
    height, width = labels.shape
    mask_format = session.options.mask_format
    return Answer(
        frame_index=frame_index,
        mask=encoded(labels, mask_format),
        mask_format=mask_format,
        height=height,
        width=width,
        objects=tuple(
            ObjectReport(object_id, int((labels == object_id).sum()), (1, 2, 3, 4), 0.75, True)
            for object_id in object_ids(labels)
        ),
        compute_ms=1.5,
    )


def encoded(labels: NDArray[np.uint8], mask_format: MaskFormat) -> bytes:
    planes = [labels == object_id for object_id in object_ids(labels)]
    if mask_format is MaskFormat.RAW:
        return labels.tobytes()
    if mask_format is MaskFormat.PNG:
        return indexed_png(labels)
    if mask_format is MaskFormat.PROBABILITY:
        return cv2.imencode(".png", np.where(np.concatenate(planes), np.uint8(200), np.uint8(100)))[1].tobytes()
    packed = [coco.encode(np.asfortranarray(plane.astype(np.uint8))) for plane in planes]
    return json.dumps(
        [
            {"object_id": object_id, "size": one["size"], "counts": one["counts"].decode()}
            for object_id, one in zip(object_ids(labels), packed, strict=True)
        ]
    ).encode()


def indexed_png(labels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(labels)
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
