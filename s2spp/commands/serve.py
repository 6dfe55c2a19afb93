"""`s2spp serve`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port of REST and WebSocket (8000); 0: any free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of gRPC (50051); 0: any free one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the embedded Redis.")] = None,
    redis_url: Annotated[str | None, typer.Option(help="Use this Redis instead of the embedded one.")] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle folder, the name of a shipped one, or auto (int8 where it is fast).")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the model; 0: one per core.")] = None,
    stop_with_stdin: Annotated[bool, typer.Option("--stop-with-stdin", hidden=True)] = False,
) -> None:
    """Serve sessions over REST and gRPC, with an embedded Redis that keeps them through a crash.

    Every option can also be set in the environment (S2SPP_HTTP_PORT, S2SPP_DATA_DIR, REDIS_URL, ...).

    Examples:

        s2spp serve

        s2spp serve --http-port 9000 --data-dir ./state
    """
    from service.bootstrap import run
    from service.settings import Settings

    settings = Settings.load(
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        data_dir=data_dir,
        redis_url=redis_url,
        bundle=bundle,
        threads=threads,
    )
    run(settings, stop_with_stdin=stop_with_stdin)
