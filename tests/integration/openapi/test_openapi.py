"""The REST interface is what its OpenAPI document says: all checks of schemathesis, over all routes."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from service.bootstrap import build_engine
from service.settings import Settings
from service.transport.http import start_http
from service.transport.rest import create_app
from tests.fakes.runtime import FakeRuntime

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PATIENCE_S = 180  # it takes five; a busy machine may take longer


async def test_every_route_keeps_to_its_document(tmp_path: Path) -> None:
    settings = Settings.load(max_sessions=10_000)
    async with build_engine(settings, runtime=FakeRuntime()) as engine:
        app = create_app(engine, max_image_bytes=settings.max_image_bytes, metrics=lambda: b"", version="0")
        server = await start_http(app)
        try:
            await schemathesis(f"http://127.0.0.1:{server.port}/openapi.json", tmp_path)
        finally:
            await server.stop(5)


async def schemathesis(document: str, folder: Path) -> None:
    options = "--checks all --max-examples 15 --generation-deterministic --no-color"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml", "run", document,
        *options.split(),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.integration.openapi.hooks"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE_S):
            said = (await process.communicate())[0].decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, said
    links = re.search(r"API Links: +(\d+) covered", said)
    assert links is not None and int(links[1]) > 5, f"hardly a session was opened and used:\n{said}"
