from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def root_logger() -> Iterator[None]:
    """Logging is as it was once a test has set up its own."""
    names = ("", "uvicorn", "asyncio", "websockets", "urllib3")
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in names}
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
