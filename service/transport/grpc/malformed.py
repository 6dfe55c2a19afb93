"""Bytes that are no message of the contract are the caller's fault, and told as INVALID_ARGUMENT. (gRPC by itself
answers UNKNOWN, as for a defect of the server's, and logs one.)"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from service.core.errors import InvalidInput
from service.transport.grpc.errors import status_of

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class _Malformed:
    """In place of a message that could not be read."""


def _error() -> InvalidInput:
    return InvalidInput("the bytes are no message of s2spp.v1; are client and server of the same contract?")


class RefuseMalformed(grpc.aio.ServerInterceptor):
    """For the methods of `service`: those that take one message and answer one, and those with streams both ways."""

    def __init__(self, service: str) -> None:
        self._methods = f"/{service}/"

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]], details: grpc.HandlerCallDetails
    ) -> _Handler:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(self._methods):
            return handler
        read = _reader(handler.request_deserializer)
        if handler.stream_stream is not None:
            stream = _stream(handler.stream_stream)
            return grpc.stream_stream_rpc_method_handler(stream, read, handler.response_serializer)
        unary = _unary(handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(unary, read, handler.response_serializer)


def _reader(parse: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _Malformed()

    return read


def _unary(method: Any) -> Any:
    async def call(request: Any, context: Any) -> Any:
        if isinstance(request, _Malformed):
            status = rpc_status.to_status(status_of(_error()))
            await context.abort(status.code, status.details, status.trailing_metadata)
        return await method(request, context)

    return call


def _stream(method: Any) -> Any:
    async def call(requests: AsyncIterator[Any], context: Any) -> Any:
        return await method(_readable(requests), context)

    return call


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, _Malformed):
            raise _error()
        yield request
