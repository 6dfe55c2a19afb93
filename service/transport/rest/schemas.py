"""What REST says: core types as JSON (pydantic reads their attributes), a mask's headers."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from service.core.ports import Delivered, Opened
from service.core.types import MaskFormat, SessionInfo

BINARY = {"type": "string", "format": "binary"}
MASK_MEDIA_TYPE = {
    MaskFormat.PNG: "image/png",
    MaskFormat.RAW: "application/octet-stream",
    MaskFormat.RLE: "application/json",
    MaskFormat.PROBABILITY: "image/png",
}
_Rounded = Annotated[float, AfterValidator(lambda value: round(value, 4))]
"""Each number of an answer that is no whole one: what is beyond that is noise of float32."""


def form_body(schema: dict[str, Any], **types: str) -> dict[str, Any]:
    """`openapi_extra` of a route that takes a frame and a mask in a form, and further parts of these `types`."""
    types = {"frame": "image/jpeg, image/png, image/webp", "mask": "image/png", **types}
    form = {"schema": schema, "encoding": {part: {"contentType": kind} for part, kind in types.items()}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": form}}}


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class SessionOut(_Out):
    """`next_frame`: the index expected next. `committed_frame`: the last index that survives a crash."""

    session: str = Field(examples=["yQ0mZ1u0p3nF8sJcT4bWq7LxV2aKdEr9"])
    model: str = Field(examples=["s2spp-light"])
    model_digest: str
    height: int = Field(examples=[480])
    width: int = Field(examples=[854])
    object_ids: list[int] = Field(examples=[[1, 2]])
    next_frame: int = Field(examples=[1])
    committed_frame: int = Field(examples=[0])
    expires_in_s: _Rounded = Field(examples=[3600.0])


class OpenedOut(SessionOut):
    state_bytes: int = Field(description="Recurrent state that the session keeps, all objects together")

    @classmethod
    def of(cls, opened: Opened) -> OpenedOut:
        session = SessionOut.model_validate(opened.info)
        return cls(**session.model_dump(), state_bytes=opened.state_bytes)


class ObjectOut(_Out):
    """`box`: x, y, width, height in pixels. `confidence`: mean probability over the object's own pixels."""

    object_id: int
    area: int
    box: tuple[int, int, int, int]
    confidence: _Rounded
    visible: bool = Field(
        description="Whether the most probable of its pixels has a probability of at least 0.995. An object that is "
        "gone often leaves a few pixels of less, which are in the mask all the same"
    )


class AnswerOut(_Out):
    """The text message before each mask on the WebSocket. `compute_ms`: inside the model, with what was worked out
    ahead of the frame's turn; where its objects were worked out in parts side by side, of the longest part."""

    frame_index: int
    mask_format: MaskFormat
    height: int
    width: int
    objects: list[ObjectOut]
    compute_ms: _Rounded
    committed_frame: int = 0

    @classmethod
    def of(cls, delivered: Delivered) -> AnswerOut:
        answer = cls.model_validate(delivered.answer)
        return answer.model_copy(update={"committed_frame": delivered.committed_frame})


class RunLengthsOut(_Out):
    """COCO's compressed run lengths, as pycocotools reads them. `size`: rows, columns."""

    object_id: int
    size: tuple[int, int]
    counts: str


class VideoOptionsIn(BaseModel):
    """Part `options` of a video. `mask_format` goes with multipart/mixed (png, where it is left out)."""

    model_config = ConfigDict(extra="forbid")

    mask_format: MaskFormat | None = None


class VideoOut(BaseModel):
    """The first line for a video. `fps`, `frames`: what the file's header says of itself, null where it does not."""

    height: int
    width: int
    fps: _Rounded | None
    frames: int | None
    object_ids: list[int]
    model: str
    model_digest: str

    @classmethod
    def of(cls, info: SessionInfo, fps: float | None, frames: int | None) -> VideoOut:
        return cls(
            height=info.height,
            width=info.width,
            fps=fps,
            frames=frames,
            object_ids=list(info.object_ids),
            model=info.model,
            model_digest=info.model_digest,
        )


