"""What docker-compose.yml starts works: each service's own command, environment and health check, without Docker."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.client import Client
from tests.integration.cluster_processes import free_port
from tests.integration.containers.files import ROOT, Service
from tests.integration.containers.stack import Stack
from tests.integration.server_process import eventually, make_clip

FRAMES, MASK = make_clip(5)


def test_frames_are_segmented_over_rest_and_grpc_with_the_same_masks(stack: Stack) -> None:
    gateway = stack.running["gateway"]
    with httpx.Client(base_url=gateway.http, timeout=30) as rest:
        opened = rest.post("/v1/sessions", files={"frame": ("f.jpg", FRAMES[0]), "mask": ("m.png", MASK)})
        assert opened.status_code == 201, opened.text
        session = opened.json()["session"]
        masks = [
            rest.post(f"/v1/sessions/{session}/frames/{index}", content=frame).raise_for_status().content
            for index, frame in enumerate(FRAMES[1:], start=1)
        ]
    with Client(gateway.grpc) as client:
        tracked = list(client.track(FRAMES, MASK))
    assert [frame.frame_index for frame in tracked] == [0, 1, 2, 3, 4]
    for over_grpc, over_rest in zip(tracked[1:], masks, strict=True):
        assert over_grpc.labels.any()
        assert np.array_equal(over_grpc.labels, np.array(Image.open(io.BytesIO(over_rest))))
    assert stack.redis.client().exists(f"s2spp:{{{session}}}:owner"), "sessions are in the Redis of docker/redis.conf"


def test_gateways_reach_a_worker_at_the_name_of_its_container(stack: Stack) -> None:
    (said,) = stack.redis.client().hvals("s2spp:workers")
    port = stack.running["worker"].grpc.rpartition(":")[2]
    assert f'"{socket.gethostname()}:{port}"'.encode() in said


@pytest.mark.parametrize("name", ["worker", "gateway"])
def test_a_health_check_tells_whether_the_service_serves(stack: Stack, name: str) -> None:
    container = stack.running[name]
    assert container.healthy()
    assert not container.healthy({"S2SPP_HTTP_PORT": str(free_port())}), "nothing listens there"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not container.healthy({"S2SPP_HTTP_PORT": str(silent.getsockname()[1])}), "it never answers"


def test_the_health_check_of_redis(stack: Stack) -> None:
    assert stack.redis.healthy(stack.redis.port)
    assert not stack.redis.healthy(free_port())


def test_a_gateway_without_workers_is_not_healthy_and_all_stop_when_told(tmp_path: Path, tiny: Path) -> None:
    with Stack(tmp_path, tiny) as stack:
        gateway = stack.up("gateway")
        assert not gateway.healthy()
        stack.up("worker")
        eventually(lambda: gateway.healthy() or None)
        with Client(gateway.grpc) as client:
            session = client.create_session(FRAMES[0], MASK).info.session
            client.segment(session, 1, FRAMES[1])
        assert stack.running["worker"].stop() == 0
        eventually(lambda: None if gateway.healthy() else True)
        assert gateway.stop() == 0


def test_what_an_image_does_not_install_is_not_there_in_these_tests() -> None:
    """A worker with what a gateway's image has does not start."""
    command = [sys.executable, "-m", "tests.integration.containers.only", "gateway", "worker"]
    environment = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "No module named 'safetensors'" in done.stderr


@pytest.mark.parametrize("name", ["worker", "gateway"])
def test_there_is_time_to_drain(name: str) -> None:
    from service.bootstrap.listening import _OVERDUE_S
    from service.settings import Settings

    service = Service.read(name)
    drain = float(service.environment.get("S2SPP_DRAIN_S", Settings.model_fields["drain_s"].default))
    assert service.grace_s >= drain + _OVERDUE_S + 5
