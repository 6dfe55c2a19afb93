"""Whole videos through HTTP: each way to answer, answers while the upload goes on, and everything that is refused."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from s2spp import rle
from s2spp.video import open_frames
from service.core.errors import InvalidImage, Overloaded, Unavailable
from service.core.types import Durability, EncodedImage, ImageFormat, MaskFormat
from service.imaging import ImageLimits, decode_mask
from service.transport.http import start_http
from service.transport.rest import VideoBounds, create_app
from tests.fakes.engine import FakeEngine, encoded, indexed_png, moved
from tests.fakes.videos import frames_of, in_pieces, make_video
from tests.fakes.waiting import until

FRAMES, SIZE = 12, (48, 64)
VIDEO = make_video(FRAMES, SIZE)
LABELS = np.zeros(SIZE, np.uint8)
LABELS[10:20, 5:25], LABELS[30:40, 30:40] = 1, 5
MASK = indexed_png(LABELS)
BOUNDS = VideoBounds(max_bytes=1_000_000, max_frames=100, max_pixels=10_000, at_a_time=2, stall_s=20)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def port(engine: FakeEngine) -> AsyncIterator[int]:
    app = create_app(engine, max_image_bytes=50_000, metrics=lambda: b"", version="9.9", videos=BOUNDS)
    server = await start_http(app)
    yield server.port
    await server.stop(grace_s=5)


@pytest.fixture
async def http(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        yield client


def form(video: bytes = VIDEO, mask: bytes = MASK, options: dict[str, Any] | None = None) -> list[tuple[str, Any]]:
    parts: list[tuple[str, Any]] = [("mask", ("m.png", mask, "image/png"))]
    if options is not None:
        parts.append(("options", (None, json.dumps(options), "application/json")))
    return [*parts, ("video", ("v.mp4", video, "video/mp4"))]


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def labels_of(line: dict[str, Any]) -> NDArray[np.uint8]:
    labels = np.zeros(SIZE, np.uint8)
    for one in line["rle"]:
        labels[rle.decode(one["counts"], *one["size"])] = one["object_id"]
    return labels


def parts_of(answer: httpx.Response) -> list[Any]:
    assert answer.status_code == 200, answer.text
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    assert not message.defects
    return message.get_payload()  # type: ignore[return-value]


async def test_a_line_for_each_frame(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    answer = await http.post("/v1/videos", files=form())
    assert answer.headers["content-type"] == "application/x-ndjson"
    head, *frames = lines(answer)
    assert head["video"] == {
        "height": 48,
        "width": 64,
        "fps": 25.0,
        "frames": FRAMES,
        "object_ids": [1, 5],
        "model": "fake",
        "model_digest": "sha256:00ff",
    }
    assert [line["frame_index"] for line in frames] == list(range(FRAMES))
    for index, line in enumerate(frames):
        assert np.array_equal(labels_of(line), moved(LABELS, index))
    assert frames[0]["objects"][0] == {
        "object_id": 1,
        "area": 200,
        "box": [5, 10, 20, 10],
        "confidence": 1.0,
        "visible": True,
    }
    assert frames[3]["objects"][1]["confidence"] == 0.75


async def test_the_engine_gets_the_decoded_frames_and_the_session_goes(
    http: httpx.AsyncClient, engine: FakeEngine
) -> None:
    await http.post("/v1/videos", files=form())
    sent = [engine.opened[0][0], *(call.frame for call in engine.calls)]
    assert [frame.data for frame in sent] == [frame.tobytes() for frame in frames_of(VIDEO)]
    assert {(frame.format, frame.height, frame.width) for frame in sent} == {(ImageFormat.RAW_RGB8, *SIZE)}
    assert [call.frame_index for call in engine.calls] == list(range(1, FRAMES))
    assert {call.durability for call in engine.calls} == {Durability.RELAXED}
    assert all(call.received_through is not None and call.received_through < call.frame_index for call in engine.calls)
    assert len(engine.deleted) == 1 and not engine.sessions


@pytest.mark.parametrize("how", [{"params": {"format": "multipart"}}, {"headers": {"Accept": "multipart/mixed"}}])
async def test_a_part_for_each_frame(http: httpx.AsyncClient, how: dict[str, Any]) -> None:
    parts = parts_of(await http.post("/v1/videos", files=form(), **how))
    assert len(parts) == FRAMES
    for index, part in enumerate(parts):
        assert part.get_content_type() == "image/png"
        assert part["S2spp-Frame-Index"] == str(index)
        assert [one["object_id"] for one in json.loads(part["S2spp-Objects"])] == [1, 5]
        png = part.get_payload(decode=True)
        assert int(part["Content-Length"]) == len(png)
        assert np.array_equal(decode_mask(EncodedImage(png), ImageLimits()), moved(LABELS, index))


@pytest.mark.parametrize("mask_format", [MaskFormat.RAW, MaskFormat.RLE, MaskFormat.PROBABILITY])
async def test_parts_hold_masks_as_the_options_say(http: httpx.AsyncClient, mask_format: MaskFormat) -> None:
    sent = form(options={"mask_format": mask_format})
    parts = parts_of(await http.post("/v1/videos?format=multipart", files=sent))
    assert len(parts) == FRAMES
    expected = encoded(moved(LABELS, 3), mask_format)
    assert parts[3].get_payload(decode=True) == expected
    if mask_format is MaskFormat.RLE:
        assert json.loads(parts[0].get_payload(decode=True)) == json.loads(encoded(LABELS, mask_format))


async def test_the_overlay_is_a_video_of_as_many_frames(http: httpx.AsyncClient, tmp_path: Path) -> None:
    answer = await http.post("/v1/videos", files=form(), headers={"Accept": "video/mp4"})
    assert answer.headers["content-type"] == "video/mp4"
    (tmp_path / "overlay.mp4").write_bytes(answer.content)
    video = open_frames(tmp_path / "overlay.mp4")
    drawn, plain = [frame for _, frame in video], frames_of(VIDEO)
    assert (len(drawn), video.fps) == (FRAMES, 25.0)
    for index in (0, FRAMES - 1):
        inside = moved(LABELS, index) == 1
        red, _, blue = drawn[index][inside].mean(axis=0)
        assert red - blue > 30
        assert abs(int(drawn[index][45].mean()) - int(plain[index][45].mean())) < 10


async def read_some(reader: asyncio.StreamReader, what: bytes) -> bytes:
    return await asyncio.wait_for(reader.readuntil(what), 20)


async def send_head(port: int, video_bytes: int | None, query: str = "") -> tuple[Any, asyncio.StreamWriter, bytes]:
    """A connection whose request stands at the video's first byte, and what is to follow the last."""
    head = b"--x\r\nContent-Disposition: form-data; name=mask; filename=m.png\r\n\r\n" + MASK
    head += b"\r\n--x\r\nContent-Disposition: form-data; name=video; filename=v\r\n\r\n"
    tail = b"\r\n--x--\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    length = len(head) + (1_000_000 if video_bytes is None else video_bytes) + len(tail)
    writer.write(
        f"POST /v1/videos{query} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
        + head
    )
    return reader, writer, tail


