"""The workers that are alive, in one hash of Redis: the worker's name -> when it was heard of, and what it said.

Redis's own clock tells how long ago, so that the machines' clocks need not agree.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from service.core.fields import from_known
from service.core.registry import LEASE_S, Owner, WorkerState
from service.core.types import SessionId
from service.store.calls import AnyRedis, ask
from service.store.keys import owner_key

_WORKERS = "s2spp:workers"
_FORGET_S = 60.0

# ARGV: worker, what it says.
_BEAT = """
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], ARGV[1], now[1] .. '.' .. string.format('%06d', now[2]) .. ' ' .. ARGV[2])
return 1
"""

# ARGV: seconds for which a worker counts as alive, and after which it is forgotten.
_WORKERS_ALIVE = """
local time, alive = redis.call('TIME'), {}
local now, said = time[1] + time[2] / 1e6, redis.call('HGETALL', KEYS[1])
for i = 1, #said, 2 do
  local at, state = string.match(said[i + 1], '^(%S+) (.*)$')
  local silent = now - tonumber(at)
  if silent < tonumber(ARGV[1]) then
    alive[#alive + 1] = state
  elseif silent > tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[1], said[i])
  end
end
return alive
"""


class RedisWorkerRegistry:
    """The WorkerRegistry port on one Redis (a client made by `connect`, which the caller closes)."""

    def __init__(self, redis: AnyRedis) -> None:
        self._redis = redis
        self._beat = redis.register_script(_BEAT)
        self._alive = redis.register_script(_WORKERS_ALIVE)

    async def beat(self, state: WorkerState) -> None:
        await ask(self._redis, lambda: self._beat(keys=[_WORKERS], args=[state.worker, json.dumps(asdict(state))]))

    async def workers(self) -> Sequence[WorkerState]:
        said = await ask(self._redis, lambda: self._alive(keys=[_WORKERS], args=[LEASE_S, _FORGET_S]))
        return [from_known(WorkerState, json.loads(each)) for each in said]

    async def owner(self, session: SessionId) -> Owner | None:
        said = await ask(self._redis, lambda: self._redis.get(owner_key(session)))
        if said is None:
            return None
        assert not isinstance(said, str), "the client decodes nothing"
        epoch, worker, _, _, digest = said.decode().split(":", 4)
        return Owner(worker, int(epoch), digest)
