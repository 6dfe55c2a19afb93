"""Builds, starts and stops the gRPC server around an engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from s2spp.v1 import segmentation_pb2, segmentation_pb2_grpc
from service.core.cancelling import cancelled
from service.core.errors import Unavailable
from service.core.ports import Engine
from service.transport.grpc.malformed import RefuseMalformed
from service.transport.grpc.servicer import SegmentationServicer
from service.transport.listener import listen

log = logging.getLogger(__name__)

SERVICE: str = segmentation_pb2.DESCRIPTOR.services_by_name["Segmentation"].full_name

_CONNECTION_OPTIONS = [
    # A port that somebody else listens on is an error, not a port to share.
    ("grpc.so_reuseport", 0),
    # A camera may pause: the connection is kept alive, and one whose peer is gone is noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # What the SDK's own keepalive needs; a server would else call it a flood of pings.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]


@dataclass(frozen=True)
class GrpcServer:
    """A server that answers. `port`: the one it listens on, also where 0 was asked for."""

    port: int
    _server: grpc.aio.Server
    _servicer: SegmentationServicer
    _health: health.HealthServicer
    _readiness: asyncio.Task[None]

    def hand_over(self) -> bool:
        """A gateway's stream is to go on at another worker: it answers what it has begun, says where to resume, and
        ends. False: there is none, or one is on its way."""
        return self._servicer.hand_over()

    async def stop(self, grace_s: float) -> None:
        """Says NOT_SERVING, takes no new calls, tells streams to resume elsewhere or later, gives what runs `grace_s`
        seconds, then cancels."""
        self._servicer.stopping.set()
        await cancelled(self._readiness)
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)


async def start_grpc(
    engine: Engine,
    address: str = "127.0.0.1:0",
    *,
    max_message_bytes: int = 64 << 20,
    window: int = 16,
    readiness_interval_s: float = 2.0,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    callers_are_gateways: bool = False,
) -> GrpcServer:
    """Starts to listen on `address` ("host:port", port 0: any free one).

    Args:
        max_message_bytes: a larger request ends its call with RESOURCE_EXHAUSTED before it is read; keep this
            above the engine's limit for an image, whose error says more and leaves a stream going.
        window: frames of one Track stream that may be in flight.
        readiness_interval_s: how often the health of `s2spp.v1.Segmentation` follows `engine.ready()`. The
            health of the server itself ("") is SERVING for as long as the process answers.
        interceptors: see every call before its method does.
        callers_are_gateways: a caller says on whose behalf it calls, and is believed.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = grpc.aio.server(
        interceptors=[*interceptors, RefuseMalformed(SERVICE)],
        options=[
            *_CONNECTION_OPTIONS,
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", -1),
        ],
    )
    health_servicer = health.HealthServicer()
    servicer = SegmentationServicer(engine, window, callers_are_gateways)
    segmentation_pb2_grpc.add_SegmentationServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    host, _, wanted = address.rpartition(":")
    listen(host.strip("[]"), int(wanted), "gRPC").close()  # gRPC itself gives no reason, and writes on stderr
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address} for gRPC: is the port taken?") from error
    await _report_health(engine, health_servicer)
    await server.start()
    readiness = asyncio.create_task(_follow_health(engine, health_servicer, readiness_interval_s))
    return GrpcServer(port, server, servicer, health_servicer, readiness)


async def _follow_health(engine: Engine, servicer: health.HealthServicer, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        await _report_health(engine, servicer)


async def _report_health(engine: Engine, servicer: health.HealthServicer) -> None:
    status = health_pb2.HealthCheckResponse.SERVING
    try:
        await engine.ready()
    except Exception as error:
        status = health_pb2.HealthCheckResponse.NOT_SERVING
        if not isinstance(error, Unavailable):
            log.exception("unexpected error while asking the engine whether it is ready")
    await servicer.set(SERVICE, status)
