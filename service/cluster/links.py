"""Connections to workers: one for each, cut at once when a worker is alive no more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, TypeAlias, TypeVar

import grpc
from grpc_status import rpc_status

from s2spp.v1 import segmentation_pb2_grpc
from service.client.errors import error_from_call
from service.client.requests import CHANNEL_OPTIONS
from service.core.errors import Unavailable
from service.core.registry import WorkerState

_log = logging.getLogger(__name__)
_Reply = TypeVar("_Reply")
# What grpc.aio makes of a stream's status where it ends while it is written to (grpc issue 36066).
_WRITTEN_TOO_LATE = "Internal error from Core"
Stub: TypeAlias = "segmentation_pb2_grpc.SegmentationAsyncStub"  # known to type checkers only


class Links:
    """For one event loop."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    def stub(self, worker: WorkerState) -> Stub:
        channel = self._channels.get(worker.worker)
        if channel is None:
            channel = grpc.aio.insecure_channel(worker.address, CHANNEL_OPTIONS)
            self._channels[worker.worker] = channel
        return segmentation_pb2_grpc.SegmentationStub(channel)

    async def cut(self, worker: WorkerState) -> None:
        """Whoever waits for it hears that it is away."""
        channel = self._channels.pop(worker.worker, None)
        if channel is not None:
            await channel.close()

    async def close(self) -> None:
        for channel in list(self._channels.values()):
            await channel.close()
        self._channels.clear()


async def told(worker: WorkerState, reply: Awaitable[_Reply]) -> _Reply:
    """What a worker answers. Raises its error, or Unavailable when it cannot be reached, or was cut off meanwhile."""
    try:
        said = await reply
    except grpc.RpcError as error:
        _end_if_cancelled()
        if isinstance(error, grpc.aio.AioRpcError) and error.details() == _WRITTEN_TOO_LATE:
            # Most likely by handing it over: one that dies breaks the connection.
            raise Unavailable(f"worker {worker.worker} ended the stream", handed_over="true") from error
        problem = error_from_call(error, f"worker {worker.worker}")
        if isinstance(problem, Unavailable) and rpc_status.from_call(error) is None:
            # gRPC's own words, with an address that callers have no use for.
            _log.debug("worker %s at %s cannot be reached: %s", worker.worker, worker.address, error.details())
            raise Unavailable(f"worker {worker.worker} cannot be reached; try again in a moment") from error
        raise problem from error
    except asyncio.CancelledError:
        _end_if_cancelled()
        # grpc.aio cancels the calls of a channel that is closed.
        raise Unavailable(f"worker {worker.worker} went away; try again in a moment") from None
    except asyncio.InvalidStateError:
        # grpc.aio, of a call that ended while it was written to: its status is told by reading.
        raise Unavailable(f"worker {worker.worker} ended the stream; try again in a moment") from None
    _end_if_cancelled()
    return said


def _end_if_cancelled() -> None:
    """grpc.aio keeps it to itself when who waits is cancelled while a stream begins, and says that the stream ended."""
    task: asyncio.Task[Any] | None = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
