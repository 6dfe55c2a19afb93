"""Sessions and frames through HTTP: what the engine is asked, what callers get, bodies that are refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.core.errors import Overloaded
from service.core.types import Durability, ImageFormat, MaskFormat
from service.transport.http import start_http
from service.transport.rest import create_app

from .conftest import LIMIT, SESSION, ScriptedEngine

FRAMES = f"/v1/sessions/{SESSION}/frames"
JPEG = {"Content-Type": "image/jpeg"}


async def test_opening_says_where_the_session_is(
    http: httpx.AsyncClient, engine: ScriptedEngine, form: dict[str, Any]
) -> None:
    answer = await http.post("/v1/sessions", files=form)
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/sessions/{SESSION}"
    assert answer.json() == {
        "session": SESSION,
        "model": "fake",
        "model_digest": "d1",
        "height": 4,
        "width": 6,
        "object_ids": [1, 7],
        "next_frame": 1,
        "committed_frame": 0,
        "expires_in_s": 60.0,
        "state_bytes": 1234,
    }
    frame, mask, options = engine.opened[0]
    assert (frame.data, frame.format, mask.data) == (b"frame", ImageFormat.AUTO, b"mask")
    assert options.mask_format is MaskFormat.PNG
    assert (await http.get(answer.headers["location"])).json()["next_frame"] == 1


async def test_a_key_reaches_the_engine_and_a_replay_says_so(
    http: httpx.AsyncClient, engine: ScriptedEngine, form: dict[str, Any]
) -> None:
    first, again = [await http.post("/v1/sessions", files=form, headers={"Idempotency-Key": "k 1"}) for _ in range(2)]
    assert engine.keys == ["k 1", "k 1"]
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.content) == (201, first.content)
    for bad in ("", "x" * 256, "a\tb"):
        answer = await http.post("/v1/sessions", files=form, headers={"Idempotency-Key": bad})
        assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_OPTION")
    assert len(engine.opened) == 2


async def test_a_client_is_known_by_its_address(
    http: httpx.AsyncClient, engine: ScriptedEngine, form: dict[str, Any]
) -> None:
    await http.post("/v1/sessions", files=form)
    assert engine.clients == ["127.0.0.1"]


async def test_a_full_server_says_so_before_the_body_comes(port: int, engine: ScriptedEngine) -> None:
    engine.failure = Overloaded("full", 2.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    writer.write(f"{head}Content-Length: 50000\r\n\r\n".encode())
    async with asyncio.timeout(10):
        assert b" 429 " in await reader.readline()
        assert b"retry-after: 2" in (await reader.readuntil(b"\r\n\r\n")).lower()
    writer.close()


@pytest.mark.parametrize("as_file", [True, False])
async def test_options_travel_as_a_field_or_a_file(
    http: httpx.AsyncClient, engine: ScriptedEngine, form: dict[str, Any], as_file: bool
) -> None:
    text = json.dumps({"mask_format": "raw"})
    form["options"] = ("options.json" if as_file else None, text, "application/json")
    assert (await http.post("/v1/sessions", files=form)).status_code == 201
    assert engine.opened[0][2].mask_format is MaskFormat.RAW


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"mask": None}, 400, "part 'mask' is missing"),
        ({"frame": None, "mask": None}, 400, "part 'frame' is missing"),
        ({"frame": (None, b"frame")}, 400, "part 'frame' is not a file"),
        ({"image": ("i.png", b"x")}, 400, "unknown part 'image'"),
        ({"options": (None, "{")}, 400, "part 'options'"),
        ({"options": (None, "[]")}, 400, "part 'options'"),
        ({"options": (None, '{"mask_format": "bmp"}')}, 400, "mask_format"),
        ({"options": (None, '{"mask_fromat": "png"}')}, 400, "mask_fromat"),
        ({"frame": ("f.gif", b"GIF89a", "image/gif")}, 415, "image/gif"),
        ({"mask": ("m.raw", b"x", "application/x-rgb8")}, 415, "mask"),
        ({"mask": ("m.pdf", b"%PDF", "application/pdf")}, 415, "send an indexed or grey PNG"),
        ({"frame": ("f.raw", b"x", "application/x-rgb8")}, 400, "height"),
        ({"frame": ("f.jpg", b"x" * (LIMIT + 1), "image/jpeg")}, 413, "part 'frame'"),
    ],
    ids=str,
)
async def test_forms_that_cannot_be_used(
    http: httpx.AsyncClient,
    engine: ScriptedEngine,
    form: dict[str, Any],
    change: dict[str, Any],
    status: int,
    says: str,
) -> None:
    files = {name: part for name, part in (form | change).items() if part is not None}
    answer = await http.post("/v1/sessions", files=files or {"other": (None, "x")})
    body = answer.json()
    if not {"frame", "mask"} & set(files):
        says = "unknown part 'other'"
    assert (answer.status_code, body["status"]) == (status, status)
    assert says in body["detail"]
    assert not engine.opened


async def test_a_part_sent_twice_is_refused(http: httpx.AsyncClient, form: dict[str, Any]) -> None:
    answer = await http.post("/v1/sessions", files=[*form.items(), ("mask", ("n.png", b"x", "image/png"))])
    assert answer.status_code == 400
    assert "part 'mask' is there more than once" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "", 415),
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data", 400),
        (b"", "multipart/form-data; boundary=q", 400),
        (b"no boundary at all", "multipart/form-data; boundary=q", 400),
        (
            b'--q\r\nContent-Disposition: form-data; name="frame"; filename="f"\r\n\r\nhalf',
            "multipart/form-data; boundary=q",
            400,
        ),
    ],
)
async def test_bodies_that_are_no_form(
    http: httpx.AsyncClient, engine: ScriptedEngine, body: bytes, content_type: str, status: int
) -> None:
    answer = await http.post("/v1/sessions", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert not engine.opened


async def test_a_frame_returns_its_mask_and_what_was_seen(http: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    answer = await http.post(f"{FRAMES}/1", content=b"jpeg", headers=JPEG)
    assert (answer.status_code, answer.content) == (200, b"mask 1")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["s2spp-frame-index"] == "1"
    assert answer.headers["s2spp-committed-frame"] == "1"
    assert float(answer.headers["s2spp-compute-ms"]) == 12.5
    assert json.loads(answer.headers["s2spp-objects"]) == [
        {"object_id": 1, "area": 3, "box": [1, 2, 3, 1], "confidence": 0.75, "visible": True},
        {"object_id": 7, "area": 0, "box": [0, 0, 0, 0], "confidence": 0.0, "visible": False},
    ]
    call = engine.calls[0]
    assert (call.session, call.frame_index, call.frame.data) == (SESSION, 1, b"jpeg")
    assert (call.durability, call.received_through) == (Durability.STRICT, None)


async def test_durability_and_acknowledgement_reach_the_engine(http: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    await http.post(f"{FRAMES}/1?durability=relaxed&received_through=0", content=b"x", headers=JPEG)
    call = engine.calls[0]
    assert (call.durability, call.received_through) == (Durability.RELAXED, 0)


async def test_raw_masks_come_as_bytes_with_their_size(http: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    engine.mask_format = MaskFormat.RAW
    answer = await http.post(f"{FRAMES}/1", content=b"x", headers=JPEG)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert (answer.headers["s2spp-height"], answer.headers["s2spp-width"]) == ("4", "6")


async def test_raw_frames_carry_their_size(http: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    raw = {"Content-Type": "application/x-rgb8"}
    assert (await http.post(f"{FRAMES}/1", content=b"x" * 72, headers=raw)).status_code == 400
    await http.post(f"{FRAMES}/1?height=4&width=6", content=b"x" * 72, headers=raw)
    frame = engine.calls[0].frame
    assert (frame.format, frame.height, frame.width) == (ImageFormat.RAW_RGB8, 4, 6)


@pytest.mark.parametrize("content_type", ["image/png", "IMAGE/JPEG; q=1", "application/octet-stream", None])
async def test_content_types_whose_signature_decides(
    http: httpx.AsyncClient, engine: ScriptedEngine, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert (await http.post(f"{FRAMES}/1", content=b"x", headers=headers)).status_code == 200
    assert engine.calls[0].frame.format is ImageFormat.AUTO


async def test_a_content_type_that_is_not_read_names_those_that_are(http: httpx.AsyncClient) -> None:
    answer = await http.post(f"{FRAMES}/1", data={"curl": "default"})
    assert answer.status_code == 415
    assert "image/jpeg" in answer.json()["detail"]


async def test_deleting(http: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    answer = await http.delete(f"/v1/sessions/{SESSION}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert engine.deleted == [SESSION]


async def test_models_and_metrics(http: httpx.AsyncClient) -> None:
    model = (await http.get("/v1/models")).json()["models"][0]
    assert model["scores"] == {"J": 0.5}
    assert model["states"] == [{"name": "rnn_h", "shape": [32, "H/16", "W/16"], "dtype": "float16", "constant": False}]
    metrics = await http.get("/metrics")
    assert metrics.text == "frames_total 3\n"
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("path", ["/v1/sessions", f"{FRAMES}/1"])
async def test_a_body_declared_too_large_is_refused_unread(port: int, engine: ScriptedEngine, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content_type = "image/jpeg" if "frames" in path else "multipart/form-data; boundary=q"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
    writer.write(f"{head}Content-Length: 99999999999\r\n\r\n".encode())
    status_line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    assert b" 413 " in status_line


@pytest.mark.parametrize("path", ["/v1/sessions", f"{FRAMES}/1"])
async def test_an_endless_body_is_refused_while_it_is_read(port: int, engine: ScriptedEngine, path: str) -> None:
    """Chunked: nothing declares the length. The answer comes although the body never ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content_type = "image/jpeg" if "frames" in path else "multipart/form-data; boundary=q"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\n"
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    part = b'--q\r\nContent-Disposition: form-data; name="frame"; filename="f"\r\n\r\n'
    for data in [part] * ("frames" not in path) + [bytes(10_000)] * 40:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()
    status_line = await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    assert b" 413 " in status_line
    assert not engine.calls and not engine.opened


