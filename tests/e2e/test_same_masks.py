"""The same frames give the same masks, whatever the way to the model and whoever else is being served."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from model.data.sequence import Sequence
from s2spp.embedded import EmbeddedServer
from s2spp.inprocess import InProcess
from s2spp.rest_client import RestClient
from service.client import Client
from service.client.images import labels_of
from tests.e2e.material import Clip, rendered_clip


def _over_rest(http: str, clip: Clip) -> list[np.ndarray]:
    with RestClient(http) as client:
        return [clip.labels, *(labels_of(answer.mask) for answer in client.track(clip.jpegs, clip.mask_png))]


def _over_grpc(target: str, clip: Clip) -> list[np.ndarray]:
    with Client(target) as client:
        return [result.labels for result in client.track(clip.jpegs, clip.labels)]


def _in_process(clip: Clip) -> list[np.ndarray]:
    with InProcess() as engine:  # the bundle that the server takes
        return [result.labels for result in engine.track(clip.jpegs, clip.labels)]


def _assert_equal(some: list[np.ndarray], others: list[np.ndarray]) -> None:
    assert len(some) == len(others)
    for index, (one, other) in enumerate(zip(some, others, strict=True)):
        assert np.array_equal(one, other), f"frame {index}: {(one != other).sum()} pixels differ"


@pytest.mark.data
@pytest.mark.parametrize("name", ["hike", "elephant"])
def test_rest_grpc_and_in_process_agree_on_real_video(
    name: str, tune_split: dict[str, Sequence], server: EmbeddedServer
) -> None:
    sequence = tune_split[name]
    clip = Clip([path.read_bytes() for path in sequence.frame_paths], sequence.labels(0))
    alone = _in_process(clip)
    assert len(alone) == len(sequence) and alone[-1].shape == clip.labels.shape
    assert all(labels.any() for labels in alone)
    _assert_equal(_over_rest(server.http, clip), alone)
    _assert_equal(_over_grpc(server.grpc, clip), alone)


def test_eight_sessions_at_once_get_the_masks_of_each_alone(server: EmbeddedServer) -> None:
    sizes = [(240, 424), (240, 424), (320, 240), (256, 256), (180, 320), (424, 240), (240, 424), (120, 400)]
    objects = [1, 3, 2, 1, 5, 2, 1, 1]
    clips = [
        rendered_clip(10, size, count, seed) for seed, (size, count) in enumerate(zip(sizes, objects, strict=True))
    ]
    alone = [_over_grpc(server.grpc, clip) for clip in clips]
    assert any(labels[5].any() for labels in alone)
    with ThreadPoolExecutor(8) as pool:
        ways = [(_over_rest, server.http) if n % 3 == 0 else (_over_grpc, server.grpc) for n in range(8)]
        together = list(pool.map(lambda job: job[0][0](job[0][1], job[1]), zip(ways, clips, strict=True)))
    for some, others in zip(together, alone, strict=True):
        _assert_equal(some, others)
