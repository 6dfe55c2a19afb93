"""A server as a process: its event loop, and how it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

_STDIN = 0


def run(server: Coroutine[Any, Any, None]) -> None:
    """On the fastest event loop there is."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):  # not made for every platform
        from uvloop import new_event_loop as factory
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(server)


def stop_signal(stop_with_stdin: bool) -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one ends the process at once."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def tell() -> None:
        told.set()
        for each in signals:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    def read_stdin() -> None:
        if not os.read(_STDIN, 1024):
            loop.remove_reader(_STDIN)
            tell()

    for each in signals:
        loop.add_signal_handler(each, tell)
    if stop_with_stdin:
        loop.add_reader(_STDIN, read_stdin)
    return told