@pytest.mark.parametrize(
    ("query", "marks"),
    [
        ("", [b'"frame_index":0', b'"frame_index":8']),
        ("?format=multipart", [b"Frame-Index: 0", b"Frame-Index: 8", b"\r\n--"]),
        ("?format=mp4", [b"moov", b"moof"]),
    ],
)
async def test_answers_come_while_the_video_is_sent(port: int, query: str, marks: list[bytes]) -> None:
    video = make_video(60)
    reader, writer, tail = await send_head(port, len(video), query)
    half = len(video) // 2
    for piece in in_pieces(video[:half], 5000):
        writer.write(piece)
        await writer.drain()
    for mark in marks:
        await read_some(reader, mark)
    writer.write(video[half:] + tail)
    rest = await read_some(reader, b"0\r\n\r\n")
    assert b"problem" not in rest
    writer.close()


async def test_an_index_at_the_end_only_delays(http: httpx.AsyncClient) -> None:
    frames = lines(await http.post("/v1/videos", files=form(make_video(FRAMES, index_last=True))))[1:]
    assert len(frames) == FRAMES
    assert np.array_equal(labels_of(frames[-1]), moved(LABELS, FRAMES - 1))


async def test_a_client_that_sends_everything_before_it_reads_gets_everything(engine: FakeEngine) -> None:
    """Far more in both directions than sockets hold: whoever waits for the other would wait for ever."""
    # So many frames that it is enough with one thread too, with which FFmpeg makes less of them.
    size, count = (240, 320), 300
    video = make_video(count, size, suffix="avi", codec="mjpeg")
    noise = indexed_png(np.random.default_rng(1).integers(0, 2, size).astype(np.uint8))
    app = create_app(engine, max_image_bytes=1_000_000, metrics=lambda: b"", version="9.9")
    server = await start_http(app)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(60)
    client.connect(("127.0.0.1", server.port))
    body = httpx.Request("POST", "http://x", files=form(video, noise))
    head = "".join(f"{name}: {value}\r\n" for name, value in body.headers.items())

    def send() -> None:
        client.sendall(f"POST /v1/videos?format=multipart HTTP/1.1\r\nConnection: close\r\n{head}\r\n".encode())
        client.sendall(body.read())

    await asyncio.to_thread(send)
    await asyncio.sleep(0.5)
    assert 0 < len(engine.calls) < count - 1  # the answers of the others wait until they are read
    received = await asyncio.to_thread(lambda: b"".join(iter(lambda: client.recv(1 << 20), b"")))
    assert received.count(b"S2spp-Frame-Index") == count and b"problem" not in received
    assert len(received) > 1_000_000 < len(video)
    client.close()
    await server.stop(grace_s=5)


