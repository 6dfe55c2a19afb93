"""Video files -> frames, while the file is still coming in."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, cast

import av
import av.error
from av.container import InputContainer

from s2spp.video import upright_rgb
from service.core.errors import InputTooLarge, InvalidInput, UnsupportedMedia
from service.core.types import EncodedImage, ImageFormat
from service.imaging.growing_file import GrowingFile

# Containers that hold all there is in one file. FFmpeg also reads play lists, whose entries would be other files of the
# server or addresses in its network: they are not in the list, and no protocol is there to open an entry with.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,asf,mxf,gif,apng,ivf,h264,hevc,mjpeg"
_KINDS = "mp4, mov, mkv, webm, avi, mpeg-ts or another common container"


@dataclass(frozen=True)
class VideoLimits:
    max_frames: int = 100_000
    max_pixels: int = 2**25


class VideoReader:
    """Iterate to get the frames as raw RGB8, upright as the file's display matrix says; each step may block.

    `fps` and `length` are what the file's header claims, known with the first frame; None where it does not say.

    A file is decoded as it comes in. One that cannot be, because its index lies at its end (an mp4 written without
    "faststart"), is decoded from the start again once all of it is here.

    Steps raise:
        UnsupportedMedia: not a video that can be read.
        InputTooLarge: more pixels or frames than the limits allow.
        InvalidInput: damaged, or without a frame.
        Whatever the growing file was told to fail with.
    """

    def __init__(self, file: GrowingFile, limits: VideoLimits) -> None:
        self._file, self._limits = file, limits
        self._count = 0
        self.fps: float | None = None
        self.length: int | None = None

    def __iter__(self) -> Generator[EncodedImage, None, None]:
        try:
            yield from self._decode(_Forward(self._file))
        except _NoFrame:
            with self._file.whole() as whole:
                yield from self._decode(whole)

    def _decode(self, file: _Readable) -> Iterator[EncodedImage]:
        try:
            container = self._open(file)
        except av.error.FFmpegError as error:
            self._file.check()
            raise UnsupportedMedia(
                f"the video cannot be read ({error.strerror}); is it whole? Send {_KINDS}"
            ) from error
        with container:
            self._read_header(container)
            try:
                for picture in container.decode(video=0):
                    self._file.check()
                    self._count += 1
                    self._check_count(self._count)
                    pixels = upright_rgb(picture)
                    yield EncodedImage(pixels.tobytes(), ImageFormat.RAW_RGB8, *pixels.shape[:2])
            except av.error.FFmpegError as error:
                self._file.check()
                if self._count or not isinstance(file, _Forward):
                    fault = f"the video is damaged after {self._count} frames: {error.strerror}"
                    raise InvalidInput(fault) from error
        self._file.check()
        if not self._count:
            raise _NoFrame if isinstance(file, _Forward) else InvalidInput("the video holds no frame")

    def _open(self, file: _Readable) -> InputContainer:
        options = {
            "format_whitelist": _CONTAINERS,
            "protocol_whitelist": "none",
            **self._decoder_options(),
        }
        return av.open(cast(BinaryIO, file), "r", options=options)

    def _read_header(self, container: InputContainer) -> None:
        if not container.streams.video:
            raise UnsupportedMedia("the video has no picture track")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UnsupportedMedia("the video is of a codec that is not read; encode it as H.264")
        height, width = stream.codec_context.height, stream.codec_context.width
        if height * width > self._limits.max_pixels:
            raise InputTooLarge(
                f"the video is {width} x {height}: more than the {self._limits.max_pixels} pixels that are taken"
            )
        stream.codec_context.options = self._decoder_options()
        self.fps = float(stream.average_rate) if stream.average_rate else None
        self.length = stream.frames or None
        self._check_count(self.length or 0)

    def _decoder_options(self) -> dict[str, str]:
        """The size may change on the way. Twice, since decoders count whole blocks."""
        return {"max_pixels": str(2 * self._limits.max_pixels)}

    def _check_count(self, count: int) -> None:
        if count > self._limits.max_frames:
            raise InputTooLarge(
                f"the video has more than {self._limits.max_frames} frames; cut it",
                limit_frames=self._limits.max_frames,
            )


class _NoFrame(Exception):
    """Not one frame could be decoded without going back in the file."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Forward:
    """A growing file, from its start: nothing but `read`, so that FFmpeg does not try to go anywhere. Faults look like
    the end: PyAV would print those it is not asked about."""

    def __init__(self, file: GrowingFile) -> None:
        self._file, self._position = file, 0

    def read(self, size: int, /) -> bytes:
        data = self._file.read_at(self._position, size)
        self._position += len(data)
        return data
