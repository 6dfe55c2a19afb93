"""One stack of the services of docker-compose.yml for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.containers.stack import Stack
from tests.integration.server_process import eventually
from tests.integration.tiny_bundle import write_tiny_bundle


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Stack]:
    """Redis, a worker and a gateway."""
    with Stack(tmp_path_factory.mktemp("stack"), tiny) as stack:
        stack.up("worker")
        gateway = stack.up("gateway")
        eventually(lambda: gateway.healthy() or None)
        yield stack