async def test_decoding_waits_for_a_reader_that_is_slow(port: int, engine: FakeEngine) -> None:
    engine.hold(5)
    reader, writer, tail = await send_head(port, len(VIDEO))
    writer.write(VIDEO + tail)
    await until(lambda: len(engine.calls) >= 8)
    await asyncio.sleep(0.3)
    assert len(engine.calls) == 8  # 5 to 8 are under way, and no more
    engine.unhold(5)
    assert b'"frame_index":11' in await read_some(reader, b"0\r\n\r\n")
    writer.close()


@pytest.mark.parametrize("upload", ["half", "all"])
async def test_a_client_that_goes_away_leaves_nothing(port: int, engine: FakeEngine, upload: str) -> None:
    engine.hold(6)
    video = make_video(60)
    _, writer, tail = await send_head(port, len(video))
    writer.write(video[: len(video) // 2] if upload == "half" else video + tail)
    await until(lambda: len(engine.calls) >= 6)
    writer.close()
    await writer.wait_closed()
    engine.unhold(6)
    await until(lambda: len(engine.deleted) == 1)
    assert not engine.sessions and len(engine.calls) < 50


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        ({"files": [form()[1]]}, 400, "part 'mask' is missing or stands behind 'video'"),
        ({"files": [form()[1], form()[0]]}, 400, "stands behind 'video'"),
        ({"files": [form()[0]]}, 400, "part 'video' is missing"),
        ({"files": [form()[0], *form()]}, 400, "'mask' is there more than once"),
        ({"files": [("masks", b"x"), *form()]}, 400, "'masks' is not known"),
        ({"files": form(options={"mask_format": "jpg"})}, 400, "part 'options': mask_format"),
        ({"files": form(options={"mask_format": "png"})}, 400, "goes with multipart/mixed"),
        ({"files": form(options={"window": 3})}, 400, "window"),
        ({"files": form(), "headers": {"Accept": "text/html"}}, 400, "application/x-ndjson, multipart/mixed"),
        ({"files": form(), "params": {"format": "gif"}}, 400, "format"),
        ({"files": form(mask=MASK[:-40])}, 400, "the mask"),
        ({"files": form(mask=indexed_png(LABELS[:40]))}, 422, "size"),
        ({"files": form(b"no video at all" * 100)}, 415, "Send mp4"),
        ({"files": form(make_video(101))}, 413, "more than 100 frames"),
        ({"files": form(make_video(2, (100, 102)))}, 413, "102 x 100"),
        ({"files": form(mask=b"x" * 50_001)}, 413, "part 'mask' is larger than 50000 bytes"),
        ({"files": form(b"x" * 2_000_000)}, 413, "the body is larger than"),
        ({"content": VIDEO, "headers": {"Content-Type": "video/mp4"}}, 415, "send multipart/form-data"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "multipart body"),
        ({"content": b"--b", "headers": {"Content-Type": "multipart/form-data"}}, 400, "multipart body"),
    ],
)
async def test_what_is_refused_is_a_problem(
    http: httpx.AsyncClient, engine: FakeEngine, sent: dict[str, Any], status: int, told: str
) -> None:
    answer = await http.post("/v1/videos", **sent)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (answer.status_code, told in answer.json()["detail"]) == (status, True), answer.text
    assert not engine.sessions
    assert len(lines(await http.post("/v1/videos", files=form()))) == FRAMES + 1  # and the next one is served


