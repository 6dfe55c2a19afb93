"""A port to listen on, or a word why not."""

from __future__ import annotations

import socket

BACKLOG = 512


def listen(host: str, port: int, what: str) -> socket.socket:
    """Port 0: any free one. `what` is to be spoken there.

    Raises:
        OSError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]  # socket repeats the address there
        raise OSError(f"cannot listen on {host}:{port} for {what}: {why}") from error
