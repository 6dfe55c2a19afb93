"""Request bodies to EncodedImage. Sizes are checked while reading: what is too large is never in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.core.errors import InputTooLarge, InvalidOption, UnsupportedMedia
from service.core.types import EncodedImage, Flow, ImageFormat, MaskFormat, SessionOptions
from service.transport.rest.commands import MOST_TEXT, first_faults

RAW_RGB8 = "application/x-rgb8"
SNIFFED = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
# Part headers, boundaries and the options: small beside the two images.
FORM_OVERHEAD = 64 * 1024
_Model = TypeVar("_Model", bound=BaseModel)


class OptionsIn(BaseModel):
    """Part `options` of an opening request."""

    model_config = ConfigDict(extra="forbid")

    mask_format: MaskFormat = MaskFormat.PNG
    flow: Flow = Flow.LOSSLESS


@dataclass(frozen=True)
class MarkedFrame:
    frame: EncodedImage
    mask: EncodedImage
    options: SessionOptions


def frame_image(data: bytes, content_type: str, height: int, width: int) -> EncodedImage:
    """`height` and `width` count for raw frames only. No content type at all is as good as octet-stream."""
    media_type = _media_type(content_type)
    if media_type == RAW_RGB8:
        if height < 1 or width < 1:
            raise InvalidOption(f"a frame of type {RAW_RGB8} needs its size: ?height=H&width=W")
        return EncodedImage(data, ImageFormat.RAW_RGB8, height, width)
    if media_type and media_type not in SNIFFED:
        raise UnsupportedMedia(
            f"content type {media_type!r} is not read; send one of {', '.join((*SNIFFED, RAW_RGB8))} "
            "(with curl: -H 'Content-Type: image/jpeg')"
        )
    return EncodedImage(data)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, or InputTooLarge as soon as it passes `limit` bytes."""
    return b"".join([chunk async for chunk in limited(request, limit)])


async def read_marked_frame(
    request: Request, max_image_bytes: int, height: int, width: int, *, with_options: bool
) -> MarkedFrame:
    """multipart/form-data with the parts `frame`, `mask` and, `with_options` and if the caller likes, `options`."""
    parts = ("frame", "mask", "options") if with_options else ("frame", "mask")
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise UnsupportedMedia(
            f"content type {content_type!r} is not read here; send multipart/form-data: {', '.join(parts)}"
        )
    stream = limited(request, 2 * max_image_bytes + FORM_OVERHEAD)
    try:
        form = await MultiPartParser(request.headers, stream, max_files=3, max_fields=3).parse()
    except MultiPartException as error:
        raise InvalidOption(f"multipart body: {error.message}") from error
    try:
        unknown = sorted(set(form) - set(parts))
        if unknown:
            raise InvalidOption(f"unknown part {unknown[0]!r}; the parts are {' and '.join(parts)}")
        frame, frame_type = await _file_part(form, "frame", max_image_bytes)
        mask, mask_type = await _file_part(form, "mask", max_image_bytes)
        return MarkedFrame(
            frame=frame_image(frame, frame_type, height, width),
            mask=mask_image(mask, mask_type),
            options=await _options_part(form),
        )
    finally:
        await form.close()


def mask_image(data: bytes, content_type: str) -> EncodedImage:
    """As `frame_image`, for a mask: never raw."""
    media_type = _media_type(content_type)
    if media_type and media_type not in SNIFFED:
        raise UnsupportedMedia(f"a mask of content type {media_type!r} is not read; send an indexed or grey PNG")
    return EncodedImage(data)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


async def _file_part(form: FormData, name: str, limit: int) -> tuple[bytes, str]:
    parts = form.getlist(name)
    if len(parts) != 1 or not isinstance(parts[0], UploadFile):
        found = {0: "is missing", 1: "is not a file"}.get(len(parts), "is there more than once")
        raise InvalidOption(f"part {name!r} {found}; send it once, as a file: -F {name}=@{name}.png")
    if (parts[0].size or 0) > limit:
        raise InputTooLarge(f"part {name!r} is larger than {limit} bytes", limit_bytes=limit)
    return await parts[0].read(), parts[0].content_type or ""


async def _options_part(form: FormData) -> SessionOptions:
    part = form.get("options", "{}")
    text = await part.read() if isinstance(part, UploadFile) else part
    options = read_options(OptionsIn, text)
    return SessionOptions(options.mask_format, options.flow)


def read_options(model: type[_Model], text: str | bytes) -> _Model:
    """The JSON of a part `options`. Raises InvalidOption."""
    if len(text) > MOST_TEXT:
        raise InvalidOption(f"part 'options' is longer than {MOST_TEXT} bytes: it is a few names and values in JSON")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise InvalidOption(f"part 'options': {first_faults(error, model.model_fields)}") from error


async def limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes; InputTooLarge as soon as it is, or says that it is, larger than `limit` bytes."""
    too_large = InputTooLarge(f"the body is larger than {limit} bytes", limit_bytes=limit)
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise too_large
        yield chunk
