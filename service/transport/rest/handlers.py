"""Every answer of the application that is not a success is a problem document."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError, ValidationException, WebSocketRequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from service.core import errors
from service.transport.http.problems import http_problem, problem_response, unexpected


def install(app: FastAPI) -> None:
    """Starlette answers an unforeseen exception and raises it again, for the server to log its trace."""

    @app.exception_handler(errors.S2sppError)
    async def known(request: HTTPConnection, error: errors.S2sppError) -> Response:
        return problem_response(error)  # before a WebSocket is accepted, the response refuses the handshake

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(WebSocketRequestValidationError)
    async def invalid(request: HTTPConnection, error: ValidationException) -> Response:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        return problem_response(errors.InvalidOption("; ".join(faults)))

    @app.exception_handler(HTTPException)
    async def http(request: HTTPConnection, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods(request)):
            return http_problem(request, error, Allow=", ".join(methods))
        return http_problem(request, error)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to read it

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return problem_response(unexpected())


async def no_such_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Starlette's own one closes a WebSocket without a word."""
    raise HTTPException(HTTPStatus.NOT_FOUND)


def _methods(request: HTTPConnection) -> list[str]:
    """What may be asked of this path, as documented. (The exception names the methods of one route of several.)"""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    found = [methods for path, methods in paths.items() if compile_path(path)[0].match(request.url.path)]
    return sorted({method.upper() for methods in found for method in methods})
