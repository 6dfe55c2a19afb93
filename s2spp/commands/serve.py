"""`s2spp serve`, `s2spp worker` and `s2spp gateway`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

Host = Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")]
GrpcPort = Annotated[int | None, typer.Option(help="Port of gRPC (50051); 0: any free one.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded Redis (~/.local/state/s2spp).")]
AddressDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Folder of server.json, which tells the ports; no other process's (~/.local/state/s2spp)."
    ),
]
RedisUrl = Annotated[str | None, typer.Option(help="Use this Redis instead of the embedded one.")]
SharedRedis = Annotated[str | None, typer.Option("--redis-url", help="The Redis that workers and gateways share.")]
Bundle = Annotated[
    str | None, typer.Option(help="Bundle folder, the name of a shipped one, or auto (int8 where it is fast).")
]
Provider = Annotated[str | None, typer.Option(help="Where the model runs: cpu, or cuda.")]
Threads = Annotated[int | None, typer.Option(help="Cores for the model; 0: all that there are.")]
StopWithStdin = Annotated[bool, typer.Option("--stop-with-stdin", hidden=True)]


def serve(
    host: Host = None,
    http_port: Annotated[int | None, typer.Option(help="Port of REST and WebSocket (8000); 0: any free one.")] = None,
    grpc_port: GrpcPort = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    bundle: Bundle = None,
    provider: Provider = None,
    threads: Threads = None,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """Serve sessions over REST and gRPC, with an embedded Redis that keeps them through a crash.

    Every option can also be set in the environment (S2SPP_HTTP_PORT, S2SPP_DATA_DIR, REDIS_URL, ...).

    Examples:

        s2spp serve

        s2spp serve --http-port 9000 --data-dir ./state
    """
    _run(
        "serve",
        stop_with_stdin,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        data_dir=data_dir,
        redis_url=redis_url,
        bundle=bundle,
        provider=provider,
        threads=threads,
    )


def worker(
    host: Host = None,
    grpc_port: GrpcPort = None,
    http_port: Annotated[int | None, typer.Option(help="Port of health and metrics (8000); 0: any free one.")] = None,
    advertise: Annotated[
        str | None, typer.Option(help="Where gateways reach its gRPC, host:port, if not where it listens.")
    ] = None,
    redis_url: SharedRedis = None,
    data_dir: AddressDir = None,
    bundle: Bundle = None,
    provider: Provider = None,
    threads: Threads = None,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """One of many: runs the model for gateways, and keeps sessions in the Redis that it shares with them.

    It may be killed at any time: another worker goes on with its sessions. SIGTERM drains it first.

    Example:

        REDIS_URL=redis://redis:6379/0 s2spp worker --host 0.0.0.0
    """
    _run(
        "work",
        stop_with_stdin,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        advertise=advertise,
        data_dir=data_dir,
        redis_url=redis_url,
        bundle=bundle,
        provider=provider,
        threads=threads,
    )


def gateway(
    host: Host = None,
    http_port: Annotated[int | None, typer.Option(help="Port of REST and WebSocket (8000); 0: any free one.")] = None,
    grpc_port: GrpcPort = None,
    redis_url: SharedRedis = None,
    data_dir: AddressDir = None,
    stop_with_stdin: StopWithStdin = False,
) -> None:
    """The front door of many workers: REST and gRPC as `s2spp serve` has them, without a model of its own.

    Workers are found through the Redis that all share; they come and go as they like. Gateways hold nothing that
    another one has not.

    Example:

        REDIS_URL=redis://redis:6379/0 s2spp gateway --host 0.0.0.0
    """
    _run(
        "gateway",
        stop_with_stdin,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        data_dir=data_dir,
        redis_url=redis_url,
    )


def _run(form: Literal["serve", "work", "gateway"], stop_with_stdin: bool, **given: object) -> None:
    # numpy's threads for linear algebra have nothing to do here, and spin for a third of a second when numpy is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from service import bootstrap
    from service.settings import Settings

    forms = {"serve": bootstrap.serve, "work": bootstrap.work, "gateway": bootstrap.gateway}
    bootstrap.run(forms[form](Settings.load(**given), stop_with_stdin=stop_with_stdin))
