"""What no answer may be, whatever was asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import grpc
import httpx

_asked: ContextVar[str] = ContextVar("asked", default="")
# Nothing is away and no store has lost anything, so these are defects.
_BAD_CODES = frozenset(
    {
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
_BAD_NUMBERS = {code.value[0] for code in _BAD_CODES}
_BAD_REASONS = {"INTERNAL", "UNAVAILABLE"}


class Faults:
    """`found`: what went wrong, with the request. `answers`: how often which answer came."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.answers: Counter[str] = Counter()

    @contextmanager
    def of(self, asked: str) -> Iterator[None]:
        """All that is judged within is of this request. A connection that breaks is a fault, too."""
        token = _asked.set(asked)
        try:
            yield
        except (httpx.HTTPError, grpc.RpcError, OSError, TimeoutError) as error:
            self._add(f"no answer: {error!r}")
        finally:
            _asked.reset(token)

    def judge_response(self, answer: httpx.Response) -> None:
        self.answers[f"HTTP {answer.status_code}"] += 1
        if answer.status_code >= 500:
            self._add(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text[:300]}")
        elif answer.status_code >= 400 and answer.headers.get("content-type") != "application/problem+json":
            self._add(f"{answer.request.method} {answer.request.url}: {answer.status_code} is no problem document")

    def judge_text(self, text: str) -> None:
        """What a WebSocket said of a frame."""
        said = json.loads(text)
        self.answers[f"WS {said.get('reason', 'mask')}"] += 1
        if said.get("reason") in _BAD_REASONS:
            self._add(f"WebSocket: {text[:300]}")

    def judge_code(self, code: grpc.StatusCode, said: str | None = None) -> None:
        self.answers[f"gRPC {code.name}"] += 1
        if code in _BAD_CODES:
            self._add(f"gRPC {code.name}: {(said or '')[:300]}")

    def judge_number(self, number: int, said: str) -> None:
        """Of a google.rpc.Status."""
        self.answers[f"gRPC frame {number}"] += 1
        if number in _BAD_NUMBERS:
            self._add(f"a frame in a stream, code {number}: {said[:300]}")

    def _add(self, fault: str) -> None:
        self.found.append(f"{_asked.get()}: {fault}")
