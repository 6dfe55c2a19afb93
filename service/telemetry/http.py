"""REST and WebSockets, recorded: an ASGI application around the one that answers."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.telemetry.calls import REQUEST_ID, CallRecorder
from service.telemetry.record import OTHER, CallRecord

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_ANSWERS = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_SWITCHING = 101


class RecordedApp:
    """Tells the request's id in `X-Request-Id`. Health checks, metrics and pages are counted, but not traced."""

    def __init__(self, app: ASGIApp, recorder: CallRecorder) -> None:
        self._app, self._recorder = app, recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        websocket, path = scope["type"] == "websocket", scope["path"]
        method = "WS" if websocket else scope["method"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._recorder.record(
            "websocket" if websocket else "rest",
            f"{method} {path}",
            headers,
            stream=websocket,
            traced=path.startswith("/v1/"),
        ) as record:

            async def named(message: Message) -> None:
                if message["type"] in _ANSWERS:
                    _note_status(record, message.get("status", _SWITCHING))
                    own = (REQUEST_ID.encode(), record.request.encode())
                    message["headers"] = [*message.get("headers", ()), own]
                await send(message)

            try:
                await self._app(scope, receive, named)
            finally:
                _note_route(record, method, path, scope.get("route"))


def _note_status(record: CallRecord, status: int) -> None:
    record.status, record.failed = str(status), status >= 500
    record.attributes["http.response.status_code"] = status


def _note_route(record: CallRecord, method: str, path: str, route: object) -> None:
    """The application names the route in the request's scope once it has found one."""
    method = method if method in _METHODS or method == "WS" else OTHER
    template = getattr(route, "path", None)
    record.name = method if template is None else f"{method} {template}"
    record.attributes |= {"http.request.method": "GET" if method == "WS" else method, "url.path": path}
    if template is not None:
        record.route = record.name
        record.attributes["http.route"] = template
