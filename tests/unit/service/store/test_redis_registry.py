"""What workers of several versions tell each other through one Redis."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from service.core.registry import WorkerState
from service.store.calls import connect
from service.store.embedded import EmbeddedRedis
from service.store.redis_registry import RedisWorkerRegistry
from tests.fakes.registry import worker


async def test_a_newer_worker_may_say_more_and_an_older_one_less(tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "data") as embedded, connect(embedded.url) as redis:
        registry = RedisWorkerRegistry(redis)
        await registry.beat(worker("now"))
        said = asdict(worker("newer")) | {"mood": "good"}
        seconds = (await redis.time())[0]
        await redis.hset("s2spp:workers", "newer", f"{seconds} {json.dumps(said)}")  # type: ignore[misc]
        less = {name: said[name] for name in ("address", "sessions", "busy", "capacity", "model_digest")}
        await redis.hset("s2spp:workers", "older", f"{seconds} {json.dumps(less | {'worker': 'older'})}")  # type: ignore[misc]
        alive = {state.worker: state for state in await registry.workers()}
        assert alive["now"] == worker("now")
        assert alive["newer"] == worker("newer")
        assert alive["older"] == WorkerState("older", "newer:50051", 0, 0, 8, "m1")
