from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.fakes.engine_world import World
from tests.fakes.waiting import PATIENCE_S


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    async with asyncio.timeout(PATIENCE_S):
        await world.end()
