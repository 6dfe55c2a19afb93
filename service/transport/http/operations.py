"""For those who run a worker: health, readiness and metrics, and nothing of sessions.

On Starlette alone: a worker that starts again in a crisis has no time to load FastAPI."""

from __future__ import annotations

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.core import errors
from service.core.ports import Engine
from service.transport.http.problems import http_problem, problem_response, unexpected

# The text format that every Prometheus server reads.
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def create_operations_app(engine: Engine, metrics: Callable[[], bytes]) -> Starlette:
    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        await engine.ready()
        return JSONResponse({"status": "ok"})

    async def metrics_text(request: Request) -> Response:
        return Response(metrics(), headers={"Content-Type": METRICS_TYPE})

    return Starlette(
        routes=[Route("/healthz", health), Route("/readyz", ready), Route("/metrics", metrics_text)],
        exception_handlers={errors.S2sppError: _known, HTTPException: _refused, Exception: _unforeseen},
    )


def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.S2sppError)
    return problem_response(error)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_problem(request, error)


def _unforeseen(request: Request, error: Exception) -> Response:
    return problem_response(unexpected())
