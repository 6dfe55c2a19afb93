"""The embedded server as one finds it: a process, its Redis, its data folder, and the ways to end them."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import httpx
import numpy as np
import psutil
import pytest
from websockets.sync.client import connect

from s2spp.inprocess import InProcess
from s2spp.labels import save_labels
from service.bootstrap import build_engine
from service.client import Client
from service.core.types import Durability, EncodedImage, SessionOptions
from service.settings import Settings
from tests.integration.server_process import ServerProcess, eventually, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle

LIGHT = Path(__file__).resolve().parents[2] / "bundles" / "s2spp-light"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(autouse=True)
def no_redis_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture
def server(tmp_path: Path, tiny: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path / "data", str(tiny), threads=1) as server:
        yield server


def refused(data_dir: Path, bundle: str, *options: str) -> str:
    """What a server says that cannot start."""
    command = [sys.executable, "-m", "s2spp.cli", "serve", "--data-dir", str(data_dir), "--bundle", bundle]
    options = options or ("--http-port", "0", "--grpc-port", "0")
    done = subprocess.run([*command, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said, said
    return said


def open_session(server: ServerProcess, frame: bytes, mask: bytes) -> str:
    answer = server.client.post("/v1/sessions", files={"frame": ("f.jpg", frame), "mask": ("m.png", mask)})
    assert answer.status_code == 201, answer.text
    session: str = answer.json()["session"]
    return session


def post(server: ServerProcess, session: str, index: int, frame: bytes, durability: str = "strict") -> httpx.Response:
    answer = server.client.post(
        f"/v1/sessions/{session}/frames/{index}",
        content=frame,
        params={"durability": durability},
        headers={"Content-Type": "image/jpeg"},
    )
    assert answer.status_code == 200, answer.text
    return answer


def masks_without_interruption(server: ServerProcess, frames: list[bytes], mask: bytes) -> list[bytes]:
    session = open_session(server, frames[0], mask)
    return [post(server, session, index, frames[index]).content for index in range(1, len(frames))]


@pytest.mark.parametrize("bundle", ["tiny", "s2spp-light"])
def test_a_session_goes_on_after_server_and_redis_were_killed(tmp_path: Path, tiny: Path, bundle: str) -> None:
    if bundle == "s2spp-light" and not (LIGHT / "manifest.json").is_file():
        pytest.skip("the bundle s2spp-light is not in bundles/")
    frames, mask = make_clip(9)
    with ServerProcess(tmp_path / "data", str(tiny if bundle == "tiny" else LIGHT), threads=1) as server:
        expected = masks_without_interruption(server, frames, mask)
        session = open_session(server, frames[0], mask)
        masks = []
        for index in range(1, len(frames)):
            masks.append(post(server, session, index, frames[index]).content)
            if index in (1, 5):
                server.kill()
                server.start()
                assert server.client.get(f"/v1/sessions/{session}").json()["next_frame"] == index + 1
                assert post(server, session, index, frames[index]).content == masks[-1], "sent again: same bytes"
    assert masks == expected
    assert len(set(masks)) > 4, "the masks hardly change: losing the state would go unnoticed"


def test_a_kill_while_a_frame_is_answered_loses_nothing(server: ServerProcess) -> None:
    frames, mask = make_clip(6, seed=1)
    expected = masks_without_interruption(server, frames, mask)
    session = open_session(server, frames[0], mask)
    for index in range(1, len(frames)):

        def send(index: int = index) -> None:
            with suppress(httpx.HTTPError):  # the server dies under it
                post(server, session, index, frames[index])

        sending = threading.Thread(target=send)
        sending.start()
        time.sleep(0.004 * index)  # somewhere between the request and the answer
        server.kill()
        sending.join()
        server.start()
        assert post(server, session, index, frames[index]).content == expected[index - 1]


def test_sigterm_commits_what_was_not_and_ends_orderly(server: ServerProcess) -> None:
    frames, mask = make_clip(5)
    expected = masks_without_interruption(server, frames, mask)
    session = open_session(server, frames[0], mask)
    for index in range(1, 4):
        post(server, session, index, frames[index], durability="relaxed")
    redis = server.redis()
    assert server.stop() == 0, server.log.read_text()
    assert not redis.is_running()
    assert not (server.data_dir / "server.json").exists()
    server.start()
    assert server.client.get(f"/v1/sessions/{session}").json()["committed_frame"] == 3
    assert post(server, session, 4, frames[4]).content == expected[3]


@pytest.mark.parametrize("redis_url", ["", "redis://127.0.0.1:1"], ids=["embedded", "shared"])
def test_a_second_server_on_the_same_folder_says_so_and_harms_nothing(
    server: ServerProcess, tiny: Path, monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    frames, mask = make_clip(3)
    session = open_session(server, frames[0], mask)
    addresses = (server.data_dir / "server.json").read_text()
    monkeypatch.setenv("REDIS_URL", redis_url)
    said = refused(server.data_dir, str(tiny))
    assert str(server.data_dir) in said and str(server.pid) in said and "in use" in said
    assert (server.data_dir / "server.json").read_text() == addresses
    post(server, session, 1, frames[1])


def test_a_redis_that_dies_alone_comes_back_and_the_session_with_it(server: ServerProcess) -> None:
    frames, mask = make_clip(4)
    expected = masks_without_interruption(server, frames, mask)
    session = open_session(server, frames[0], mask)
    server.redis().kill()

    def answered() -> httpx.Response | None:
        answer = server.client.post(f"/v1/sessions/{session}/frames/1", content=frames[1])
        assert answer.status_code in (200, 503), answer.text
        return answer if answer.status_code == 200 else None

    assert eventually(answered).content == expected[0]
    assert post(server, session, 2, frames[2]).content == expected[1]
    assert server.client.get("/readyz").status_code == 200


def test_what_is_served_is_what_the_folder_says(server: ServerProcess) -> None:
    said = json.loads((server.data_dir / "server.json").read_text())
    assert said["pid"] == server.pid
    assert server.client.get("/readyz").status_code == 200
    assert server.client.get("/v1/models").json()["models"][0]["name"] == "tiny"
    frames, mask = make_clip(2)
    post(server, open_session(server, frames[0], mask), 1, frames[1])
    metrics = server.client.get("/metrics").text
    assert 's2spp_frame_seconds_count{stage="total"} 1.0' in metrics
    assert 's2spp_batch_size_sum{of="objects"} 2.0' in metrics


def test_every_way_in_gives_the_same_masks(server: ServerProcess, tiny: Path) -> None:
    frames, mask = make_clip(5)
    expected = masks_without_interruption(server, frames, mask)

    session = open_session(server, frames[0], mask)
    with connect(websocket_url(server, session)) as socket:
        assert json.loads(socket.recv())["session"]["next_frame"] == 1
        for frame in frames[1:]:
            socket.send(frame)
        streamed = [(json.loads(socket.recv()), socket.recv()) for _ in frames[1:]]
    assert [said["frame_index"] for said, _ in streamed] == [1, 2, 3, 4]
    assert [data for _, data in streamed] == expected

    mixed = open_session(server, frames[0], mask)
    with Client(server.grpc) as client:
        for index in (1, 2):
            client.segment(mixed, index, frames[index])
        assert client.session(mixed).next_frame == 3
    assert post(server, mixed, 3, frames[3]).content == expected[2]

    assert asyncio.run(masks_in_process(tiny, frames, mask)) == expected


async def masks_in_process(bundle: Path, frames: list[bytes], mask: bytes) -> list[bytes]:
    async with build_engine(Settings.load(bundle=str(bundle), threads=1)) as engine:
        opened = await engine.open(EncodedImage(frames[0]), EncodedImage(mask), SessionOptions())
        answers = [
            engine.segment(opened.info.session, index, EncodedImage(frame), durability=Durability.RELAXED)
            for index, frame in enumerate(frames[1:], start=1)
        ]
        return [delivered.answer.mask for delivered in await asyncio.gather(*answers)]


def websocket_url(server: ServerProcess, session: str) -> str:
    return f"{server.http.replace('http', 'ws', 1)}/v1/sessions/{session}/stream"


def test_a_stream_that_is_open_does_not_hold_up_the_end(server: ServerProcess) -> None:
    frames, mask = make_clip(4)
    session = open_session(server, frames[0], mask)
    with connect(websocket_url(server, session)) as socket, Client(server.grpc) as client:
        socket.send(frames[1])
        socket.recv(), socket.recv(), socket.recv()
        tracking = client.track(iter(lambda: frames[0], None), mask)
        next(tracking), next(tracking)
        assert server.stop() == 0, server.log.read_text()
    server.start()
    assert server.client.get(f"/v1/sessions/{session}").json()["committed_frame"] == 1


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_port_that_is_taken_is_told_and_leaves_nothing_behind(tmp_path: Path, tiny: Path, transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"http": "0", "grpc": "0", transport: str(taken.getsockname()[1])}
        options = ("--http-port", ports["http"], "--grpc-port", ports["grpc"])
        said = refused(tmp_path, str(tiny), *options)
    assert ports[transport] in said and "in use" in said and f"--{transport}-port" in said
    assert "E0000" not in said, "what gRPC writes itself"
    assert not (tmp_path / "server.json").exists()
    socket_file = str(tmp_path / "redis.sock")
    assert not [each for each in psutil.process_iter(["cmdline"]) if socket_file in str(each.info["cmdline"])]


@pytest.mark.parametrize(
    ("bundle", "environment", "says"),
    [
        ("", {"S2SPP_MAX_BATCH": "many"}, "S2SPP_MAX_BATCH=many"),
        ("", {"REDIS_URL": "redis://127.0.0.1:1"}, "127.0.0.1:1"),
        ("", {"REDIS_URL": "redis://127.0.0.1:1"}, "REDIS_URL"),
        ("no-such-bundle", {}, "no-such-bundle"),
    ],
    ids=["setting", "redis", "redis-setting", "bundle"],
)
def test_what_cannot_start_says_why(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch, bundle: str, environment: dict[str, str], says: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert says in refused(tmp_path, bundle or str(tiny))


def test_in_process_and_server_read_a_mask_file_alike(server: ServerProcess, tiny: Path) -> None:
    """Object 255 alone in an indexed PNG: an id there, though a grey picture of only 0 and 255 is object 1."""
    frames, _ = make_clip(3)
    labels = np.zeros(cv2.imdecode(np.frombuffer(frames[0], np.uint8), cv2.IMREAD_COLOR).shape[:2], np.uint8)
    labels[5:25, 5:25] = 255
    save_labels(path := tiny.parent / "first.png", labels)
    with Client(server.grpc) as client, InProcess(str(tiny)) as engine:
        served = list(client.track(iter(frames), path.read_bytes()))
        here = list(engine.track(iter(frames), path.read_bytes()))
    assert [each.objects[0].object_id for each in here] == [255] * 3
    for one, other in zip(served, here, strict=True):
        assert np.array_equal(one.labels, other.labels)


_HOLD = """
import time
from pathlib import Path
from s2spp import cli
from s2spp.embedded import EmbeddedServer

