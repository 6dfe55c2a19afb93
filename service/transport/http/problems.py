"""The one table error class -> HTTP status, and RFC 9457 problem documents for everything that goes wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from service.core import errors

PROBLEM_JSON = "application/problem+json"


RETRY_AFTER = {
    "description": "Seconds after which the same request may well succeed; in the document, too: `retry_after_s`",
    "schema": {"type": "integer", "minimum": 1},
}


class Row(NamedTuple):
    status: int
    title: str
    example: str
    """A `detail` as a caller may see it; shown in the OpenAPI document."""


ERRORS: Mapping[type[errors.S2sppError], Row] = {
    errors.InvalidInput: Row(422, "Input cannot be used", "the frame is 320 x 240, the session 640 x 480"),
    errors.InvalidImage: Row(400, "Picture cannot be used", "not a JPEG, PNG or WebP file"),
    errors.UnsupportedMedia: Row(415, "Unsupported media type", "content type 'image/gif' is not read"),
    errors.InputTooLarge: Row(413, "Input too large", "the body is larger than 33554432 bytes"),
    errors.InvalidMask: Row(422, "Mask cannot be used", "the mask is empty: no pixel differs from 0"),
    errors.InvalidOption: Row(400, "Invalid option", "options: mask_format: should be 'png' or 'raw'"),
    errors.IdempotencyKeyReused: Row(422, "Idempotency-Key used before", "this key came before with another frame"),
    errors.IdempotencyKeyInUse: Row(409, "Idempotency-Key in use", "the first request with this key is under way"),
    errors.SessionUnknown: Row(404, "Unknown session", "no such session; it may have been deleted"),
    errors.SessionExpired: Row(410, "Session expired", "the session was idle for too long; open a new one"),
    errors.FrameAcknowledged: Row(409, "Frame answered before", "frame 4 was answered and acknowledged"),
    errors.FrameGap: Row(409, "Frame out of order", "expected frame 5, got 7"),
    errors.FrameDropped: Row(409, "Frame dropped", "frame 7 was dropped: a newer one had come before its turn"),
    errors.OwnershipLost: Row(409, "Session taken over", "a newer stream has taken this session"),
    errors.SessionRolledBack: Row(409, "Session rolled back", "the store lost what followed frame 40"),
    errors.SnapshotDamaged: Row(409, "Stored session damaged", "the stored field 'object:1:state' is cut short"),
    errors.ModelMismatch: Row(412, "Other model", "the session belongs to another model"),
    errors.Overloaded: Row(429, "Full", "all session slots are taken; try again in 2 s"),
    errors.Unavailable: Row(503, "Temporarily unavailable", "the session store cannot be reached; try again"),
    errors.S2sppError: Row(500, "Internal error", "the server failed; its log says more"),
}


class Problem(BaseModel):
    """RFC 9457. `reason` is the same word as in gRPC's ErrorInfo; its metadata follow as further members."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:s2spp:problem:frame-gap"])
    title: str
    status: int
    detail: str
    reason: str = Field(examples=["FRAME_GAP"])


def row_of(kind: type[errors.S2sppError]) -> Row:
    return next(ERRORS[ancestor] for ancestor in kind.__mro__ if ancestor in ERRORS)


def problem(error: errors.S2sppError) -> dict[str, Any]:
    """The problem document of an error, as JSON-ready members."""
    row = row_of(type(error))
    again = {} if error.retry_after_s is None else {"retry_after_s": f"{error.retry_after_s:g}"}
    return {**error.metadata, **again, **_document(error.reason, row.status, row.title, error.message)}


def problem_response(error: errors.S2sppError) -> Response:
    seconds = error.retry_after_s
    headers = {} if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
    return _render(problem(error), headers)


def unexpected() -> errors.S2sppError:
    """What a caller is told of an exception that nobody foresaw: nothing of its inside."""
    return errors.S2sppError(ERRORS[errors.S2sppError].example)


def document_problems(*kinds: type[errors.S2sppError]) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route for the OpenAPI document: per status, one example for each error."""
    found: dict[int | str, dict[str, Any]] = {}
    documented: tuple[type[errors.S2sppError], ...] = (*kinds, errors.S2sppError)
    for kind in documented:
        row = row_of(kind)
        media = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
        entry = found.setdefault(row.status, {"description": row.title, "content": {PROBLEM_JSON: media}})
        if row.title not in entry["description"]:
            entry["description"] += f"; {row.title}"
        example = _document(kind.reason, row.status, row.title, row.example)
        entry["content"][PROBLEM_JSON]["examples"][kind.reason] = {"value": example}
        if issubclass(kind, (errors.Overloaded, errors.Unavailable, errors.IdempotencyKeyInUse)):
            entry["headers"] = {"Retry-After": RETRY_AFTER}
    return found


def http_problem(request: HTTPConnection, error: HTTPException, **more: str) -> Response:
    """What Starlette itself refuses: no such path, or not by that method. `more`: headers."""
    status = HTTPStatus(error.status_code)
    detail = f"{request.scope.get('method', 'WebSocket')} {request.url.path}: {error.detail}"
    return _render(_document(status.name, status, status.phrase, detail), {**(error.headers or {}), **more})


def _document(reason: str, status: int, title: str, detail: str) -> dict[str, Any]:
    kind = f"urn:s2spp:problem:{reason.lower().replace('_', '-')}"
    return {"type": kind, "title": title, "status": int(status), "detail": detail, "reason": reason}


def _render(document: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    return JSONResponse(dict(document), document["status"], dict(headers), media_type=PROBLEM_JSON)
