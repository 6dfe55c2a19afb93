"""gRPC, recorded: an interceptor before every method of the server."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc

from service.telemetry.calls import REQUEST_ID, CallRecorder
from service.telemetry.record import CallRecord

_Context = grpc.aio.ServicerContext[Any, Any]
_TRACED = "/s2spp."
# The server's own fault, as OpenTelemetry's conventions for gRPC servers have it.
_FAILURES = {
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED,
}
_HANDLERS: Mapping[tuple[bool, bool], Callable[..., Any]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class RecordingInterceptor(grpc.aio.ServerInterceptor):
    """Tells the call's id in the initial metadata `x-request-id`. Health checks and reflection are counted, but not
    traced."""

    def __init__(self, recorder: CallRecorder) -> None:
        self._recorder = recorder

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        name = str(handler_call_details.method)
        metadata = handler_call_details.invocation_metadata or ()
        headers = {key: value for key, value in metadata if isinstance(value, str)}
        if handler is None:
            with self._recorder.record("grpc", name, headers, stream=False, traced=False) as record:
                record.status = grpc.StatusCode.UNIMPLEMENTED.name
            return None
        kind = (bool(handler.request_streaming), bool(handler.response_streaming))
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        @contextmanager
        def recorded(context: _Context) -> Iterator[CallRecord]:
            with (
                self._recorder.record(
                    "grpc", name, headers, stream=all(kind), traced=name.startswith(_TRACED)
                ) as record,
                _status_noted(record, name, context),
            ):
                yield record

        async def call(request: Any, context: _Context) -> Any:
            with recorded(context) as record:
                await context.send_initial_metadata(((REQUEST_ID, record.request),))
                return await behaviour(request, context)

        async def stream(request: Any, context: _Context) -> AsyncIterator[Any]:
            with recorded(context) as record:
                await context.send_initial_metadata(((REQUEST_ID, record.request),))
                async for response in behaviour(request, context):
                    yield response

        return _HANDLERS[kind](
            stream if inspect.isasyncgenfunction(behaviour) else call,
            handler.request_deserializer,
            handler.response_serializer,
        )


@contextmanager
def _status_noted(record: CallRecord, name: str, context: _Context) -> Iterator[None]:
    service, _, method = name.removeprefix("/").partition("/")
    record.route, record.name = name, f"{service}/{method}"
    record.attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    code = grpc.StatusCode.UNKNOWN
    try:
        yield
        code = _told(context) or grpc.StatusCode.OK
    except asyncio.CancelledError:
        code = grpc.StatusCode.CANCELLED
        raise
    except BaseException:
        code = _told(context) or code
        raise
    finally:
        record.status, record.failed = code.name, code in _FAILURES
        record.attributes["rpc.grpc.status_code"] = code.value[0]


def _told(context: _Context) -> grpc.StatusCode | None:
    """None as long as nobody has said a status."""
    code = context.code()
    return code if isinstance(code, grpc.StatusCode) else None
