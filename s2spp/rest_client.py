"""The REST side as a person's own script would call it: for the demo, the benchmark and the tests. Not the SDK, which
speaks gRPC and resumes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx


class RestError(OSError):
    """A problem document (RFC 9457) or a connection that failed."""


@dataclass(frozen=True)
class RestMask:
    """`mask`: the answer's bytes, an indexed PNG. `objects`: reports as the service gives them."""

    frame_index: int
    mask: bytes
    objects: list[dict[str, Any]]
    committed_frame: int
    compute_ms: float


class RestClient:
    """`base`: such as http://127.0.0.1:8000. One connection, kept alive."""

    def __init__(self, base: str, timeout_s: float = 30.0) -> None:
        self._http = httpx.Client(base_url=base, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def open(self, frame: bytes, mask: bytes) -> dict[str, Any]:
        response = self._call("POST", "/v1/sessions", files={"frame": ("frame", frame), "mask": ("mask", mask)})
        session: dict[str, Any] = response.json()
        return session

    def segment(self, session: str, frame_index: int, frame: bytes, durability: str = "strict") -> RestMask:
        response = self._call(
            "POST",
            f"/v1/sessions/{session}/frames/{frame_index}",
            content=frame,
            params={"durability": durability},
            headers={"Content-Type": "application/octet-stream"},
        )
        headers = response.headers
        return RestMask(
            int(headers["S2spp-Frame-Index"]),
            response.content,
            json.loads(headers["S2spp-Objects"]),
            int(headers["S2spp-Committed-Frame"]),
            float(headers["S2spp-Compute-Ms"]),
        )

    def track(self, frames: Iterable[bytes], mask: bytes, durability: str = "strict") -> Iterator[RestMask]:
        """Frames 1, 2, ... of `frames`, whose first belongs to `mask`."""
        source = iter(frames)
        session = self.open(next(source), mask)["session"]
        try:
            for index, frame in enumerate(source, start=1):
                yield self.segment(session, index, frame, durability)
        finally:
            self.delete(session)

    def delete(self, session: str) -> None:
        self._call("DELETE", f"/v1/sessions/{session}")

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise RestError(f"{self._http.base_url}: {error}; is the server running?") from error
        if response.is_error:
            raise RestError(f"{method} {path}: {response.status_code} {response.text}")
        return response
