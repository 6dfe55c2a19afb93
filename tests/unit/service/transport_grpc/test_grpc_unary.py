"""The unary calls: what goes in reaches the engine unchanged, what the engine says comes out unchanged."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from s2spp.v1 import segmentation_pb2 as pb
from service.core.types import Durability, ImageFormat, MaskFormat
from tests.fakes.engine import MODEL, FakeEngine, moved
from tests.fakes.messages import create_request, first_labels, open_request, raw_image


async def test_open_segment_look_delete(engine: FakeEngine, stub: Any) -> None:
    request = create_request()
    request.options.mask_format = pb.MASK_FORMAT_RAW
    created = await stub.CreateSession(request)
    session = created.session
    assert created.state_bytes == 1234
    assert (session.height, session.width, session.next_frame) == (4, 6, 1)
    assert list(session.object_ids) == [1, 7]
    assert (session.model, session.model_digest) == (MODEL.name, MODEL.digest)
    frame, mask, options = engine.opened[0]
    assert (frame.format, frame.height, frame.width) == (ImageFormat.RAW_RGB8, 4, 6)
    assert mask.data == request.mask.data and mask.format is ImageFormat.AUTO
    assert options.mask_format is MaskFormat.RAW

    answered = await stub.SegmentFrame(
        pb.SegmentFrameRequest(session_id=session.session_id, frame_index=1, image=raw_image(9))
    )
    labels = moved(first_labels(), 1)
    assert answered.mask.data == labels.tobytes() and answered.mask.format == pb.MASK_FORMAT_RAW
    assert (answered.mask.frame_index, answered.mask.height, answered.mask.width) == (1, 4, 6)
    assert answered.mask.compute_ms == 1.5
    report = answered.mask.objects[1]
    assert (report.object_id, report.area, list(report.box)) == (7, 1, [1, 2, 3, 4])
    assert report.confidence == 0.75 and report.visible

    looked = (await stub.GetSession(pb.GetSessionRequest(session_id=session.session_id))).session
    assert (looked.next_frame, looked.committed_frame, looked.expires_in_s) == (2, 1, 600)
    await stub.DeleteSession(pb.DeleteSessionRequest(session_id=session.session_id))
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await stub.GetSession(pb.GetSessionRequest(session_id=session.session_id))
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_key_opens_one_session_and_a_replay_says_so(engine: FakeEngine, stub: Any) -> None:
    request = create_request()
    for _ in range(2):
        assert not (await stub.CreateSession(request)).replayed
    request.idempotency_key = "k 1"
    first, again = await stub.CreateSession(request), await stub.CreateSession(request)
    assert (first.replayed, again.replayed) == (False, True)
    assert first.session == again.session
    assert len(engine.sessions) == 3


async def test_a_client_is_known_by_its_address(engine: FakeEngine, stub: Any) -> None:
    await stub.CreateSession(create_request())
    stream = stub.Track(iter([open_request()]))
    await stream.read()
    assert engine.clients == ["127.0.0.1", "127.0.0.1"]


async def test_a_single_frame_is_strict_and_passes_the_acknowledgement_on(engine: FakeEngine, stub: Any) -> None:
    session = (await stub.CreateSession(create_request())).session.session_id
    for frame_index, received_through in ((1, None), (2, 0)):
        await stub.SegmentFrame(
            pb.SegmentFrameRequest(
                session_id=session,
                frame_index=frame_index,
                image=raw_image(),
                received_through=received_through,
            )
        )
    assert [call.durability for call in engine.calls] == [Durability.STRICT] * 2
    assert [call.received_through for call in engine.calls] == [None, 0]


async def test_masks_are_png_unless_asked_otherwise(engine: FakeEngine, stub: Any) -> None:
    await stub.CreateSession(create_request())
    assert engine.opened[0][2].mask_format is MaskFormat.PNG


async def test_model_says_what_is_served(stub: Any) -> None:
    model = await stub.GetModel(pb.GetModelRequest())
    assert (model.name, model.digest, model.licence) == (MODEL.name, MODEL.digest, MODEL.licence)
    assert (model.pixel_budget, model.multiple) == (MODEL.pixel_budget, MODEL.multiple)
    assert dict(model.scores) == {"J": 0.5, "F": 0.25}
    (state,) = model.states
    assert (state.name, list(state.shape), state.dtype) == ("rnn1_h", ["64", "H/16", "W/16"], "float16")
    assert not state.constant
