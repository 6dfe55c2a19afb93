"""Whom a cluster takes, and what it says of workers that cannot be reached."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from service.core.errors import Overloaded
from tests.integration.cluster_processes import Cluster, Member, free_port
from tests.integration.server_process import make_clip
from tests.integration.tiny_bundle import write_tiny_bundle


def opened(http: str, address: str, picture: bytes, mask: bytes) -> httpx.Response:
    """By a client at that address of this machine."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address=address), timeout=30) as client:
        return client.post(
            f"{http}/v1/sessions",
            files={"frame": ("0.jpg", picture, "image/jpeg"), "mask": ("0.png", mask, "image/png")},
        )


def test_a_client_that_has_its_share_is_told_at_once_and_takes_no_room_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    frames, mask = make_clip(1)
    limited = {"S2SPP_MAX_SESSIONS_PER_CLIENT": "1"}
    with Cluster(tmp_path, write_tiny_bundle(tmp_path / "b"), workers=1, environment=limited) as cluster:
        assert opened(cluster.http, "127.0.0.1", frames[0], mask).status_code == 201
        began = time.monotonic()
        refused = opened(cluster.http, "127.0.0.1", frames[0], mask)
        assert time.monotonic() - began < 5
        assert (refused.status_code, refused.json()["reason"]) == (429, Overloaded.reason)
        assert "S2SPP_MAX_SESSIONS_PER_CLIENT" in refused.json()["detail"]
        assert opened(cluster.http, "127.0.0.2", frames[0], mask).status_code == 201


def test_a_worker_that_is_not_where_it_says_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    frames, mask = make_clip(1)
    bundle = write_tiny_bundle(tmp_path / "b")
    cluster = Cluster(tmp_path, bundle, workers=0)
    elsewhere = f"127.0.0.1:{free_port()}"
    lost = Member("worker", tmp_path / "lost", cluster.redis.url, bundle, {"S2SPP_ADVERTISE": elsewhere})
    with cluster:
        lost.start()
        try:
            deadline = time.monotonic() + 20
            while "S2SPP_ADVERTISE" not in (said := cluster.gateways[0].log.read_text()):
                assert time.monotonic() < deadline, said
                time.sleep(0.1)
            assert elsewhere in said and "host:port" in said
            refused = opened(cluster.http, "127.0.0.1", frames[0], mask)
            assert refused.status_code == 503
            assert elsewhere not in refused.text, "an inner address is nobody's business"
        finally:
            lost.stop()
