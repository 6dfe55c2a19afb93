"""`s2spp segment` in this process and over a server, with a bundle that starts at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2spp.commands.segment import segment
from s2spp.embedded import EmbeddedServer
from s2spp.labels import save_labels
from s2spp.video import open_frames
from tests.fakes.videos import make_video
from tests.integration.tiny_bundle import write_tiny_bundle

SIZE = (48, 64)
FRAMES = 60

Segment = Callable[..., None]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(tmp_path_factory.mktemp("server"), str(tiny), threads=1) as running:
        yield running


@pytest.fixture(params=["here", "server"])
def followed(request: pytest.FixtureRequest, tiny: Path) -> Segment:
    """`segment`, with what says where the model runs."""
    if request.param == "here":
        return lambda *given, **more: segment(*given, bundle=str(tiny), threads=1, **more)
    server: EmbeddedServer = request.getfixturevalue("server")
    return lambda *given, **more: segment(*given, server=server.grpc, **more)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return _mask(tmp_path / "first.png", np.s_[10:30, 10:30])


def _mask(path: Path, marked: tuple[slice, ...]) -> Path:
    labels = np.zeros(SIZE, np.uint8)
    labels[marked] = 1
    save_labels(path, labels)
    return path


def _folder(path: Path, frames: int, green: int = 40) -> Path:
    path.mkdir()
    for index in range(frames):
        Image.new("RGB", SIZE[::-1], (index, green, 90)).save(path / f"{index:05d}.png")
    return path


def _masks(out: Path) -> list[str]:
    return sorted(path.stem for path in out.glob("*.png"))


def _cut(whole: Path, to: Path) -> int:
    """Its first half, as a download that broke off leaves it; the frames that can be read of it."""
    to.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    readable = 0
    with pytest.raises(ValueError, match="cut off"):
        for _ in open_frames(to):
            readable += 1
    return readable


def test_every_readable_frame_of_a_damaged_video_gets_its_mask(tmp_path: Path, first: Path, followed: Segment) -> None:
    (tmp_path / "whole.mp4").write_bytes(make_video(FRAMES, SIZE))
    readable = _cut(tmp_path / "whole.mp4", tmp_path / "cut.mp4")
    assert 15 < readable < FRAMES - 15
    with pytest.raises(ValueError, match=rf"cut off or damaged: .* and {readable} can be read"):
        followed(str(tmp_path / "cut.mp4"), first, tmp_path / "masks")
    assert _masks(tmp_path / "masks") == [f"{index:05d}" for index in range(readable)]


def test_a_repaired_video_is_gone_on_with(tmp_path: Path, first: Path, server: EmbeddedServer) -> None:
    video, out = tmp_path / "video.mp4", tmp_path / "masks"
    (tmp_path / "whole.mp4").write_bytes(make_video(FRAMES, SIZE))
    _cut(tmp_path / "whole.mp4", video)
    with pytest.raises(ValueError, match="cut off"):
        segment(str(video), first, out, server=server.grpc)
    shutil.copy(tmp_path / "whole.mp4", video)
    segment(str(video), first, out, server=server.grpc, resume=True)
    assert len(_masks(out)) == FRAMES


def test_a_frame_of_another_size_is_named(
    tmp_path: Path, first: Path, followed: Segment, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = _folder(tmp_path / "frames", 6)
    Image.new("RGB", (40, 20)).save(frames / "00003.png")
    with pytest.raises(ValueError, match=r"frames/00003\.png, frame 3: the frame is 40 x 20 but the session's are 64"):
        followed(str(frames), first, tmp_path / "masks")
    assert _masks(tmp_path / "masks") == ["00000", "00001", "00002"]
    assert "--resume" not in capsys.readouterr().err, "the session has no place for another frame 3"
    with pytest.raises(ValueError, match="3 masks of another run: choose another folder"):
        followed(str(frames), first, tmp_path / "masks")


@pytest.fixture
def left(tmp_path: Path, first: Path, server: EmbeddedServer) -> Path:
    """Where an interrupted run has left its masks, two of `video`'s six."""
    frames = _folder(tmp_path / "video", 6)
    whole = (frames / "00002.png").read_bytes()
    (frames / "00002.png").write_bytes(whole[:60])  # its head alone
    with pytest.raises(ValueError, match=r"00002\.png cannot be read"):
        segment(str(frames), first, tmp_path / "masks", server=server.grpc)
    (frames / "00002.png").write_bytes(whole)
    return tmp_path / "masks"


def test_another_mask_or_video_than_the_run_was_begun_with_is_refused(
    tmp_path: Path, first: Path, left: Path, server: EmbeddedServer
) -> None:
    frames, other = tmp_path / "video", _mask(tmp_path / "other.png", np.s_[30:40, 40:60])
    video = _folder(tmp_path / "another", 6, green=60)
    before = {path: path.read_bytes() for path in left.iterdir()}
    with pytest.raises(ValueError, match=r"other\.png is not the mask .* begun with: .* choose another folder"):
        segment(str(frames), other, left, server=server.grpc, resume=True)
    with pytest.raises(ValueError, match=r"another does not begin with the frame .* began with: .* another folder"):
        segment(str(video), first, left, server=server.grpc, resume=True)
    assert {path: path.read_bytes() for path in left.iterdir()} == before
    again = _mask(tmp_path / "again.png", np.s_[10:30, 10:30])
    alike = _folder(tmp_path / "alike", 6, green=42)  # as another decoder may see it
    segment(str(alike), again, left, server=server.grpc, resume=True)
    assert len(_masks(left)) == 6 and not (left / "session.json").exists()
    # Where nothing is left to do, too.
    with pytest.raises(ValueError, match=r"other\.png is not the mask"):
        segment(str(frames), other, left, server=server.grpc, resume=True)


def test_what_an_earlier_version_left_is_gone_on_with(
    tmp_path: Path, first: Path, left: Path, server: EmbeddedServer
) -> None:
    note = json.loads((left / "session.json").read_text())
    del note["first_frame"]
    (left / "session.json").write_text(json.dumps(note))
    segment(str(tmp_path / "video"), first, left, server=server.grpc, resume=True)
    assert len(_masks(left)) == 6


def test_one_mask_is_no_masks(
    tmp_path: Path, first: Path, followed: Segment, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = _folder(tmp_path / "frames", 3)
    followed(str(frames), first, tmp_path / "masks", frames=1)
    assert capsys.readouterr().out.startswith("1 mask in ")
    with pytest.raises(ValueError, match="holds 1 mask of another run"):
        followed(str(frames), first, tmp_path / "masks")
