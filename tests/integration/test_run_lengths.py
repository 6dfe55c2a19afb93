"""Run lengths as a server answers them, read by pycocotools: its PNG answers of the same frames, object by object."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from tests.e2e.material import Clip, rendered_clip
from tests.integration.server_process import ServerProcess
from tests.integration.tiny_bundle import write_tiny_bundle

# No side a multiple of the model's grid, and pixels whose order by column is not that by row.
SIZE = (241, 423)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return rendered_clip(6, SIZE, objects=3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("REDIS_URL", raising=False)
        bundle = write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
        with ServerProcess(tmp_path_factory.mktemp("data"), str(bundle), threads=1) as server:
            yield server


def over_rest(server: ServerProcess, clip: Clip, mask_format: str) -> list[bytes]:
    files = {
        "frame": ("frame", clip.jpegs[0]),
        "mask": ("mask", clip.mask_png),
        "options": (None, json.dumps({"mask_format": mask_format})),
    }
    opened = server.client.post("/v1/sessions", files=files)
    assert opened.status_code == 201, opened.text
    masks = []
    for index, frame in enumerate(clip.jpegs[1:], start=1):
        answered = server.client.post(f"/v1/sessions/{opened.json()['session']}/frames/{index}", content=frame)
        assert answered.status_code == 200, answered.text
        masks.append(answered.content)
    return masks


def over_grpc(server: ServerProcess, clip: Clip, mask_format: str) -> list[bytes]:
    options = pb.SessionOptions(mask_format=pb.MaskFormat.Value(f"MASK_FORMAT_{mask_format.upper()}"))
    first = pb.CreateSessionRequest(frame=pb.Image(data=clip.jpegs[0]), mask=pb.Image(data=clip.mask_png))
    first.options.CopyFrom(options)
    with grpc.insecure_channel(server.grpc) as channel:
        stub: Any = segmentation_pb2_grpc.SegmentationStub(channel)
        session = stub.CreateSession(first).session.session_id
        requests = (
            pb.SegmentFrameRequest(session_id=session, frame_index=index, image=pb.Image(data=frame))
            for index, frame in enumerate(clip.jpegs[1:], start=1)
        )
        return [stub.SegmentFrame(request).mask.data for request in requests]


def labels_of_png(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P"
        return np.array(image)


@pytest.mark.parametrize("transport", [over_rest, over_grpc])
def test_run_lengths_are_the_pngs_mask(transport: Any, server: ServerProcess, clip: Clip) -> None:
    pngs, runs = (transport(server, clip, form) for form in ("png", "rle"))
    assert len(pngs) == len(runs) == 5
    for png, run in zip(pngs, runs, strict=True):
        labels, objects = labels_of_png(png), json.loads(run)
        assert labels.shape == SIZE and set(np.unique(labels)) == {0, 1, 2, 3}
        assert [one["object_id"] for one in objects] == [1, 2, 3]
        for one in objects:
            found = coco.decode({"size": one["size"], "counts": one["counts"]})
            np.testing.assert_array_equal(found, labels == one["object_id"])