@pytest.mark.parametrize("failure", [Unavailable("the store is away"), Overloaded("all slots are taken", 2.0)])
async def test_an_engine_that_cannot_open_is_told(
    http: httpx.AsyncClient, engine: FakeEngine, failure: Unavailable | Overloaded
) -> None:
    engine.failure = failure
    answer = await http.post("/v1/videos", files=form())
    assert (answer.status_code, answer.json()["detail"]) == (
        {2.0: 429}.get(getattr(failure, "retry_after_s", 0), 503),
        failure.message,
    )
    assert answer.headers["retry-after"]


async def test_a_video_longer_than_it_may_be_is_cut_off_while_it_is_sent(port: int, engine: FakeEngine) -> None:
    """Nothing in the head of this request tells how long it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/videos HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    head = b"--x\r\nContent-Disposition: form-data; name=mask; filename=m.png\r\n\r\n" + MASK
    head += b"\r\n--x\r\nContent-Disposition: form-data; name=video; filename=v\r\n\r\n"
    endless = [head, make_video(6, suffix="ts"), *[b"\0" * 60_000] * 40]
    for piece in endless:
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    assert b"larger than 1" in await read_some(reader, b"INPUT_TOO_LARGE")
    writer.close()


async def test_videos_at_a_time(port: int, http: httpx.AsyncClient, engine: FakeEngine) -> None:
    writers = [(await send_head(port, len(VIDEO)))[1] for _ in range(BOUNDS.at_a_time)]
    for writer in writers:
        writer.write(VIDEO[:-500])
    await until(lambda: len(engine.sessions) == BOUNDS.at_a_time)
    refused = await http.post("/v1/videos", files=form())
    assert (refused.status_code, refused.json()["reason"]) == (429, "OVERLOADED")
    assert refused.headers["retry-after"] == "5"
    for writer in writers:
        writer.close()
    await until(lambda: not engine.sessions)
    assert len(lines(await http.post("/v1/videos", files=form()))) == FRAMES + 1


async def test_damage_half_way_is_the_last_line(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    *answered, last = lines(await http.post("/v1/videos", files=form(VIDEO[: len(VIDEO) * 2 // 3])))
    assert 3 < len(answered) < FRAMES
    assert [line["frame_index"] for line in answered[1:]] == list(range(len(answered) - 1))
    assert last["problem"]["status"] == 422 and "damaged after" in last["problem"]["detail"]
    assert not engine.sessions


async def test_damage_half_way_is_the_last_part(http: httpx.AsyncClient) -> None:
    sent = form(VIDEO[: len(VIDEO) * 2 // 3])
    *masks, last = parts_of(await http.post("/v1/videos?format=multipart", files=sent))
    assert len(masks) > 2
    assert last.get_content_type() == "application/problem+json"
    assert json.loads(last.get_payload(decode=True))["reason"] == "INVALID_INPUT"


async def test_damage_half_way_breaks_an_overlay(http: httpx.AsyncClient, engine: FakeEngine) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
        await http.post("/v1/videos?format=mp4", files=form(VIDEO[: len(VIDEO) * 2 // 3]))
    assert not engine.sessions


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(InvalidImage("of another size"), "INVALID_IMAGE"), (ZeroDivisionError("secret"), "INTERNAL")],
)
async def test_a_frame_that_fails_is_the_last_line(
    http: httpx.AsyncClient, engine: FakeEngine, failure: Exception, reason: str
) -> None:
    engine.frame_failures[4] = failure
    *answered, last = lines(await http.post("/v1/videos", files=form()))
    assert answered[-1]["frame_index"] == 3
    assert last["problem"]["reason"] == reason and "secret" not in str(last)
    assert not engine.sessions


async def test_a_part_behind_the_video_is_refused_when_it_comes(port: int) -> None:
    reader, writer, _ = await send_head(port, None)
    writer.write(VIDEO[:-1000])
    await read_some(reader, b'"frame_index":0')
    writer.write(VIDEO[-1000:] + b"\r\n--x\r\nContent-Disposition: form-data; name=options\r\n\r\n{}\r\n--x--\r\n")
    assert b"part 'options' stands behind 'video'" in await read_some(reader, b"0\r\n\r\n")
    writer.close()


async def test_a_stopping_server_says_so(engine: FakeEngine) -> None:
    app = create_app(engine, max_image_bytes=50_000, metrics=lambda: b"", version="9.9", videos=BOUNDS)
    server = await start_http(app)
    engine.hold(7)
    reader, writer, _ = await send_head(server.port, len(VIDEO))
    writer.write(VIDEO[:-100])
    await read_some(reader, b'"frame_index":6')
    await server.stop(grace_s=1)
    last = await read_some(reader, b"0\r\n\r\n")
    assert b"the server is shutting down" in last
    await until(lambda: not engine.sessions)
    writer.close()


async def test_a_stopping_server_says_so_before_the_first_answer_too(engine: FakeEngine) -> None:
    app = create_app(engine, max_image_bytes=50_000, metrics=lambda: b"", version="9.9", videos=BOUNDS)
    server = await start_http(app)
    reader, writer, _ = await send_head(server.port, len(VIDEO))
    await asyncio.sleep(0.2)
    await server.stop(grace_s=1)
    received = await asyncio.wait_for(reader.read(-1), 20)
    assert b"503" in received.splitlines()[0] and b"the server is shutting down" in received
    writer.close()


async def test_a_sender_that_stalls_is_let_go(engine: FakeEngine) -> None:
    bounds = VideoBounds(stall_s=0.5)
    app = create_app(engine, max_image_bytes=50_000, metrics=lambda: b"", version="9.9", videos=bounds)
    server = await start_http(app)
    reader, writer, _ = await send_head(server.port, len(VIDEO))
    writer.write(VIDEO[:-3000])
    last = await read_some(reader, b"0\r\n\r\n")
    assert b"SESSION_EXPIRED" in last and b"has come for 0.5 s" in last
    assert not engine.sessions
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"POST /v1/videos HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 9\r\n\r\n"
    )
    assert b"410 Gone" in await read_some(reader, b"SESSION_EXPIRED")
    writer.close()
    await server.stop(grace_s=5)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/x-ndjson"),
        ("text/html, */*;q=0.8", "application/x-ndjson"),
        ("video/*", "video/mp4"),
        ("application/x-ndjson;q=0.5, multipart/mixed", "multipart/mixed"),
    ],
)
async def test_the_header_accept_chooses(http: httpx.AsyncClient, accept: str, kind: str) -> None:
    answer = await http.post("/v1/videos", files=form(), headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(kind)
