"""uvicorn on the event loop that is already running: port 0 allowed, no signal handlers of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from service.transport.http.stopping import Stopping
from service.transport.listener import BACKLOG, listen


class _Uvicorn(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # whoever runs the process decides what a signal means

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@dataclass(frozen=True)
class HttpServer:
    """A server that answers. `port`: the one it listens on, also where 0 was asked for."""

    port: int
    _server: _Uvicorn
    _serving: asyncio.Task[None]
    _stopping: Stopping

    async def stop(self, grace_s: float) -> None:
        """Tells streams to resume later, takes no new connections, gives running requests `grace_s` seconds, ends what
        is left."""
        until = time.monotonic() + grace_s
        await self._stopping.stop(grace_s)
        self._server.config.timeout_graceful_shutdown = max(1, round(until - time.monotonic()))
        self._server.should_exit = True
        await self._serving


def _is_no_mistake(record: logging.LogRecord) -> bool:
    """uvicorn takes a WebSocket that is refused with an answer for one without (its pull request 3138)."""
    return record.getMessage() != "ASGI callable returned without completing handshake."


async def start_http(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    max_message_bytes: int = 64 << 20,
    stopping: Stopping | None = None,
) -> HttpServer:
    """Starts to listen (port 0: any free one). A WebSocket message over `max_message_bytes` closes it. `stopping`: that
    of the app.

    Raises:
        OSError: the address cannot be listened on.
    """
    listener = listen(host, port, "HTTP")
    # Its connections inherit this. asyncio's own loop does not see that they are TCP, and a head would wait 40 ms for
    # the caller's acknowledgement before its body goes.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        backlog=BACKLOG,
        ws_max_size=max_message_bytes,
        ws_per_message_deflate=False,  # images are compressed already
    )
    logging.getLogger("uvicorn.error").addFilter(_is_no_mistake)
    server = _Uvicorn(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
    listening = asyncio.create_task(server.listening.wait())
    await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    if serving.done():
        serving.result()
    return HttpServer(listener.getsockname()[1], server, serving, stopping or Stopping())