async def test_a_body_that_arrives_in_pieces_is_whole(http: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a", b"", b"bc"):
            yield piece

    await http.post(f"{FRAMES}/1", content=pieces(), headers=JPEG)
    assert engine.calls[0].frame.data == b"abc"


async def test_shutting_down_lets_a_frame_finish(engine: ScriptedEngine) -> None:
    engine.gates[1] = asyncio.Event()
    app = create_app(engine, max_image_bytes=LIMIT, metrics=bytes, version="1")
    server = await start_http(app)
    base = f"http://127.0.0.1:{server.port}"
    async with httpx.AsyncClient(base_url=base, timeout=10) as client:
        sending = asyncio.create_task(client.post(f"{FRAMES}/1", content=b"x", headers=JPEG))
        while not engine.calls:
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.2, engine.gates[1].set)
        await server.stop(grace_s=10)
        assert (await sending).content == b"mask 1"
        with pytest.raises(httpx.ConnectError):
            await client.get("/healthz")


async def test_shutting_down_does_not_wait_for_ever(engine: ScriptedEngine) -> None:
    engine.gates[1] = asyncio.Event()
    server = await start_http(create_app(engine, max_image_bytes=LIMIT, metrics=bytes, version="1"))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", timeout=10) as client:
        sending = asyncio.create_task(client.post(f"{FRAMES}/1", content=b"x", headers=JPEG))
        while not engine.calls:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(server.stop(grace_s=1), 10)
        sending.cancel()


async def test_a_taken_port_is_said_at_once(port: int, engine: ScriptedEngine) -> None:
    app = create_app(engine, max_image_bytes=LIMIT, metrics=bytes, version="1")
    with pytest.raises(OSError, match=f":{port} for HTTP: .*in use"):
        await start_http(app, port=port)