@cli.app.command()
def hold(folder: Path, bundle: str) -> None:
    with EmbeddedServer(folder, bundle, threads=1):
        time.sleep(60)

cli.main()
"""


@pytest.fixture
def command(tmp_path: Path, tiny: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command with a server of its own, as `s2spp demo` is one."""
    with subprocess.Popen([sys.executable, "-c", _HOLD, "hold", str(tmp_path), str(tiny)]) as command:
        yield command
        command.kill()


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_command_that_ends_takes_its_server_along(
    tmp_path: Path, command: subprocess.Popen[bytes], told: signal.Signals
) -> None:
    if signal.getsignal(told) is signal.SIG_IGN:
        pytest.skip(f"{told.name} is ignored here, as below nohup")
    eventually(lambda: (tmp_path / "server.json").exists() or None)
    family = psutil.Process(command.pid).children(recursive=True)
    assert len(family) == 2, "the server and its Redis"
    command.send_signal(told)
    assert command.wait(timeout=30) == (-told if told is signal.SIGKILL else 128 + told)
    eventually(lambda: not any(map(alive, family)) or None)


def test_a_command_that_is_killed_while_its_server_starts_leaves_none(
    tmp_path: Path, command: subprocess.Popen[bytes]
) -> None:
    def started() -> psutil.Process | None:
        return next(iter(psutil.Process(command.pid).children()), None)

    server = eventually(started)
    command.kill()
    eventually(lambda: not alive(server) or None)
    assert not (tmp_path / "server.json").exists()


def alive(process: psutil.Process) -> bool:
    """An orphan whose new parent does not care about it stays a zombie."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
