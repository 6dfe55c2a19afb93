"""An upgrade: workers of two models at a time. A session stays with its own."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from service.client import Client, TrackedFrame
from service.core.errors import ModelMismatch
from tests.integration.cluster_processes import Cluster, Member
from tests.integration.server_process import make_clip
from tests.integration.tiny_bundle import write_tiny_bundle


def test_a_session_goes_on_with_its_own_model_or_says_that_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    frames, mask = make_clip(12)
    cluster = Cluster(tmp_path, write_tiny_bundle(tmp_path / "old"), workers=2)
    newer = Member("worker", tmp_path / "newer", cluster.redis.url, write_tiny_bundle(tmp_path / "new", gain=0.4), {})
    with cluster, Client(cluster.grpc, retry_for_s=5) as client:
        expected = [result.labels for result in client.track(frames, mask)]
        opened = client.create_session(frames[0], mask).info

        def post(index: int) -> None:
            found.append(client.segment(opened.session, index, frames[index]))

        found: list[TrackedFrame] = []
        newer.start()
        try:
            post(1)
            for index in (2, 3):
                post(index)
                cluster.owner(opened.session).kill()
            with pytest.raises(ModelMismatch, match=opened.model_digest):
                post(4)
            fresh = client.create_session(frames[0], mask).info
            assert fresh.model_digest != opened.model_digest
            cluster.workers[0].start()
            time.sleep(1)  # the gateway hears of it
            post(4)
        finally:
            newer.stop()
    for index, result in enumerate(found, start=1):
        np.testing.assert_array_equal(result.labels, expected[index])
