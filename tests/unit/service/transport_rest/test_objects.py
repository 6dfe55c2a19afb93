"""Objects through HTTP: drawn, drawn anew, removed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from service.core.errors import FrameAcknowledged, InvalidMask, SessionUnknown
from service.core.types import DrawObjects, Durability, EncodedImage, ImageFormat, RemoveObject

from .conftest import SESSION, ScriptedEngine

OBJECTS = f"/v1/sessions/{SESSION}/objects"
DRAWN = DrawObjects(EncodedImage(b"frame"), EncodedImage(b"mask"))


async def test_a_mask_on_the_frame_sent_last_adds_objects(
    http: httpx.AsyncClient, engine: ScriptedEngine, form: dict[str, Any]
) -> None:
    answer = await http.post(OBJECTS, files=form, params={"frame_index": 4, "ordinal": 2})
    assert answer.status_code == 200 and answer.json()["object_ids"] == [1, 7, 9]
    assert engine.changes == [(SESSION, 4, 2, DRAWN, Durability.STRICT)]


async def test_without_an_index_it_is_whichever_frame_was_last(
    http: httpx.AsyncClient, engine: ScriptedEngine, form: dict[str, Any]
) -> None:
    await http.post(OBJECTS, files=form)
    await http.delete(f"{OBJECTS}/7")
    assert [change[1:4] for change in engine.changes] == [(None, None, DRAWN), (None, None, RemoveObject(7))]


async def test_one_object_is_corrected_and_removed(
    http: httpx.AsyncClient, engine: ScriptedEngine, form: dict[str, Any]
) -> None:
    assert (await http.put(f"{OBJECTS}/7/mask", files=form, params={"frame_index": 0})).status_code == 200
    removed = await http.delete(f"{OBJECTS}/1", params={"frame_index": 0})
    assert removed.status_code == 200 and removed.json()["session"] == SESSION
    assert [what for _, _, _, what, _ in engine.changes] == [
        DrawObjects(DRAWN.frame, DRAWN.mask, as_object=7),
        RemoveObject(1),
    ]


async def test_a_raw_frame_brings_its_size(
    http: httpx.AsyncClient, engine: ScriptedEngine, form: dict[str, Any]
) -> None:
    form["frame"] = ("f", b"x" * 72, "application/x-rgb8")
    await http.post(OBJECTS, files=form, params={"height": 4, "width": 6, "frame_index": 0})
    (_, _, _, what, _) = engine.changes[0]
    assert isinstance(what, DrawObjects)
    assert what.frame == EncodedImage(b"x" * 72, ImageFormat.RAW_RGB8, 4, 6)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"mask": None}, 400, "part 'mask' is missing"),
        ({"options": ("o", b"{}", "application/json")}, 400, "unknown part 'options'"),
    ],
)
async def test_other_forms_are_refused(
    http: httpx.AsyncClient,
    engine: ScriptedEngine,
    form: dict[str, Any],
    change: dict[str, Any],
    status: int,
    says: str,
) -> None:
    files = {name: part for name, part in (form | change).items() if part is not None}
    answer = await http.post(OBJECTS, files=files)
    assert answer.status_code == status and says in answer.json()["detail"] and not engine.changes


@pytest.mark.parametrize("object_id", ["0", "256", "x", "-1"])
async def test_ids_are_1_to_255(http: httpx.AsyncClient, engine: ScriptedEngine, object_id: str) -> None:
    assert (await http.delete(f"{OBJECTS}/{object_id}")).status_code in (400, 422)
    assert not engine.changes


@pytest.mark.parametrize(
    ("error", "status"), [(FrameAcknowledged("late"), 409), (InvalidMask("empty"), 422), (SessionUnknown("gone"), 404)]
)
async def test_the_engines_errors_are_problems(
    http: httpx.AsyncClient, engine: ScriptedEngine, form: dict[str, Any], error: Exception, status: int
) -> None:
    engine.failure = error
    answer = await http.post(OBJECTS, files=form, params={"frame_index": 0})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
