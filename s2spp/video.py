"""Frames in and video out: one way to read a video file, a folder of images or a camera, and an mp4 writer.

Knows nothing of models, masks or servers. Every frame is uint8 [H,W,3] RGB, the right way up.
Errors: ValueError for an input that is not what it should be, OSError for what cannot be reached or written;
each message says what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import av
import av.error
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageOps

Frame = NDArray[np.uint8]
"""[H,W,3] RGB."""

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_LISTED_FILES = 10
_WHOLE = 0.9


@dataclass(frozen=True, slots=True)
class FrameSource:
    """Frames that are decoded as they are asked for. Iterating again starts again (a camera: only once).

    `length` is None where it is not known before the end; for a video it is what the file's header claims.
    `fps` is None for images. `live`: a camera.
    """

    name: str
    length: int | None
    fps: float | None
    _read: Callable[[], Iterator[tuple[str, Frame]]]
    _files: Sequence[Path] = ()
    live: bool = False

    def __iter__(self) -> Iterator[tuple[str, Frame]]:
        """(name, frame) in order; the name is the image file's, without suffix, else the frame's number."""
        return self._read()

    def where(self, index: int) -> str:
        """The file that holds that frame."""
        return str(self._files[index]) if self._files else self.name


def open_frames(source: str | Path | int) -> FrameSource:
    """Open a video file, a folder of images, one image, or a camera ("camera:0", or its bare number).

    A folder is read in natural order (frame2 before frame10); files that are not images are left out.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: not a video, no image in the folder, or images that cannot be read (they are listed); an address.
        OSError: there is no such camera.
    """
    camera = re.fullmatch(r"(?:camera:)?(\d+)", str(source))
    if camera:
        return _open_camera(int(camera[1]))
    path = Path(str(source))
    if path.is_dir():
        return _open_images(path, _images_of(path))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(source)):
        raise ValueError(
            f"{source}: addresses are not read, only a video file, a folder of images, or a camera of this machine "
            "(camera:0); save it as a file first (ffmpeg -i ADDRESS -c copy video.mp4)"
        )
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file or folder; give a video, a folder of images, or camera:0 for a camera"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _open_images(path, [path])
    return _open_video(path)


def read_frames(source: str | Path | int) -> Iterator[Frame]:
    """The frames alone of what `open_frames` opens: what `Client.track` takes. Raises at once what that raises."""
    opened = open_frames(source)
    return (frame for _, frame in opened)


# ---------------------------------------------------------------- images


def _natural_key(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _images_of(folder: Path) -> list[Path]:
    # A leading dot: the companion files that macOS leaves on foreign disks carry the image's own suffix.
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not files:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ValueError(f"{folder}: no image in this folder; it should hold {kinds} files")
    return sorted(files, key=_natural_key)


def _open_images(source: Path, files: list[Path]) -> FrameSource:
    """Headers are checked now, so that a bad file is told before an hour of work and not after it."""
    bad = [problem for problem in map(_header_problem, files) if problem]
    if bad:
        listed = "\n  ".join(bad[:_LISTED_FILES])
        more = f"\n  and {len(bad) - _LISTED_FILES} more" if len(bad) > _LISTED_FILES else ""
        counted = f"{len(bad)} of {len(files)} images cannot be read"
        raise ValueError(f"{source}: {counted}; repair or remove them:\n  {listed}{more}")

    def read() -> Iterator[tuple[str, Frame]]:
        return ((file.stem, _read_image(file)) for file in files)

    return FrameSource(str(source), len(files), None, read, files)


def _header_problem(file: Path) -> str | None:
    try:
        with Image.open(file):
            return None
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return f"{file.name}: {error}"


def _read_image(file: Path) -> Frame:
    """RGB, turned as EXIF orientation says. Alpha is dropped; of 16 bits a channel the upper 8 are kept."""
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it at 255
                grey = (np.asarray(upright).astype(np.uint32) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.array(upright.convert("RGB"), dtype=np.uint8)
    except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow's word for a broken PNG
        raise ValueError(f"{file} cannot be read ({error}); repair or remove it") from error


# ---------------------------------------------------------------- video


def _not_a_video(path: Path, why: str | None) -> ValueError:
    return ValueError(f"{path} cannot be read as a video ({why}); does it play? Re-encode it as mp4")


def _open_video(path: Path) -> FrameSource:
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise _not_a_video(path, "it has no picture track")
            stream = container.streams.video[0]
            length, rate = stream.frames or None, stream.average_rate
    except av.error.FFmpegError as error:
        raise _not_a_video(path, error.strerror) from error
    return FrameSource(str(path), length, float(rate) if rate else None, lambda: _read_video(path))


def upright_rgb(picture: av.VideoFrame) -> Frame:
    """Pixels of a decoded picture, turned as its file says."""
    # Phones store the sensor's frame and say by how much to turn it, counter-clockwise.
    turned = np.rot90(picture.to_ndarray(format="rgb24"), round(picture.rotation / 90))
    return np.ascontiguousarray(turned, dtype=np.uint8)


def _read_video(path: Path) -> Iterator[tuple[str, Frame]]:
    index, last_s = 0, 0.0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for picture in container.decode(video=0):
                yield f"{index:05d}", upright_rgb(picture)
                index, last_s = index + 1, picture.time or 0.0
            length_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            # Fewer frames alone may be meant so (an edit list), but not an end that never comes.
            if 0 < index < stream.frames and last_s < _WHOLE * length_s:
                raise ValueError(
                    f"{path} is cut off or damaged: it says that it has {stream.frames} frames, and {index} can be read"
                )
    except av.error.FFmpegError as error:
        raise _not_a_video(path, f"frame {index}: {error.strerror}") from error
    if index == 0:
        raise _not_a_video(path, "it holds no frame")


# ---------------------------------------------------------------- camera


def _open_camera(number: int) -> FrameSource:
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise OSError(
            f"camera {number} cannot be opened; see that it is connected and that no other program uses it, "
            "or name another one (camera:1)"
        )

    def read() -> Iterator[tuple[str, Frame]]:
        index = 0
        try:
            while True:
                ok, bgr = capture.read()
                if not ok:
                    raise OSError(f"camera {number} gave no frame after {index}; was it disconnected?")
                yield f"{index:05d}", cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
                index += 1
        finally:
            capture.release()

    return FrameSource(f"camera:{number}", None, capture.get(cv2.CAP_PROP_FPS) or None, read, live=True)


# ---------------------------------------------------------------- writing

# Half a second at a time, in the order in which it is played.
_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}


class VideoWriter:
    """An H.264 mp4 that any browser plays (yuv420p), written frame by frame.

        with VideoWriter("out/overlay.mp4", fps=24, size=(480, 854)) as video:
            video.write(frame_rgb)

    `size` is (height, width) of the frames that will come. H.264 in yuv420p needs even sides: an odd one gets
    a copy of its last row or column. The file is complete when the `with` block ends, by an error too.
    In place of a path an open file, which need not be seekable and stays open: it gets a fragmented mp4, which plays
    while it is still being written.
    """

    def __init__(self, target: str | Path | BinaryIO, fps: float, size: tuple[int, int]) -> None:
        """Raises:
        ValueError: fps or size is not positive.
        OSError: the file cannot be created.
        """
        if fps <= 0 or min(size) <= 0:
            raise ValueError(f"a video needs a positive frame rate and size, got {fps} fps and {size}")
        self.size = size
        self._own_file: BinaryIO | None = None
        if isinstance(target, str | Path):
            target = self._own_file = _create(Path(target))
        streamed = self._own_file is None
        self._container: OutputContainer = av.open(target, "w", format="mp4", options=_FRAGMENTED if streamed else {})
        rate = Fraction(fps).limit_denominator(1001)
        self._stream: VideoStream = self._container.add_stream("libx264", rate=rate)
        height, width = size
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "20", "preset": "veryfast", **({"tune": "zerolatency"} if streamed else {})}

    def __enter__(self) -> Self:
        return self

    def write(self, frame_rgb: Frame) -> None:
        """Append one frame.

        Raises:
            ValueError: the frame is not uint8 [H,W,3] of the video's size.
            OSError: the disk is full or gone.
        """
        if frame_rgb.shape != (*self.size, 3) or frame_rgb.dtype != np.uint8:
            got = f"{frame_rgb.dtype} {frame_rgb.shape}"
            raise ValueError(f"this video's frames are uint8 {(*self.size, 3)}, not {got}")
        height, width = self.size
        padded = np.pad(frame_rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
        finally:
            if self._own_file is not None:
                self._own_file.close()


def _create(path: Path) -> BinaryIO:
    """Opened before PyAV does, which opens a path only with the first frame, too late to say that it cannot."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise OSError(f"{path} cannot be written ({error.strerror}); choose another path or free this one") from error
