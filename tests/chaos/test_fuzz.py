"""A short run of the fuzzing (`python -m tests.chaos.fuzz` is the long one), and that it would notice."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from service.bootstrap import build_engine
from service.core.ports import Engine
from service.core.types import EncodedImage
from service.settings import Settings
from service.transport.grpc import start_grpc
from service.transport.http import start_http
from service.transport.rest import create_app
from tests.chaos.fuzz import fuzz, fuzz_own_server
from tests.fakes.runtime import FakeRuntime


def test_a_server_takes_whatever_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    seed = random.randrange(10**6)
    report = fuzz_own_server(tmp_path, count=300, seed=seed)
    assert not report.faults, f"seed {seed}: {report.faults}"
    assert report.beside > 3
    # It got deep enough: good pictures were followed, and bad ones refused, by each way in.
    for answer in ("HTTP 200", "HTTP 400", "WS mask", "WS INVALID_IMAGE", "gRPC OK", "gRPC INVALID_ARGUMENT"):
        assert report.answers[answer], f"seed {seed}: no {answer} among {report.answers}"


@asynccontextmanager
async def served(spoil: str) -> AsyncIterator[tuple[str, str]]:
    """A server with one defect."""
    runtime = FakeRuntime()
    async with build_engine(Settings.load(), runtime=runtime) as engine:
        _spoil(engine, spoil, runtime)
        rest = await start_http(create_app(engine, max_image_bytes=1 << 20, metrics=lambda: b"", version="0"))
        grpc = await start_grpc(engine)
        try:
            yield f"http://127.0.0.1:{rest.port}", f"127.0.0.1:{grpc.port}"
        finally:
            await rest.stop(1)
            await grpc.stop(1)


def _spoil(engine: Engine, spoil: str, runtime: FakeRuntime) -> None:
    segment, calls = engine.segment, iter(range(10**6))

    async def broken(session: str, frame_index: int, frame: EncodedImage, **more: object) -> object:
        if spoil == "crashes on what is no picture" and frame.data[:1] not in (b"\xff", b"\x89", b"R"):
            raise ZeroDivisionError
        delivered = await segment(session, frame_index, frame, **more)  # type: ignore[arg-type]
        beside = delivered.answer.height == 90
        if spoil == "mixes sessions up" and beside and next(calls) == 2:
            return replace(delivered, answer=replace(delivered.answer, mask=b"another's"))
        return delivered

    engine.segment = broken  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize(
    ("defect", "told"), [("crashes on what is no picture", "INTERNAL"), ("mixes sessions up", "not those of a quiet")]
)
async def test_a_defect_is_noticed(defect: str, told: str) -> None:
    async with served(defect) as (http, address):
        report = await fuzz(http, address, os.getpid(), count=120, seed=1)
    assert any(told in fault for fault in report.faults), report.faults
    assert "seed 1" in " ".join(report.faults) or told != "INTERNAL"
