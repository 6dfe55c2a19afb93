"""What is told of a call, whichever way it came: its names, its log line, its count, its span."""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from service.core.call import Call, begin_call
from service.telemetry.metrics import Telemetry
from service.telemetry.record import CallRecord

REQUEST_ID = "x-request-id"
"""The header, or the metadata key, of a call's name; both ways."""
# What may stand in a log line and in a header as it came.
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_log = logging.getLogger(__name__)


class CallRecorder:
    """Records calls of both transports."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    @contextmanager
    def record(
        self, transport: str, what: str, headers: Mapping[str, str], *, stream: bool, traced: bool
    ) -> Iterator[CallRecord]:
        """For as long as the call runs. `what`: as its log line begins. `headers`: names in lower case.

        The call stays the task's own afterwards: the server runs each in one of its own, and logs there what was
        raised."""
        call = Call(_request_id(headers.get(REQUEST_ID)))
        begin_call(call)
        record = CallRecord(call.request, what)
        traces = self._telemetry.traces if traced else None
        span = traces.begin(what, headers) if traces else None
        if traces and span:
            call.trace = traces.trace_id(span)
        if stream:
            self._telemetry.stream_opened(transport)
        started = time.perf_counter()
        try:
            yield record
        finally:
            if stream:
                self._telemetry.stream_closed(transport)
            self._telemetry.call_ended(transport, record.route, record.status)
            if traces and span:
                traces.end(span, record, call)
            took_ms = round((time.perf_counter() - started) * 1e3, 1)
            _log.debug("%s", what, extra={"status": record.status, "took_ms": took_ms})


def _request_id(given: str | None) -> str:
    """The caller's own, if it is a short plain token."""
    return given if given is not None and _TOKEN.fullmatch(given) else secrets.token_hex(8)
