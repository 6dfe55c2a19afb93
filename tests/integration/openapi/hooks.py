"""What schemathesis sends where the document says "an image": one picture that is a good frame and a good mask.

Any bytes are valid by the document, so that it cannot tell a picture from noise; noise is what tests/chaos sends.
"""

from __future__ import annotations

import uuid

import cv2
import numpy as np
import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, HookContext

RAW_RGB8 = "application/x-rgb8"

_labels = np.zeros((24, 40), np.uint8)
_labels[4:18, 6:20] = 1
_labels[4:18, 24:36] = 2
_png = cv2.imencode(".png", _labels)[1].tobytes()
_pictures = {
    "image/png": _png,
    "application/octet-stream": _png,
    "image/jpeg": cv2.imencode(".jpg", 100 * _labels)[1].tobytes(),
    "image/webp": cv2.imencode(".webp", 100 * _labels)[1].tobytes(),
    RAW_RGB8: bytes(_labels.size * 3),
}
for media_type, picture in _pictures.items():
    schemathesis.openapi.media_type(media_type, st.just(picture))
schemathesis.openapi.format("binary", st.just(_png))


@schemathesis.hook
def map_case(context: HookContext, case: Case) -> Case:
    """What a document cannot say of a good request: a raw picture's size is in the query, and a new request takes a new
    key."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return case
    if case.media_type == RAW_RGB8:
        case.query = {**(case.query or {}), "height": _labels.shape[0], "width": _labels.shape[1]}
    if "Idempotency-Key" in case.headers:
        case.headers = {**case.headers, "Idempotency-Key": str(uuid.uuid4())}
    return case
