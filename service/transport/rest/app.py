"""The FastAPI application over an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from service.core.errors import InvalidOption
from service.core.ports import Engine
from service.transport.http.problems import Problem, document_problems
from service.transport.http.stopping import Stopping
from service.transport.rest.bodies import OptionsIn
from service.transport.rest.commands import no_such
from service.transport.rest.handlers import install, no_such_path
from service.transport.rest.objects import object_routes
from service.transport.rest.operations import operation_routes
from service.transport.rest.schemas import (
    MASK_RESPONSE,
    OPENED_RESPONSE,
    AnswerOut,
    VideoFrameOut,
    VideoOptionsIn,
    VideoOut,
)
from service.transport.rest.sessions import model_routes, session_routes
from service.transport.rest.stream import stream_routes
from service.transport.rest.videos import VideoBounds, video_routes

_MORE_SCHEMAS: list[tuple[type[BaseModel], JsonSchemaMode]] = [
    (Problem, "serialization"),
    (OptionsIn, "validation"),
    (AnswerOut, "serialization"),
    (VideoOptionsIn, "validation"),
    (VideoOut, "serialization"),
    (VideoFrameOut, "serialization"),
]
_DESCRIPTION = """\
A first frame and its mask in, then frames one by one, and a mask for each out.

Send frames in order, each with its index: a frame whose answer got lost may be sent again and gets the same
bytes back, after a restart of the server too. Errors are problem documents (RFC 9457); `reason` is the word
to switch on.

A WebSocket for a whole video: `/v1/sessions/{session}/stream`, with the query parameters of a single frame.
It begins with a text message that tells where the session stands, `{"session": ...}`. Each binary message is the
next frame's image; each answer is a JSON text message (AnswerOut) followed by the mask as a binary message, or a
problem document alone. `{"received_through": 7}` says which masks you have: later ones are kept, and come again when
you connect with `?received_through=7`. `{"draw": {}}` and two binary messages, the frame sent last and the mask, add
objects or draw them anew; `{"remove": {"object_id": 2}}` removes one; `{"objects": ...}` answers both.
"""


def create_app(
    engine: Engine,
    *,
    max_image_bytes: int,
    metrics: Callable[[], bytes],
    version: str,
    stream_window: int = 16,
    videos: VideoBounds | None = None,
    stopping: Stopping | None = None,
) -> FastAPI:
    """`metrics` renders the Prometheus text. `stream_window`: frames of a WebSocket under way at once. `stopping`: ends
    WebSockets with a word."""
    app = FastAPI(title="s2spp", version=version, description=_DESCRIPTION, generate_unique_id_function=_route_name)
    install(app)
    app.router.default = no_such_path
    for routes in (
        session_routes(engine, max_image_bytes),
        object_routes(engine, max_image_bytes),
        stream_routes(engine, stream_window, stopping or Stopping()),
        video_routes(engine, max_image_bytes, videos or VideoBounds()),
        model_routes(engine),
    ):
        app.include_router(routes, dependencies=[Depends(_known_query)], responses=document_problems(InvalidOption))
    app.include_router(operation_routes(engine, metrics))

    @app.get("/", include_in_schema=False)
    async def to_the_docs() -> RedirectResponse:
        return RedirectResponse("/docs")

    _complete_document(app)
    return app


def open_to_pages(app: FastAPI, origins: Sequence[str]) -> ASGIApp:
    """Pages of those origins may call from a browser, "*" for all. Around everything: a page hears of a 500, too."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["Retry-After", *OPENED_RESPONSE["headers"], *MASK_RESPONSE["headers"]],
    )


async def _known_query(connection: HTTPConnection) -> None:
    """A parameter that is misspelt would be as good as left out."""
    known = [parameter.alias for parameter in connection.scope["route"].dependant.query_params]
    for name in connection.query_params:
        if name not in known:
            raise InvalidOption(f"query parameter: {no_such(name, known)}")


def _route_name(route: APIRoute) -> str:
    """The operation's id, which links name."""
    return route.name


def _complete_document(app: FastAPI) -> None:
    """Adds the schemas that FastAPI cannot see, and drops its validation errors: they are problems here."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        if "Problem" not in schemas:  # FastAPI keeps the document
            schemas |= models_json_schema(_MORE_SCHEMAS, ref_template="#/components/schemas/{model}")[1]["$defs"]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            for operation in (each for methods in document["paths"].values() for each in methods.values()):
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
