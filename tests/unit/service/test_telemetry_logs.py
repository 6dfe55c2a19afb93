"""What a log line carries."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from typing import Any

import numpy as np
import pytest

from service.core.call import Call, about, begin_call, current_call
from service.core.types import SessionId
from service.telemetry import configure_logging

pytestmark = pytest.mark.usefixtures("root_logger")
SESSION = SessionId("S123")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_lines_of_a_call_name_it_and_its_session(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    log = logging.getLogger("service.somewhere")

    async def stream() -> None:
        begin_call(Call("r1", trace="t1"))
        log.info("beginning")

        async def opening() -> None:
            about(SESSION)

        await asyncio.create_task(opening())
        await asyncio.to_thread(log.info, "working on %s", "it", extra={"frame": 3})

    await asyncio.create_task(stream())
    log.info("elsewhere")
    beginning, working, elsewhere = lines(capsys)
    assert (beginning["request"], beginning.get("session"), beginning["trace"]) == ("r1", None, "t1")
    assert (working["request"], working["session"], working["frame"]) == ("r1", SESSION, 3)
    assert (working["event"], working["level"], working["logger"]) == ("working on it", "info", "service.somewhere")
    assert "request" not in elsewhere and current_call() is None


def test_a_line_may_name_another_session_than_its_call(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")

    def work() -> None:
        begin_call(Call("r1", SESSION))
        logging.getLogger("service").warning("not stored", extra={"session": "S9"})

    contextvars.copy_context().run(work)
    assert lines(capsys)[0]["session"] == "S9"


def test_a_trace_fits_on_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    try:
        np.zeros(2).reshape(3)
    except ValueError:
        logging.getLogger("service").exception("failed")
    (line,) = lines(capsys)
    assert "cannot reshape" in line["exception"]


def test_below_the_level_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "console")
    logging.getLogger("service").info("quiet")
    logging.getLogger("service").warning("loud")
    said = capsys.readouterr().err
    assert "loud" in said and "quiet" not in said
