"""uvicorn on the event loop that is already running: port 0 allowed, no signal handlers of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

_BACKLOG = 512


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # whoever runs the process decides what a signal means

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@asynccontextmanager
async def running_rest(
    app: Any, host: str, port: int, *, max_message_bytes: int, drain_s: float = 10.0
) -> AsyncIterator[int]:
    """Serves the ASGI `app` while the context lasts; yields the port, which the system chose if `port` is 0.

    `max_message_bytes` bounds one WebSocket message. On leaving, requests have `drain_s` seconds to end.
    Raises OSError when the address cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        backlog=_BACKLOG,
        ws_max_size=max_message_bytes,
        ws_per_message_deflate=False,  # images are compressed already
        timeout_graceful_shutdown=max(1, round(drain_s)),
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        listening = asyncio.create_task(server.listening.wait())
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if serving.done():
            serving.result()
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await serving
