"""A server that is told to stop stops, whatever becomes of its transports."""

from __future__ import annotations

import asyncio
import logging

import pytest

from service.bootstrap import listening


async def test_a_transport_that_hangs_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listening, "_OVERDUE_S", 0.01)
    ended = []

    async def ends() -> None:
        ended.append(True)

    async def hangs() -> None:
        await asyncio.Event().wait()

    with caplog.at_level(logging.WARNING):
        await listening.stopped(0.01, hangs(), ends())
    assert ended and "did not stop within" in caplog.text


async def test_an_error_while_stopping_is_not_lost() -> None:
    async def fails() -> None:
        raise OSError("of this one")

    with pytest.raises(OSError, match="of this one"):
        await listening.stopped(1.0, fails())
