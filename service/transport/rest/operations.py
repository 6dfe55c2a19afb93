"""What runs the service, not what uses it: health, readiness, metrics."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Response

from service.core import errors
from service.core.ports import Engine
from service.transport.http.operations import METRICS_TYPE
from service.transport.http.problems import document_problems
from service.transport.rest.schemas import StatusOut


def operation_routes(engine: Engine, metrics: Callable[[], bytes]) -> APIRouter:
    routes = APIRouter(tags=["operations"])

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz", summary="The process is alive")
    async def health() -> StatusOut:
        return StatusOut(status="ok")

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz", summary="A session could be served now", responses=document_problems(errors.Unavailable))
    async def ready() -> StatusOut:
        await engine.ready()
        return StatusOut(status="ok")

    @routes.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"description": "Text exposition format", "content": {"text/plain": {}}}},
    )
    async def metrics_text() -> Response:
        return Response(metrics(), headers={"Content-Type": METRICS_TYPE})

    return routes
