"""What a log line looks like."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from service.core.call import current_call


def configure_logging(level: str, style: Literal["console", "json"]) -> None:
    """Every record of the process to stderr, with the request and the session that it belongs to."""
    shared: list[structlog.types.Processor] = [
        _name_the_call,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    render: list[structlog.types.Processor]
    if style == "json":
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        render = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for talkative in ("uvicorn", "asyncio", "websockets", "urllib3", "grpc"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def _name_the_call(
    logger: structlog.types.WrappedLogger, method: str, line: structlog.types.EventDict
) -> structlog.types.EventDict:
    call = current_call()
    if call is not None:
        names = {"request": call.request, "session": call.session, "trace": call.trace}
        line.update({key: name for key, name in names.items() if name is not None})
    return line
