"""Every row of the error table, and everything else that is not a success, as a problem document."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from service.core import errors

from .conftest import SESSION, ScriptedEngine

FRAME = {"content": b"frame", "headers": {"Content-Type": "image/jpeg"}}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("x"), 422),
        (errors.InvalidImage("x"), 400),
        (errors.UnsupportedMedia("x"), 415),
        (errors.InputTooLarge("x"), 413),
        (errors.InvalidMask("x"), 422),
        (errors.InvalidOption("x"), 400),
        (errors.IdempotencyKeyReused("x"), 422),
        (errors.IdempotencyKeyInUse("x"), 409),
        (errors.SessionUnknown("x"), 404),
        (errors.SessionExpired("x"), 410),
        (errors.FrameAcknowledged("x"), 409),
        (errors.FrameGap("x"), 409),
        (errors.OwnershipLost("x"), 409),
        (errors.SessionRolledBack("x"), 409),
        (errors.SnapshotDamaged("x"), 409),
        (errors.ModelMismatch("x"), 412),
        (errors.Overloaded("x", 2.5), 429),
        (errors.Unavailable("x"), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_each_error_has_its_status_and_reason(
    http: httpx.AsyncClient, engine: ScriptedEngine, error: errors.S2sppError, status: int
) -> None:
    engine.failure = error
    answer = await http.post(f"/v1/sessions/{SESSION}/frames/1", **FRAME)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["detail"] == "x"
    assert body["reason"] == error.reason
    assert body["title"] and body["type"].startswith("urn:s2spp:problem:")


def test_the_table_knows_every_error_by_name() -> None:
    from service.transport.http.problems import ERRORS

    def tree(root: type[errors.S2sppError]) -> set[type[errors.S2sppError]]:
        return {root}.union(*(tree(child) for child in root.__subclasses__()))

    assert set(ERRORS) == {kind for kind in tree(errors.S2sppError) if kind.__module__ == "service.core.errors"}


async def test_metadata_are_members_and_cannot_replace_the_standard_ones(
    http: httpx.AsyncClient, engine: ScriptedEngine
) -> None:
    engine.failure = errors.FrameGap("expected frame 5", expected=5, status="no")
    body = (await http.post(f"/v1/sessions/{SESSION}/frames/7", **FRAME)).json()
    assert body["expected"] == "5"
    assert body["status"] == 409


@pytest.mark.parametrize(
    ("error", "header", "member"),
    [
        (errors.Overloaded("x", 2.2), "3", "2.2"),
        (errors.Unavailable("x"), "1", "1"),
        (errors.IdempotencyKeyInUse("x"), "1", "1"),
        (errors.FrameGap("x"), None, None),
    ],
)
async def test_retry_after(
    http: httpx.AsyncClient,
    engine: ScriptedEngine,
    error: errors.S2sppError,
    header: str | None,
    member: str | None,
) -> None:
    for method, path in (("GET", ""), ("POST", "/frames/1"), ("DELETE", ""), ("DELETE", "/objects/1")):
        engine.failure = error
        answer = await http.request(method, f"/v1/sessions/{SESSION}{path}")
        assert answer.headers.get("retry-after") == header
        assert answer.json().get("retry_after_s") == member


async def test_an_unforeseen_exception_is_logged_and_says_nothing_of_itself(
    http: httpx.AsyncClient, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.failure = ZeroDivisionError("secret path /etc")
    with caplog.at_level(logging.ERROR):
        answer = await http.get(f"/v1/sessions/{SESSION}")
    assert answer.status_code == 500
    assert answer.json()["reason"] == "INTERNAL"
    assert "secret" not in answer.text
    assert any(record.exc_info and "secret" in str(record.exc_info[1]) for record in caplog.records)
    assert (await http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("PUT", f"/v1/sessions/{SESSION}", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/sessions/short", 404, "SESSION_UNKNOWN"),
        ("GET", "/v1/sessions/..%2f..%2fetc%2fpasswd", 404, "NOT_FOUND"),
        ("POST", f"/v1/sessions/{SESSION}/frames/one", 400, "INVALID_OPTION"),
        ("POST", f"/v1/sessions/{SESSION}/frames/-1", 400, "INVALID_OPTION"),
        ("POST", f"/v1/sessions/{SESSION}/frames/99999999999999999999", 400, "INVALID_OPTION"),
        ("POST", f"/v1/sessions/{SESSION}/frames/1?durability=maybe", 400, "INVALID_OPTION"),
        ("POST", f"/v1/sessions/{SESSION}/frames/1?received_through=x", 400, "INVALID_OPTION"),
        ("POST", f"/v1/sessions/{SESSION}/frames/1?durabilty=relaxed", 400, "INVALID_OPTION"),
        ("GET", f"/v1/sessions/{SESSION}?x", 400, "INVALID_OPTION"),
    ],
)
async def test_requests_that_reach_no_engine_get_problems_too(
    http: httpx.AsyncClient, engine: ScriptedEngine, method: str, path: str, status: int, reason: str
) -> None:
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers["content-type"] == "application/problem+json"
    assert not engine.calls


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        (f"/v1/sessions/{SESSION}/frames/1?durabilty=relaxed", FRAME, "no 'durabilty'; did you mean 'durability'?"),
        (f"/v1/sessions/{SESSION}/frames/1?width=1&qqq=2", FRAME, "no 'qqq'; known: durability, received_through,"),
        ("/v1/sessions", {"data": {"options": '{"mask_fromat": "rle"}'}}, "did you mean 'mask_format'?"),
        ("/v1/videos?fromat=mp4", {}, "no 'fromat'; did you mean 'format'?"),
    ],
)
async def test_a_misspelt_name_is_refused_and_the_nearest_told(
    http: httpx.AsyncClient, form: dict[str, Any], path: str, sent: dict[str, Any], says: str
) -> None:
    answer = await http.post(path, **({} if "content" in sent else {"files": form}), **sent)
    assert (answer.status_code, answer.json()["reason"]) == (400, "INVALID_OPTION")
    assert says in answer.json()["detail"]


async def test_method_not_allowed_says_what_is(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/sessions")).headers["allow"] == "POST"
    assert (await http.put(f"/v1/sessions/{SESSION}")).headers["allow"] == "DELETE, GET"
    assert set((await http.put("/openapi.json")).headers["allow"].split(", ")) == {"GET", "HEAD"}


async def test_readiness_follows_the_engine(http: httpx.AsyncClient, engine: ScriptedEngine) -> None:
    assert (await http.get("/readyz")).status_code == 200
    for path in ("/healthz", "/readyz"):
        asked = await http.head(path)
        assert (asked.status_code, asked.content) == (200, b"")
    engine.failure = errors.Unavailable("the store is away")
    answer = await http.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "the store is away")


async def test_a_sender_that_goes_away_midway_is_no_error(
    http: httpx.AsyncClient, port: int, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/sessions/{SESSION}/frames/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.encode() + b"half")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await http.get("/healthz")).status_code == 200
    assert not engine.calls
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_openapi_documents_every_route_and_problem(http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == {
        ("post", "/v1/sessions"),
        ("post", "/v1/sessions/{session}/frames/{index}"),
        ("get", "/v1/sessions/{session}"),
        ("delete", "/v1/sessions/{session}"),
        ("post", "/v1/sessions/{session}/objects"),
        ("put", "/v1/sessions/{session}/objects/{object_id}/mask"),
        ("delete", "/v1/sessions/{session}/objects/{object_id}"),
        ("post", "/v1/videos"),
        ("get", "/v1/models"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }
    frames = operations["post", "/v1/sessions/{session}/frames/{index}"]
    assert set(frames["responses"]) >= {
        "200",
        "400",
        "404",
        "409",
        "410",
        "412",
        "413",
        "415",
        "422",
        "429",
        "503",
    }
    conflict = frames["responses"]["409"]["content"]["application/problem+json"]
    assert conflict["examples"]["FRAME_GAP"]["value"]["status"] == 409
    assert set(conflict["examples"]) == {
        "FRAME_ACKNOWLEDGED",
        "FRAME_GAP",
        "FRAME_DROPPED",
        "OWNERSHIP_LOST",
        "SESSION_ROLLED_BACK",
        "SNAPSHOT_DAMAGED",
    }
    for operation in operations.values():
        for status in {"429", "503"} & set(operation["responses"]):
            assert "Retry-After" in operation["responses"][status]["headers"]
    assert set(frames["responses"]["200"]["headers"]) >= {"S2spp-Objects", "S2spp-Committed-Frame"}
    form = operations["post", "/v1/sessions"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"frame", "mask", "options"}
    videos = operations["post", "/v1/videos"]
    assert set(videos["responses"]) >= {"200", "400", "413", "415", "422", "429", "503"}
    assert set(videos["responses"]["200"]["content"]) == {"application/x-ndjson", "multipart/mixed", "video/mp4"}
    assert list(videos["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"])[-1] == "video"
    assert "HTTPValidationError" not in str(document["paths"])
    assert all(_resolves(document, ref) for ref in _references(document))
    assert "s2spp" in (await http.get("/docs")).text


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in _references(value)]
    return [ref for value in node for ref in _references(value)] if isinstance(node, list) else []


def _resolves(document: dict[str, Any], reference: str) -> bool:
    node: Any = document
    for step in reference.removeprefix("#/").split("/"):
        node = node.get(step) if isinstance(node, dict) else None
    return node is not None
