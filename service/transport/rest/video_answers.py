"""What comes back for a video: three ways to write one answer for each frame, and which one is asked for."""

from __future__ import annotations

import io
import json
import secrets
from contextlib import ExitStack
from enum import StrEnum
from typing import Any, Protocol, cast

import numpy as np

from s2spp.overlay import overlay
from s2spp.video import VideoWriter
from service.core.errors import InvalidOption, S2sppError
from service.core.ports import Delivered
from service.core.types import EncodedImage, MaskFormat
from service.transport.http.problems import PROBLEM_JSON, problem
from service.transport.rest.schemas import MASK_MEDIA_TYPE, VideoFrameOut, VideoOut, mask_headers

_FPS_WHERE_UNKNOWN = 25.0


class VideoAnswer(StrEnum):
    NDJSON = "ndjson"
    MULTIPART = "multipart"
    MP4 = "mp4"


MEDIA_TYPE = {
    VideoAnswer.NDJSON: "application/x-ndjson",
    VideoAnswer.MULTIPART: "multipart/mixed",
    VideoAnswer.MP4: "video/mp4",
}


def wanted_answer(accept: str) -> VideoAnswer:
    """What the header Accept prefers; NDJSON where it does not care. Raises InvalidOption for what is not made."""
    ranges = []
    for entry in filter(None, map(str.strip, accept.lower().split(","))):
        media, *parameters = (part.strip() for part in entry.split(";"))
        weights = [parameter[2:] for parameter in parameters if parameter.startswith("q=")]
        try:
            ranges.append((float(weights[0]) if weights else 1.0, media))
        except ValueError as error:
            raise InvalidOption(f"Accept: {entry[:100]!r} has a weight that is no number") from error
    for weight, media in sorted(ranges or [(1.0, "*/*")], key=lambda each: -each[0]):
        for answer, made in MEDIA_TYPE.items():
            if weight > 0 and media in (made, made.partition("/")[0] + "/*", "*/*"):
                return answer
    raise InvalidOption(f"Accept: {accept[:100]!r} is not made here; accept one of {', '.join(MEDIA_TYPE.values())}")


class AnswerWriter(Protocol):
    """Answers to bytes, in the order of the calls: begin, frame for each, then end or fault. May take CPU time."""

    media_type: str
    mask_format: MaskFormat
    """In which the engine is to encode masks."""

    def begin(self, video: VideoOut) -> bytes: ...

    def frame(self, delivered: Delivered, image: EncodedImage) -> bytes: ...

    def end(self) -> bytes: ...

    def fault(self, error: S2sppError) -> bytes | None:
        """Ends an answer that cannot be completed; None where the format has no place for the reason."""
        ...


def answer_writer(answer: VideoAnswer, mask_format: MaskFormat | None) -> AnswerWriter:
    """`mask_format` None: what goes with the answer. Raises InvalidOption where it does not go with it."""
    if answer is VideoAnswer.MULTIPART:
        return _Multipart(mask_format or MaskFormat.PNG)
    if mask_format not in (None, MaskFormat.RLE) or (answer is VideoAnswer.MP4 and mask_format):
        raise InvalidOption(f"option mask_format {mask_format} goes with multipart/mixed; leave it out here")
    return _NdJson() if answer is VideoAnswer.NDJSON else _Overlay()


class _NdJson:
    media_type = MEDIA_TYPE[VideoAnswer.NDJSON]
    mask_format = MaskFormat.RLE

    def begin(self, video: VideoOut) -> bytes:
        return _line({"video": video.model_dump()})

    def frame(self, delivered: Delivered, image: EncodedImage) -> bytes:
        return VideoFrameOut.of(delivered).model_dump_json().encode() + b"\n"

    def end(self) -> bytes:
        return b""

    def fault(self, error: S2sppError) -> bytes:
        return _line({"problem": problem(error)})


def _line(members: dict[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


class _Multipart:
    """RFC 2046. A part's closing boundary leaves with the part, so that its reader knows at once that it is whole."""

    def __init__(self, mask_format: MaskFormat) -> None:
        self.mask_format = mask_format
        self._boundary = secrets.token_hex(16)  # masks can hold any bytes: not to be guessed
        self.media_type = f"{MEDIA_TYPE[VideoAnswer.MULTIPART]}; boundary={self._boundary}"

    def begin(self, video: VideoOut) -> bytes:
        return f"--{self._boundary}".encode()

    def frame(self, delivered: Delivered, image: EncodedImage) -> bytes:
        mask = delivered.answer.mask
        return self._part({"Content-Type": MASK_MEDIA_TYPE[self.mask_format], **mask_headers(delivered)}, mask)

    def end(self) -> bytes:
        return b"--\r\n"

    def fault(self, error: S2sppError) -> bytes:
        return self._part({"Content-Type": PROBLEM_JSON}, json.dumps(problem(error)).encode()) + self.end()

    def _part(self, headers: dict[str, str], body: bytes) -> bytes:
        lines = [f"{name}: {value}" for name, value in (headers | {"Content-Length": str(len(body))}).items()]
        return "\r\n".join(["", *lines, "", ""]).encode() + body + f"\r\n--{self._boundary}".encode()


class _Overlay:
    """The frames with their masks drawn over them, as a fragmented mp4."""

    media_type = MEDIA_TYPE[VideoAnswer.MP4]
    mask_format = MaskFormat.RAW

    def __init__(self) -> None:
        self._sink = _Sink()
        self._open = ExitStack()
        self._video: VideoWriter

    def begin(self, video: VideoOut) -> bytes:
        fps, size = video.fps or _FPS_WHERE_UNKNOWN, (video.height, video.width)
        self._video = self._open.enter_context(VideoWriter(cast(io.BytesIO, self._sink), fps, size))
        return b""

    def frame(self, delivered: Delivered, image: EncodedImage) -> bytes:
        size = (image.height, image.width)
        pixels = np.frombuffer(image.data, np.uint8).reshape(*size, 3)
        labels = np.frombuffer(delivered.answer.mask, np.uint8).reshape(size)
        self._video.write(overlay(pixels, labels))
        return self._sink.take()

    def end(self) -> bytes:
        self._open.close()
        return self._sink.take()

    def fault(self, error: S2sppError) -> None:
        return None


class _Sink:
    """What the muxer has written and nobody has taken yet. Without `seek`: FFmpeg then does not try to."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data, self._data = bytes(self._data), bytearray()
        return data
