"""Routes of a session's objects: drawn, drawn anew, removed, between two frames."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from service.core import errors
from service.core.ports import Engine
from service.core.types import DrawObjects, Durability, ObjectChange, RemoveObject, SessionId
from service.transport.http.problems import document_problems
from service.transport.rest.bodies import read_marked_frame
from service.transport.rest.schemas import BINARY, SessionOut, form_body
from service.transport.rest.sessions import FINDING, MAX_INDEX, RawHeight, RawWidth, SessionPath

ObjectId = Annotated[int, Path(ge=1, le=255, description="The object's id, as in masks")]
FrameSentLast = Annotated[
    int | None,
    Query(
        ge=0,
        le=MAX_INDEX,
        description="Index of the frame sent last: a request that comes too late is refused. Without it, whichever "
        "frame was last",
    ),
]
Ordinal = Annotated[
    int | None,
    Query(
        ge=1,
        le=MAX_INDEX,
        description="Which change of objects it is after that frame, counted from 1: with it, the same request sent "
        "again has no further effect. Without it, only if it is the same as the last one",
    ),
]
_FORM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["frame", "mask"],
    "properties": {
        "frame": {**BINARY, "description": "The frame sent last, once more"},
        "mask": {**BINARY, "description": "What is drawn on it, of its size"},
    },
}
_FORM_BODY = form_body(_FORM)


def object_routes(engine: Engine, max_image_bytes: int) -> APIRouter:
    routes = APIRouter(prefix="/v1/sessions/{session}/objects", tags=["objects"])
    order = (errors.InvalidOption, *FINDING, errors.FrameAcknowledged, errors.FrameGap)
    drawing_problems = document_problems(
        *order,
        errors.InvalidImage,
        errors.InvalidMask,
        errors.InputTooLarge,
        errors.UnsupportedMedia,
    )

    async def change(
        session: SessionId, frame_index: int | None, ordinal: int | None, what: ObjectChange
    ) -> SessionOut:
        info = await engine.change(session, frame_index, what, durability=Durability.STRICT, ordinal=ordinal)
        return SessionOut.model_validate(info)

    @routes.post(
        "", summary="Add objects, or draw known ones anew", responses=drawing_problems, openapi_extra=_FORM_BODY
    )
    async def draw_objects(
        request: Request,
        session: SessionPath,
        frame_index: FrameSentLast = None,
        ordinal: Ordinal = None,
        height: RawHeight = 0,
        width: RawWidth = 0,
    ) -> SessionOut:
        """Between two frames: the mask is drawn on the frame that was sent last, which comes along. Every id of it is
        added, or starts again from there where it is followed already; the others go on. The answer leaves once the
        change is stored."""
        form = await read_marked_frame(request, max_image_bytes, height, width, with_options=False)
        return await change(session, frame_index, ordinal, DrawObjects(form.frame, form.mask))

    @routes.put("/{object_id}/mask", summary="Correct one object", responses=drawing_problems, openapi_extra=_FORM_BODY)
    async def draw_object(
        request: Request,
        session: SessionPath,
        object_id: ObjectId,
        frame_index: FrameSentLast = None,
        ordinal: Ordinal = None,
        height: RawHeight = 0,
        width: RawWidth = 0,
    ) -> SessionOut:
        """As adding objects, but all that the mask marks, whatever its values, is this one object."""
        form = await read_marked_frame(request, max_image_bytes, height, width, with_options=False)
        return await change(session, frame_index, ordinal, DrawObjects(form.frame, form.mask, as_object=object_id))

    @routes.delete("/{object_id}", summary="Follow one object no longer", responses=document_problems(*order))
    async def remove_object(
        session: SessionPath, object_id: ObjectId, frame_index: FrameSentLast = None, ordinal: Ordinal = None
    ) -> SessionOut:
        """The others go on. The last object stays: delete the session instead."""
        return await change(session, frame_index, ordinal, RemoveObject(object_id))

    return routes
