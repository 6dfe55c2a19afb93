"""Whole videos through the real server: the masks of single frames, while the upload goes on, in constant memory."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from s2spp import rle
from s2spp.video import open_frames
from tests.fakes.videos import frames_of, in_pieces, make_video
from tests.integration.server_process import ServerProcess, eventually
from tests.integration.tiny_bundle import write_tiny_bundle

_README = Path(__file__).resolve().parents[2] / "README.md"
HEIGHT, WIDTH, FRAMES = 90, 140, 40


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerProcess]:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("S2SPP_DRAIN_S", "1")
    bundle = write_tiny_bundle(tmp_path / "tiny")
    with ServerProcess(tmp_path / "data", str(bundle), threads=1) as server:
        yield server


@pytest.fixture(scope="module")
def video() -> bytes:
    return make_video(FRAMES, (HEIGHT, WIDTH))


def first_mask(height: int = HEIGHT, width: int = WIDTH) -> bytes:
    labels = np.zeros((height, width), np.uint8)
    labels[10 : height // 2, 20 : width // 2], labels[height // 2 : -5, width // 2 : -10] = 1, 5
    return cv2.imencode(".png", labels)[1].tobytes()


def form(video: bytes, mask: bytes | None = None) -> list[tuple[str, Any]]:
    return [("mask", ("m.png", mask or first_mask(), "image/png")), ("video", ("v.mp4", video, "video/mp4"))]


def labels_of(line: dict[str, Any]) -> NDArray[np.uint8]:
    height, width = line["rle"][0]["size"]
    labels = np.zeros((height, width), np.uint8)
    for one in line["rle"]:
        labels[rle.decode(one["counts"], height, width)] = one["object_id"]
    return labels


def frame_by_frame(server: ServerProcess, video: bytes) -> list[NDArray[np.uint8]]:
    frames = frames_of(video)
    pngs = [cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))[1].tobytes() for frame in frames]
    files = {"frame": ("f.png", pngs[0], "image/png"), "mask": ("m.png", first_mask(), "image/png")}
    options = {"options": '{"mask_format": "raw"}'}
    session = server.client.post("/v1/sessions", files=files, data=options).json()["session"]
    masks = []
    for index, png in enumerate(pngs[1:], start=1):
        path = f"/v1/sessions/{session}/frames/{index}?durability=relaxed"
        answer = server.client.post(path, content=png, headers={"Content-Type": "image/png"})
        masks.append(np.frombuffer(answer.content, np.uint8).reshape(frames[0].shape[:2]))
    return masks


class Upload:
    """A request whose video the test sends as it likes, and whose answer it reads when it likes."""

    def __init__(self, server: ServerProcess, length: int, query: str = "") -> None:
        """`length`: bytes of the video."""
        head = b"--x\r\nContent-Disposition: form-data; name=mask; filename=m\r\n\r\n" + first_mask()
        head += b"\r\n--x\r\nContent-Disposition: form-data; name=video; filename=v\r\n\r\n"
        self._tail = b"\r\n--x--\r\n"
        address = httpx.URL(server.http)
        self._socket = socket.socket()
        # Small: what is not read has to wait in the server.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.settimeout(60)
        self._socket.connect((address.host, address.port))
        self._socket.sendall(
            f"POST /v1/videos{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\n"
            f"Content-Length: {len(head) + length + len(self._tail)}\r\n\r\n".encode()
            + head
        )

    def send(self, video: bytes, *, last: bool = False) -> None:
        self._socket.sendall(video + self._tail if last else video)

    def read_until(self, mark: bytes) -> bytes:
        received = b""
        while mark not in received:
            piece = self._socket.recv(65536)
            assert piece, received[-2000:]
            received += piece
        return received

    def close(self) -> None:
        self._socket.close()

    def read_all(self) -> bytes:
        return b"".join(iter(lambda: self._socket.recv(1 << 20), b""))


def test_masks_equal_those_of_single_frames(server: ServerProcess, video: bytes) -> None:
    expected = frame_by_frame(server, video)
    assert any((mask != expected[0]).any() for mask in expected[1:])
    answer = server.client.post("/v1/videos", files=form(video))
    assert answer.status_code == 200, answer.text
    head, first, *lines = map(json.loads, answer.text.splitlines())
    assert (head["video"]["frames"], first["frame_index"]) == (FRAMES, 0)
    assert [line["frame_index"] for line in lines] == list(range(1, FRAMES))
    for line, mask in zip(lines, expected, strict=True):
        assert np.array_equal(labels_of(line), mask)
    parts = server.client.post("/v1/videos?format=multipart", files=form(video)).content
    pngs = [b"\x89PNG" + part for part in parts.split(b"\x89PNG")[1:]]
    assert len(pngs) == FRAMES
    assert "s2spp_sessions_in_memory 1.0" in server.client.get("/metrics").text  # that of the single frames


def test_answers_come_while_the_video_is_sent_slowly(server: ServerProcess, video: bytes) -> None:
    sent = Upload(server, len(video))
    half = len(video) // 2
    for piece in in_pieces(video[:half], 1500):
        sent.send(piece)
        time.sleep(0.002)
    sent.read_until(b'"frame_index":9')
    sent.send(video[half:], last=True)
    rest = sent.read_all()
    assert rest.endswith(b"0\r\n\r\n") and b"problem" not in rest
    assert f'"frame_index":{FRAMES - 1}'.encode() in rest


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(server: ServerProcess) -> None:
    """Neither with what is sent, nor with answers that nobody reads."""
    rss = psutil.Process(server.pid).memory_info
    piece = make_video(60, (HEIGHT, WIDTH), suffix="ts", codec="mpeg2video", bit_rate=20_000_000)
    for repeats in (1, 5):  # warm
        sent = Upload(server, repeats * len(piece), "?format=mp4")
        sent.send(piece * repeats, last=True)
        assert b"moof" in sent.read_all()
    before = rss().rss
    repeats = 60  # transport streams may be joined end to end
    sent = Upload(server, repeats * len(piece), "?format=mp4")
    for index in range(repeats):
        sent.send(piece, last=index == repeats - 1)
    unread = rss().rss
    answer = sent.read_all()
    after = rss().rss
    assert repeats * len(piece) > 20_000_000 and len(answer) > 4_000_000
    assert max(unread, after) - before < 10_000_000


def test_a_killed_upload_leaves_no_session(server: ServerProcess, video: bytes) -> None:
    sent = Upload(server, len(video))
    sent.send(video[: len(video) // 2])
    sent.read_until(b'"frame_index":3')
    assert "s2spp_sessions_in_memory 1.0" in server.client.get("/metrics").text
    sent.close()

    def gone() -> bool | None:
        return "s2spp_sessions_in_memory 0.0" in server.client.get("/metrics").text or None

    eventually(gone)
    assert 's2spp_sessions_total{event="deleted"} 1.0' in server.client.get("/metrics").text


def test_a_stopping_server_ends_a_video_with_words(server: ServerProcess, video: bytes) -> None:
    sent = Upload(server, len(video))
    sent.send(video[: len(video) // 2])
    sent.read_until(b'"frame_index":3')
    psutil.Process(server.pid).terminate()
    last = sent.read_all()
    assert b"the server is shutting down" in last and last.endswith(b"0\r\n\r\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_curl_examples_of_the_readme(server: ServerProcess, video: bytes, tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(video)
    (tmp_path / "first.png").write_bytes(first_mask())
    (example,) = re.findall(r"<!-- run by [^>]*-->\n```sh\n(.*?)```", _README.read_text(), re.DOTALL)
    script = "set -eu\n" + example.replace("http://localhost:8000", server.http)
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("frame_index") for line in lines] == [None, *range(FRAMES)]
    assert sum(1 for _ in open_frames(tmp_path / "overlay.mp4")) == FRAMES


def test_a_server_stops_though_nobody_reads(server: ServerProcess) -> None:
    piece = make_video(60, (HEIGHT, WIDTH), suffix="ts", codec="mpeg2video", bit_rate=20_000_000)
    sent = Upload(server, 30 * len(piece), "?format=mp4")
    sent.send(piece * 30, last=True)
    process = psutil.Process(server.pid)
    process.terminate()
    process.wait(timeout=30)
    assert not sent.read_all().endswith(b"0\r\n\r\n")  # an overlay that is not whole does not look like one