class VideoFrameOut(_Out):
    """The line for a frame of a video. `rle` has every object, also one without a pixel."""

    frame_index: int
    objects: list[ObjectOut]
    compute_ms: _Rounded
    rle: list[RunLengthsOut]

    @classmethod
    def of(cls, delivered: Delivered) -> VideoFrameOut:
        """Of an answer whose mask is MaskFormat.RLE."""
        answer = delivered.answer
        return cls(
            frame_index=answer.frame_index,
            objects=_OBJECTS.validate_python(list(answer.objects)),
            compute_ms=answer.compute_ms,
            rle=_RUN_LENGTHS.validate_json(answer.mask),
        )


class StateOut(_Out):
    """One state tensor of each object; `shape` is symbolic where it follows the frame's size."""

    name: str
    shape: list[int | str]
    dtype: str
    constant: bool


class ModelOut(_Out):
    name: str
    digest: str
    pixel_budget: int
    multiple: int
    states: list[StateOut]
    training_data: str
    licence: str
    scores: dict[str, _Rounded]
    provider: str
    chosen: str


class ModelsOut(_Out):
    models: list[ModelOut]


class StatusOut(BaseModel):
    status: str = Field(examples=["ok"])


_OBJECTS = TypeAdapter(list[ObjectOut], config=ConfigDict(from_attributes=True))
_RUN_LENGTHS = TypeAdapter(list[RunLengthsOut])


def mask_headers(delivered: Delivered) -> dict[str, str]:
    answer = delivered.answer
    objects = _OBJECTS.dump_json(_OBJECTS.validate_python(list(answer.objects)))
    return {
        "S2spp-Frame-Index": str(answer.frame_index),
        "S2spp-Committed-Frame": str(delivered.committed_frame),
        "S2spp-Compute-Ms": f"{answer.compute_ms:.3f}",
        "S2spp-Height": str(answer.height),
        "S2spp-Width": str(answer.width),
        "S2spp-Objects": objects.decode(),
    }


_WITH_THE_SESSION = {
    "segment_frame": {"session": "session", "index": "next_frame"},
    "get_session": {"session": "session"},
    "draw_objects": {"session": "session"},
    "draw_object": {"session": "session", "object_id": "object_ids/0"},
    "remove_object": {"session": "session", "object_id": "object_ids/0"},
    "delete_session": {"session": "session"},
}
OPENED_RESPONSE: dict[str, Any] = {
    "description": "The session is open, and stored",
    "headers": {
        "Location": {"description": "The session's path", "schema": {"type": "string"}},
        "Idempotent-Replayed": {
            "description": "The session was opened before, by a request with the same Idempotency-Key; this is "
            "what was told then",
            "schema": {"type": "string", "enum": ["true"]},
        },
    },
    "links": {
        operation: {
            "operationId": operation,
            "parameters": {name: f"$response.body#/{member}" for name, member in parameters.items()},
        }
        for operation, parameters in _WITH_THE_SESSION.items()
    },
}
_HEADERS = (
    ("S2spp-Frame-Index", "integer", "The frame that this mask belongs to"),
    ("S2spp-Committed-Frame", "integer", "The last frame that survives a crash of the server"),
    ("S2spp-Compute-Ms", "number", "Milliseconds inside the model; of parts side by side, of the longest one"),
    ("S2spp-Height", "integer", "Rows of the mask"),
    ("S2spp-Width", "integer", "Columns of the mask"),
    ("S2spp-Objects", "string", "JSON list, per object: object_id, area, box, confidence, visible"),
)
_RUN_LENGTHS_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["object_id", "size", "counts"],
        "properties": {
            "object_id": {"type": "integer"},
            "size": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            "counts": {"type": "string", "description": "COCO's compressed run lengths"},
        },
    },
}
_MASK_SCHEMA = {MASK_MEDIA_TYPE[MaskFormat.RLE]: _RUN_LENGTHS_SCHEMA}
MASK_RESPONSE: dict[str, Any] = {
    "description": "The mask, of the frame's own size: an indexed PNG; raw object ids row by row; JSON of COCO run "
    "lengths; or a grey PNG of the objects' probability planes, one below the other",
    "content": {kind: {"schema": _MASK_SCHEMA.get(kind, BINARY)} for kind in MASK_MEDIA_TYPE.values()},
    "headers": {name: {"description": text, "schema": {"type": kind}} for name, kind, text in _HEADERS},
}
