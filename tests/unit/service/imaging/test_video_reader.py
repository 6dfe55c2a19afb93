"""Videos decoded while they come in: the same frames as from a file, and clear words for what cannot be read."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.core.errors import InputTooLarge, InvalidInput, S2sppError, UnsupportedMedia
from service.core.types import EncodedImage
from service.imaging import GrowingFile
from service.imaging.video import VideoLimits, VideoReader
from tests.fakes.videos import frames_of, in_pieces, make_video

KINDS = [
    {"suffix": "mp4"},
    {"suffix": "mp4", "index_last": True},
    {"suffix": "mp4", "fragmented": True},
    {"suffix": "mov"},
    {"suffix": "mkv"},
    {"suffix": "webm", "codec": "libvpx-vp9"},
    {"suffix": "ts"},
    {"suffix": "avi", "codec": "mjpeg"},
]


@pytest.fixture
def file() -> Iterator[GrowingFile]:
    with GrowingFile(10_000_000, "video") as file:
        yield file


def pixels(image: EncodedImage) -> NDArray[np.uint8]:
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)


def fill(file: GrowingFile, data: bytes) -> None:
    for piece in in_pieces(data, 1000):
        file.append(piece)
    file.finish()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_every_kind_gives_the_frames_of_the_file(file: GrowingFile, kind: dict[str, Any]) -> None:
    video = make_video(**kind)
    threading.Thread(target=fill, args=(file, video)).start()
    read = [pixels(image) for image in VideoReader(file, VideoLimits())]
    expected = frames_of(video, kind["suffix"])
    assert len(read) == len(expected) == 12
    assert all(np.array_equal(one, other) for one, other in zip(read, expected, strict=True))


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2], KINDS[4]], ids=["faststart", "fragmented", "mkv"])
def test_frames_come_before_the_file_is_whole(file: GrowingFile, kind: dict[str, Any]) -> None:
    video = make_video(60, **kind)
    file.append(video[: len(video) // 2])
    frames = iter(VideoReader(file, VideoLimits()))
    early = [next(frames) for _ in range(15)]
    fill(file, video[len(video) // 2 :])
    assert len(early) + sum(1 for _ in frames) == 60


def test_the_header_is_told_with_the_first_frame(file: GrowingFile) -> None:
    fill(file, make_video())
    reader = VideoReader(file, VideoLimits())
    next(iter(reader))
    assert (reader.fps, reader.length) == (25.0, 12)


def test_frames_stand_upright(file: GrowingFile, tmp_path: Path) -> None:
    # The display matrix of the first track, 36 bytes: a quarter turn, as phones write it.
    upright = b"".join(value.to_bytes(4, "big") for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    turned = b"".join(value.to_bytes(4, "big") for value in (0, 1 << 16, 0, (1 << 32) - (1 << 16), 0, 0, 0, 0, 1 << 30))
    lying = make_video()
    track = lying.index(b"tkhd")
    place = lying.index(upright, track)
    fill(file, lying[:place] + turned + lying[place + len(upright) :])
    first = next(iter(VideoReader(file, VideoLimits())))
    assert np.array_equal(pixels(first), np.rot90(frames_of(lying)[0], -1))


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("data", "error", "told"),
    [
        (b"", UnsupportedMedia, "cannot be read"),
        (b"hello world" * 1000, UnsupportedMedia, "Send mp4"),
        (PLAYLIST, UnsupportedMedia, "cannot be read"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", UnsupportedMedia, "cannot be read"),
        (make_video(40)[:20_000], InvalidInput, r"damaged after \d+ frames"),
        (make_video(40, index_last=True)[:20_000], UnsupportedMedia, "cannot be read"),
    ],
    ids=["empty", "text", "playlist", "concat", "cut", "index cut off"],
)
def test_what_is_no_video_is_told(file: GrowingFile, data: bytes, error: type[S2sppError], told: str) -> None:
    fill(file, data)
    with pytest.raises(error, match=told):
        list(VideoReader(file, VideoLimits()))


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"]
)
def test_a_list_opens_no_file_of_the_server(file: GrowingFile, tmp_path: Path, text: str) -> None:
    secret = tmp_path / "secret.ts"
    secret.write_bytes(make_video(suffix="ts"))
    fill(file, text.format(secret).encode())
    with pytest.raises(UnsupportedMedia):
        list(VideoReader(file, VideoLimits()))


def test_noise_is_refused_before_it_has_all_come(file: GrowingFile) -> None:
    file.append(os.urandom(3_000_000))
    with pytest.raises(UnsupportedMedia):
        next(iter(VideoReader(file, VideoLimits())))


def test_frames_and_pixels_have_limits(file: GrowingFile) -> None:
    fill(file, make_video())
    with pytest.raises(InputTooLarge, match="more than 11 frames"):
        next(iter(VideoReader(file, VideoLimits(max_frames=11))))
    with pytest.raises(InputTooLarge, match="64 x 48"):
        next(iter(VideoReader(file, VideoLimits(max_pixels=48 * 64 - 1))))
    assert sum(1 for _ in VideoReader(file, VideoLimits(12, 48 * 64))) == 12


def test_a_file_without_a_frame_count_is_cut_off_at_the_limit(file: GrowingFile) -> None:
    fill(file, make_video(suffix="ts"))
    frames = iter(VideoReader(file, VideoLimits(max_frames=5)))
    assert len([next(frames) for _ in range(5)]) == 5
    with pytest.raises(InputTooLarge, match="more than 5 frames"):
        next(frames)


def test_a_fault_of_the_upload_ends_a_reader_that_waits(file: GrowingFile) -> None:
    file.append(make_video(60)[:30_000])
    caught: list[Exception] = []

    def read() -> None:
        try:
            list(VideoReader(file, VideoLimits()))
        except InvalidInput as error:
            caught.append(error)

    reading = threading.Thread(target=read)
    reading.start()
    time.sleep(0.2)
    fault = InvalidInput("the sender stumbled")
    file.fail(fault)
    reading.join(10)
    assert caught == [fault]


def test_the_file_has_a_limit_and_no_name() -> None:
    with GrowingFile(10, "video") as file:
        file.append(b"0123456789")
        with pytest.raises(InputTooLarge, match="the video is larger than 10 bytes"):
            file.append(b"x")
        assert file.read_at(4, 100) == b"456789"
        file.finish()
        assert file.read_at(10, 100) == b""
        with file.whole() as whole:
            assert whole.read() == b"0123456789"
    assert file.read_at(0, 1) == b""
    with pytest.raises(ValueError, match="closed"):
        file.check()
