"""Small videos in every kind of file, as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
from numpy.typing import NDArray

from s2spp.video import open_frames


def make_video(
    frames: int = 12,
    size: tuple[int, int] = (48, 64),
    *,
    suffix: str = "mp4",
    codec: str = "libx264",
    index_last: bool = False,
    fragmented: bool = False,
    bit_rate: int | None = None,
) -> bytes:
    """Frame i is a gradient of its own with noise on it: hard to pack, so that bytes stand for time."""
    options = {} if index_last or suffix not in ("mp4", "mov") else {"movflags": "faststart"}
    if fragmented:
        options = {"movflags": "frag_keyframe+empty_moov"}
    random = np.random.default_rng(5)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"video.{suffix}"
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.options = {"g": "10"}
            if bit_rate:
                stream.bit_rate = bit_rate
            for index in range(frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(_picture(index, size, random))))
            container.mux(stream.encode(None))
        return path.read_bytes()


def frames_of(video: bytes, suffix: str = "mp4") -> list[NDArray[np.uint8]]:
    """As the project's own reader of video files decodes them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"video.{suffix}"
        path.write_bytes(video)
        return [frame for _, frame in open_frames(path)]


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def _picture(index: int, size: tuple[int, int], random: np.random.Generator) -> NDArray[np.uint8]:
    height, width = size
    grey = (np.arange(width)[None, :] + np.arange(height)[:, None] + 7 * index) % 256
    picture = np.repeat(grey[:, :, None], 3, axis=2) + random.integers(-60, 60, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)
