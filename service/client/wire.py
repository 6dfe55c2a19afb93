"""Messages of s2spp.v1 -> what the SDK gives its caller. Knows no connection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s2spp.v1 import segmentation_pb2 as pb
from service.client.images import labels_from, labels_of_planes, probability_from, reports_of
from service.core.types import (
    LabelMap,
    ModelInfo,
    ObjectReport,
    SessionId,
    SessionInfo,
    StateSpec,
)


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """The answer to one frame. `labels`: object ids uint8 [H,W] at the frame's own size, 0 is background.
    `committed_frame`: the last index that survives a crash of the server. `compute_ms`: inside the model.
    `session`: the id to take it up again with. `probability`: in a session of MaskFormat.PROBABILITY, uint8 [N,H,W] in
    1/255 in the order of `objects`; `labels` are made of it."""

    frame_index: int
    labels: LabelMap
    objects: tuple[ObjectReport, ...]
    committed_frame: int
    compute_ms: float
    probability: NDArray[np.uint8] | None = None
    session: str = ""


def tracked_frame(mask: pb.Mask, session: str) -> TrackedFrame:
    planes = probability_from(mask)
    ids = [report.object_id for report in mask.objects]
    return TrackedFrame(
        frame_index=mask.frame_index,
        labels=labels_from(mask) if planes is None else labels_of_planes(planes, ids),
        objects=tuple(object_report(report) for report in mask.objects),
        committed_frame=mask.committed_frame,
        compute_ms=mask.compute_ms,
        probability=planes,
        session=session,
    )


def first_frame(labels: LabelMap, session: pb.Session) -> TrackedFrame:
    """Frame 0's answer is the mask that was given."""
    objects = reports_of(labels, session.object_ids)
    return TrackedFrame(0, labels, objects, session.committed_frame, 0.0, session=session.session_id)


def session_info(session: pb.Session) -> SessionInfo:
    return SessionInfo(
        session=SessionId(session.session_id),
        model=session.model,
        model_digest=session.model_digest,
        height=session.height,
        width=session.width,
        object_ids=tuple(session.object_ids),
        next_frame=session.next_frame,
        committed_frame=session.committed_frame,
        expires_in_s=session.expires_in_s,
        epoch=session.epoch,
    )


def model_info(model: pb.GetModelResponse) -> ModelInfo:
    return ModelInfo(
        name=model.name,
        digest=model.digest,
        pixel_budget=model.pixel_budget,
        multiple=model.multiple,
        states=tuple(
            StateSpec(
                name=state.name,
                shape=tuple(int(side) if side.isdigit() else side for side in state.shape),
                dtype=state.dtype,
                constant=state.constant,
            )
            for state in model.states
        ),
        training_data=model.training_data,
        licence=model.licence,
        scores=dict(model.scores),
        provider=model.provider,
        chosen=model.chosen,
    )


def object_report(report: pb.ObjectReport) -> ObjectReport:
    x, y, width, height = report.box
    return ObjectReport(report.object_id, report.area, (x, y, width, height), report.confidence, report.visible)
