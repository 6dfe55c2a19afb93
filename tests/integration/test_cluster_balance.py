"""Streams that live long: a worker that is added takes its share of them, and nobody outside notices."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from service.client import Client
from tests.chaos.cluster import counted
from tests.integration.cluster_processes import Cluster
from tests.integration.server_process import eventually, make_clip
from tests.integration.tiny_bundle import write_tiny_bundle

STREAMS = 6


def test_a_worker_that_is_added_takes_its_share_of_the_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    frames, mask = make_clip(40)
    over = threading.Event()
    found: list[list[bytes]] = [[] for _ in range(STREAMS)]

    def follow(number: int, target: str) -> None:
        def live() -> object:
            for index in range(100_000):
                if over.is_set():
                    return
                yield frames[index % len(frames)]
                time.sleep(0.01)

        with Client(target) as client:
            for index, result in enumerate(client.track(live(), mask)):  # type: ignore[arg-type]
                assert result.frame_index == index
                found[number].append(result.labels.tobytes())

    cluster = Cluster(tmp_path, write_tiny_bundle(tmp_path / "tiny"), workers=2)
    cluster.redis.start()
    first, second = cluster.workers
    try:
        for member in (first, *cluster.gateways):
            member.start()
        threads = [threading.Thread(target=follow, args=[number, cluster.grpc]) for number in range(STREAMS)]
        for thread in threads:
            thread.start()
        eventually(lambda: all(len(each) > 20 for each in found) or None)
        second.start()
        eventually(lambda: counted(second, "s2spp_sessions_in_memory") == STREAMS / 2 or None)
        time.sleep(3)
        # Now and then one moves too many, and back: of its worker the others hear half a second late.
        assert abs(counted(second, "s2spp_sessions_in_memory") - STREAMS / 2) <= 1
        assert counted(cluster.gateways[0], "s2spp_streams_moved_total") <= STREAMS, "they stay there"
        over.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        assert counted(cluster.gateways[0], "s2spp_frames_sent_again_total") == 0
    finally:
        over.set()
        cluster.__exit__(None, None, None)
    shortest = min(map(len, found))
    assert shortest > 100
    assert len({tuple(each[:shortest]) for each in found}) == 1, "all follow the same video, to the same masks"
