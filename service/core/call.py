"""The call that work is done for, and the names that its log lines and traces carry.

Whatever a request or a stream starts finds it in its context, tasks and threads that outlive it too."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from service.core.types import SessionId


@dataclass
class Call:
    """One request, or one stream from its first message to its last. `session`: once it is known; `trace`: the id of
    its trace, where there is one."""

    request: str
    session: SessionId | None = None
    trace: str | None = None


_current: ContextVar[Call | None] = ContextVar("s2spp_call", default=None)


def current_call() -> Call | None:
    """None outside every call: while the server starts, or in a task of its own."""
    return _current.get()


def begin_call(call: Call) -> None:
    """From here on, what this task does and starts is done for `call`."""
    _current.set(call)


def about(session: SessionId) -> SessionId:
    """The call is about `session`, which is handed back."""
    call = _current.get()
    if call is not None:
        call.session = session
    return session
