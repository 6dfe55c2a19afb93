"""Reading of videos, folders and cameras, and writing of mp4 files: real files, written by the tests."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, cast

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from s2spp.video import VideoWriter, open_frames

Frame = NDArray[np.uint8]


def quarters(height: int = 64, width: int = 96) -> Frame:
    """Red, green / blue, white: which way is up is seen at a glance."""
    frame = np.full((height, width, 3), 240, np.uint8)
    frame[: height // 2, : width // 2] = (220, 20, 20)
    frame[: height // 2, width // 2 :] = (20, 200, 20)
    frame[height // 2 :, : width // 2] = (20, 20, 220)
    return frame


def assert_like(got: Frame, wanted: Frame) -> None:
    assert got.shape == wanted.shape and got.dtype == np.uint8
    difference = np.abs(got.astype(int) - wanted)
    assert np.median(difference) <= 6 and difference.mean() <= 6


# ---------------------------------------------------------------- video files


@pytest.mark.parametrize("size", [(64, 96), (65, 96), (64, 97), (65, 97), (2, 2)])
def test_what_is_written_is_read_again(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "new" / "folder" / "out.mp4"
    moments = [np.full((*size, 3), grey, np.uint8) for grey in (30, 100, 170, 240)]
    with VideoWriter(path, fps=12.5, size=size) as video:
        for frame in moments:
            video.write(frame)
    source = open_frames(path)
    assert source.length == 4
    assert source.fps == pytest.approx(12.5)
    read = list(source)
    assert [name for name, _ in read] == ["00000", "00001", "00002", "00003"]
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    for (_, frame), grey in zip(read, (30, 100, 170, 240), strict=True):
        assert_like(frame, np.full((*even, 3), grey, np.uint8))
    assert [name for name, _ in source] == [name for name, _ in read], "a file can be read twice"


def test_colours_and_padding_survive(tmp_path: Path) -> None:
    frame = quarters(65, 97)
    with VideoWriter(tmp_path / "a.mp4", fps=24, size=(65, 97)) as video:
        video.write(frame)
    ((_, read),) = open_frames(tmp_path / "a.mp4")
    assert_like(read, np.pad(frame, ((0, 1), (0, 1), (0, 0)), mode="edge"))


def test_the_file_is_h264_in_yuv420p(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps=24, size=(48, 64)) as video:
        video.write(quarters(48, 64))
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_phone_video_is_turned_upright(tmp_path: Path, turn: int) -> None:
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(turn)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(quarters(), format="rgb24")))
        container.mux(stream.encode(None))
    ((_, frame),) = open_frames(path)
    assert_like(frame, np.rot90(quarters(), turn // 90))


def test_a_file_that_is_no_video_is_told(tmp_path: Path) -> None:
    (tmp_path / "letter.mp4").write_text("dear reader")
    (tmp_path / "empty.mp4").touch()
    with VideoWriter(tmp_path / "whole.mp4", fps=10, size=(64, 96)) as video:
        video.write(quarters())
    (tmp_path / "torn.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:-200])
    for name in ("letter.mp4", "empty.mp4", "torn.mp4"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read as a video .*[Rr]e-encode"):
            list(open_frames(tmp_path / name))


def test_a_video_that_was_cut_off_is_told_after_the_frames_that_are_there(tmp_path: Path) -> None:
    """As a download that broke off: its index, in front, promises more."""
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    random = np.random.default_rng(0)
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(40):
            noise = random.integers(0, 256, (64, 96, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    assert len(list(open_frames(whole))) == 40
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    there = []
    with pytest.raises(ValueError, match=r"cut off or damaged: .* 40 frames|cannot be read as a video"):
        for name, _ in open_frames(cut):
            there.append(name)
    assert 5 < len(there) < 35


def test_a_sound_file_is_told(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "song.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="no picture track"):
        open_frames(tmp_path / "song.wav")


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4: no such file or folder; give a video"):
        open_frames(tmp_path / "nowhere.mp4")


@pytest.mark.parametrize("address", ["rtsp://127.0.0.1:9/x", "https://host/video.mp4", "file:///video.mp4"])
def test_an_address_is_told_what_is_read_instead(address: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^{address}: addresses are not read, only a video file, a folder .*camera:0"
    ):
        open_frames(address)


def test_writing_where_one_cannot_is_told_before_any_frame(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "out.mp4"):
        with pytest.raises(OSError, match=r"cannot be written .* choose another path"):
            VideoWriter(path, fps=24, size=(48, 64))


def test_a_frame_or_rate_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps=24, size=(48, 64)) as video:
        with pytest.raises(ValueError, match=r"\(48, 64, 3\), not uint8 \(64, 48, 3\)"):
            video.write(quarters(64, 48))
        with pytest.raises(ValueError, match="not float64"):
            video.write(quarters(48, 64) / 255)  # type: ignore[arg-type]
        video.write(quarters(48, 64))
    for fps, size in ((0, (48, 64)), (24, (0, 64))):
        with pytest.raises(ValueError, match="positive"):
            VideoWriter(tmp_path / "b.mp4", fps=fps, size=size)


def test_an_error_inside_the_block_still_leaves_a_playable_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError), VideoWriter(tmp_path / "a.mp4", fps=24, size=(48, 64)) as video:
        video.write(quarters(48, 64))
        raise KeyError
    assert len(list(open_frames(tmp_path / "a.mp4"))) == 1


# ---------------------------------------------------------------- images


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._frame1.png").write_bytes(b"a companion file of macOS")
    source = open_frames(str(tmp_path))
    assert (source.length, source.fps) == (3, None)
    read = list(source)
    assert [name for name, _ in read] == ["frame1", "frame2", "frame10"]
    assert [int(frame[0, 0, 0]) for _, frame in read] == [1, 2, 10]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(quarters())))
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned.save(tmp_path / f"phone.{suffix}", exif=exif, quality=95)
    ((_, frame),) = open_frames(tmp_path)
    assert_like(frame, quarters())


def test_grey_palette_alpha_cmyk_and_16_bit_become_rgb(tmp_path: Path) -> None:
    picture = Image.fromarray(quarters())
    picture.convert("L").save(tmp_path / "a.png")
    picture.quantize(8).save(tmp_path / "b.png")
    rgba = picture.convert("RGBA")
    rgba.putalpha(0)
    rgba.save(tmp_path / "c.png")
    picture.convert("CMYK").save(tmp_path / "d.jpg", quality=95)
    deep = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "e.png"), deep)
    frames = dict(open_frames(tmp_path))
    grey = np.asarray(picture.convert("L"))
    assert np.array_equal(frames["a"], np.dstack([grey] * 3))
    assert_like(frames["b"], quarters())
    assert np.array_equal(frames["c"], quarters())
    assert_like(frames["d"], quarters())
    assert np.array_equal(frames["e"], np.dstack([(deep >> 8).astype(np.uint8)] * 3))


def test_unreadable_images_are_listed_before_the_first_frame(tmp_path: Path) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "0.png")
    for number in range(1, 13):
        (tmp_path / f"{number}.png").write_bytes(b"not an image")
    with pytest.raises(ValueError) as caught:
        open_frames(tmp_path)
    message = str(caught.value)
    assert "12 of 13 images cannot be read; repair or remove them" in message
    assert "1.png" in message and "10.png" in message and "12.png" not in message and "and 2 more" in message


def test_a_cut_image_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for name in ("photo.jpg", "photo.png"):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        Image.fromarray(noise).save(folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:3000])
        with pytest.raises(ValueError, match=rf"{name} cannot be read .*repair or remove it"):
            list(open_frames(folder))


def test_frames_are_read_one_by_one(tmp_path: Path) -> None:
    """The second image goes bad after the folder was opened: the first is given all the same."""
    for name in ("0.png", "1.png"):
        Image.fromarray(quarters()).save(tmp_path / name)
    frames = iter(open_frames(tmp_path))
    (tmp_path / "1.png").write_bytes(b"")
    assert next(frames)[0] == "0"
    with pytest.raises(ValueError, match=r"1\.png cannot be read"):
        next(frames)


def test_one_image_is_a_source_too(tmp_path: Path) -> None:
    Image.fromarray(quarters()).save(tmp_path / "one.png")
    source = open_frames(tmp_path / "one.png")
    assert source.length == 1
    ((name, frame),) = source
    assert name == "one" and np.array_equal(frame, quarters())


def test_a_folder_without_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no image in this folder; it should hold .*\.jpg"):
        open_frames(tmp_path)


# ---------------------------------------------------------------- camera


class FakeCapture:
    """A camera of two frames; number 5 is not there."""

    released = 0

    def __init__(self, number: int) -> None:
        self.number, self.left = number, 2

    def isOpened(self) -> bool:
        return self.number != 5

    def get(self, _: int) -> float:
        return 30.0

    def read(self) -> tuple[bool, Frame | None]:
        self.left -= 1
        if self.left < 0:
            return False, None
        return True, np.full((4, 6, 3), (255, 0, 7), np.uint8)  # OpenCV's order: blue first

    def release(self) -> None:
        FakeCapture.released += 1


@pytest.mark.parametrize("source", ["camera:0", "0", 0])
def test_a_camera_gives_rgb_frames_and_is_released(monkeypatch: pytest.MonkeyPatch, source: str | int) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    FakeCapture.released = 0
    camera = open_frames(source)
    assert (camera.name, camera.length, camera.fps) == ("camera:0", None, 30.0)
    frames = iter(camera)
    name, frame = next(frames)
    assert name == "00000" and frame[0, 0].tolist() == [7, 0, 255]
    next(frames)
    with pytest.raises(OSError, match="camera 0 gave no frame after 2; was it disconnected"):
        next(frames)
    assert FakeCapture.released == 1


def test_no_camera_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    with pytest.raises(OSError, match="camera 5 cannot be opened; see that it is connected"):
        open_frames("camera:5")


def test_an_open_file_gets_an_mp4_that_plays_while_it_is_written(tmp_path: Path) -> None:
    class Pipe:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: bytes) -> int:
            self.data += data
            return len(data)

    pipe, early = Pipe(), b""
    with VideoWriter(cast(BinaryIO, pipe), fps=10, size=(33, 40)) as video:
        for index in range(20):
            video.write(np.full((33, 40, 3), 10 * index, np.uint8))
            early = early or (pipe.data if index == 12 else b"")
    for name, data, least in (("early", early, 5), ("all", pipe.data, 20)):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(data)
        frames = [frame for _, frame in open_frames(path)]
        assert len(frames) >= least
        assert abs(int(frames[4].mean()) - 40) < 4
