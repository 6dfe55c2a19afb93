"""Routes of sessions and models. Each one parses, calls the engine and renders; nothing else happens here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response, status

from service.core import errors
from service.core.call import about
from service.core.ports import Engine
from service.core.types import SESSION_ID_PATTERN, Durability, SessionId, parse_session_id
from service.transport.http.problems import document_problems
from service.transport.peer import client_name
from service.transport.rest.bodies import RAW_RGB8, SNIFFED, frame_image, read_body, read_marked_frame
from service.transport.rest.schemas import (
    BINARY,
    MASK_MEDIA_TYPE,
    MASK_RESPONSE,
    OPENED_RESPONSE,
    ModelsOut,
    OpenedOut,
    SessionOut,
    form_body,
    mask_headers,
)

MAX_INDEX = 2**63 - 1  # an int64 everywhere


SessionText = Annotated[
    str,
    # Documented, not validated: whatever else is there names no session (parse_session_id).
    Path(description="The id that opening the session returned", json_schema_extra={"pattern": SESSION_ID_PATTERN}),
]


def session_id(session: SessionText) -> SessionId:
    return about(parse_session_id(session))


SessionPath = Annotated[SessionId, Depends(session_id)]
FrameIndex = Annotated[int, Path(ge=0, le=MAX_INDEX, description="Counts from 0, the frame of opening")]
ReceivedThrough = Annotated[
    int | None,
    Query(ge=0, le=MAX_INDEX, description="The last frame whose mask you have; without it, index - 1"),
]
ToldCommitted = Annotated[
    int,
    Query(
        ge=0,
        le=MAX_INDEX,
        description="The highest committed frame that you were told: SESSION_ROLLED_BACK if the store has lost it",
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[ -~]+$",
        description="Any text of your choice, such as a UUID. The same request with the same key opens one session, "
        "however often it is sent within a day",
    ),
]
RawHeight = Annotated[int, Query(ge=0, description=f"Rows of a raw frame ({RAW_RGB8})")]
RawWidth = Annotated[int, Query(ge=0, description=f"Columns of a raw frame ({RAW_RGB8})")]

FINDING = (
    errors.SessionUnknown,
    errors.SessionExpired,
    errors.SnapshotDamaged,
    errors.ModelMismatch,
    errors.Overloaded,
    errors.Unavailable,
)
"""What may keep a session from being found, or brought back from the store."""
_FRAME_BODY = {
    "requestBody": {"required": True, "content": {kind: {"schema": BINARY} for kind in (*SNIFFED, RAW_RGB8)}}
}
_OPEN_FORM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["frame", "mask"],
    "properties": {
        "frame": {**BINARY, "description": "Frame 0: JPEG, PNG, WebP; or raw RGB8, with height and width"},
        "mask": {
            **BINARY,
            "description": "Object ids as pixel values, of the frame's size; only 0 and 255 is object 1",
        },
        "options": {"$ref": "#/components/schemas/OptionsIn"},
    },
}


def session_routes(engine: Engine, max_image_bytes: int) -> APIRouter:
    routes = APIRouter(prefix="/v1/sessions", tags=["sessions"])
    input_problems = (
        errors.InvalidInput,
        errors.InvalidImage,
        errors.InvalidOption,
        errors.InputTooLarge,
        errors.UnsupportedMedia,
    )

    @routes.post(
        "",
        status_code=status.HTTP_201_CREATED,
        summary="Open a session with a first frame and its mask",
        responses={
            201: OPENED_RESPONSE,
            **document_problems(
                *input_problems,
                errors.InvalidMask,
                errors.IdempotencyKeyReused,
                errors.IdempotencyKeyInUse,
                *FINDING,
            ),
        },
        openapi_extra=form_body(_OPEN_FORM, options="application/json"),
    )
    async def open_session(
        request: Request,
        response: Response,
        idempotency_key: IdempotencyKey = None,
        height: RawHeight = 0,
        width: RawWidth = 0,
    ) -> OpenedOut:
        client = client_name(request.client.host) if request.client else ""
        if idempotency_key is None:
            engine.refuse_if_full(client)  # one with a key may have its session here already
        form = await read_marked_frame(request, max_image_bytes, height, width, with_options=True)
        opened = await engine.open(form.frame, form.mask, form.options, client=client, idempotency_key=idempotency_key)
        about(opened.info.session)
        response.headers["Location"] = f"{routes.prefix}/{opened.info.session}"
        if opened.replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return OpenedOut.of(opened)

    @routes.post(
        "/{session}/frames/{index}",
        summary="Send a frame, get its mask",
        response_class=Response,
        responses={
            200: MASK_RESPONSE,
            **document_problems(
                *input_problems,
                *FINDING,
                errors.FrameAcknowledged,
                errors.FrameGap,
                errors.FrameDropped,
                errors.OwnershipLost,
                errors.SessionRolledBack,
            ),
        },
        openapi_extra=_FRAME_BODY,
    )
    async def segment_frame(
        request: Request,
        session: SessionPath,
        index: FrameIndex,
        durability: Durability = Durability.STRICT,
        received_through: ReceivedThrough = None,
        committed_frame: ToldCommitted = 0,
        height: RawHeight = 0,
        width: RawWidth = 0,
    ) -> Response:
        """Frames go in order, from index 1 on. The index last answered may be sent again, and gets the same bytes,
        whatever picture comes with it; an earlier one has been acknowledged (409), a gap is refused (409) and the
        index expected is named. A picture that cannot be used takes its index without a step: send the same index
        again, or go on with the next. The answer leaves once the session is stored, unless `durability=relaxed`."""
        body = await read_body(request, max_image_bytes)
        frame = frame_image(body, request.headers.get("content-type", ""), height, width)
        delivered = await engine.segment(
            session,
            index,
            frame,
            durability=durability,
            received_through=received_through,
            told_committed=committed_frame,
        )
        media_type = MASK_MEDIA_TYPE[delivered.answer.mask_format]
        return Response(delivered.answer.mask, headers=mask_headers(delivered), media_type=media_type)

    @routes.get("/{session}", summary="Where a session stands", responses=document_problems(*FINDING))
    async def get_session(session: SessionPath) -> SessionOut:
        return SessionOut.model_validate(await engine.describe(session))

    @routes.delete(
        "/{session}",
        status_code=status.HTTP_204_NO_CONTENT,
        summary="End a session and forget it",
        responses=document_problems(errors.SessionUnknown, errors.SessionExpired, errors.Unavailable),
    )
    async def delete_session(session: SessionPath) -> None:
        await engine.delete(session)

    return routes


def model_routes(engine: Engine) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["models"])

    @routes.get("", summary="The models that are served", responses=document_problems())
    async def get_models() -> ModelsOut:
        return ModelsOut.model_validate({"models": list(engine.models())})

    return routes
