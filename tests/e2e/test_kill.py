"""kill -9 of the server and its Redis in the middle of a session: nothing is lost, every mask is the same."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import numpy as np

from s2spp.rest_client import RestClient, RestError, RestMask
from service.client.images import labels_of
from tests.e2e.material import Clip
from tests.integration.server_process import ServerProcess

KILLS = 20


def test_kill_nine_twenty_times_in_a_strict_session(tmp_path: Path, clip: Clip) -> None:
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    print(f"seed {seed}")
    server = ServerProcess(tmp_path / "state")
    with server, RestClient(server.http) as client:
        expected = [labels_of(answer.mask) for answer in client.track(clip.jpegs, clip.mask_png)]
    assert len(expected) == 100 and any(mask.any() for mask in expected)

    indices = rng.sample(range(1, 101), KILLS)
    while_answering, between = set(indices[: KILLS // 2]), set(indices[KILLS // 2 :])
    masks: list[np.ndarray] = []
    server.start()
    try:
        with RestClient(server.http) as client:
            session = client.open(clip.jpegs[0], clip.mask_png)["session"]
        for index in range(1, 101):
            if index in while_answering:
                _kill_while_answering(server, session, index, clip.jpegs[index], rng.uniform(0.0, 0.08))
                server.start()
            with RestClient(server.http) as client:
                answer = client.segment(session, index, clip.jpegs[index])
            masks.append(labels_of(answer.mask))
            assert answer.committed_frame >= index, "strict: an answered frame is a stored frame"
            if index in between:
                server.kill()
                server.start()
                with RestClient(server.http) as client:
                    again = client.segment(session, index, clip.jpegs[index])
                assert again.mask == answer.mask, "the same index again: the same bytes"
    finally:
        server.stop()
    for index, (got, want) in enumerate(zip(masks, expected, strict=True), start=1):
        assert np.array_equal(got, want), f"frame {index} differs after {KILLS} kills, seed {seed}"


def _kill_while_answering(server: ServerProcess, session: str, index: int, frame: bytes, delay_s: float) -> None:
    outcome: list[RestMask | RestError] = []

    def post() -> None:
        try:
            with RestClient(server.http) as client:
                outcome.append(client.segment(session, index, frame))
        except RestError as error:
            outcome.append(error)

    thread = threading.Thread(target=post)
    thread.start()
    time.sleep(delay_s)
    server.kill()
    thread.join(30)
    assert outcome, "the request neither ended nor failed"
