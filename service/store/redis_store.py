"""Sessions in Redis. One session is one hash (see codec) and one small key that outlives it.

    s2spp:{<session>}:snapshot    the snapshot's fields; expires with the session
    s2spp:{<session>}:owner       epoch:worker:saved:taken:model digest, of the worker that has it, and the numbers of
                                  its last save and load; stays a day longer: tells "expired" from "never was"
    s2spp:note:<hash of a name>   a note; expires by itself

The braces put a session's two into one slot of a Redis Cluster. A save is one Lua call: all of it happens, or nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from dataclasses import replace

from service.core.errors import OwnershipLost
from service.core.types import SessionId, Snapshot
from service.store import codec
from service.store.absence import SEEN_FOR_S, absent
from service.store.calls import AnyRedis, ask
from service.store.keys import note_key, owner_key, session_keys

# KEYS: snapshot, owner. ARGV: worker, number, ttl ms, owner ttl ms, model digest, whether the session exists, how many
# fields to keep, those, then field, bytes, field, bytes, ... Refused where another worker has taken the session. A save
# that timed out for its caller may still reach Redis, even after a later one: `number` lets the later one win. One from
# before the worker took the session anew is of the past.
_SAVE = """
local owner, epoch, taken = redis.call('GET', KEYS[2]), 1, 0
if owner then
  local held, worker, saved, since = string.match(owner, '^(%d+):([^:]*):(%d+):(%d+):')
  epoch = tonumber(held)
  if worker == ARGV[1] then
    taken = tonumber(since)
    if taken > tonumber(ARGV[2]) then return 'lost ' .. worker end
    if tonumber(saved) > tonumber(ARGV[2]) then return 'superseded ' .. epoch end
  elseif ARGV[6] == '1' then
    return 'lost ' .. worker
  else
    epoch = epoch + 1
  end
end
local wanted, first = {}, 8 + tonumber(ARGV[7])
for i = 8, first - 1 do
  wanted[ARGV[i]] = true
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 0 then
    if redis.call('EXISTS', KEYS[1]) == 1 then return 'missing ' .. ARGV[i] end
    return owner and 'expired' or 'unknown'
  end
end
for i = first, #ARGV, 2 do
  wanted[ARGV[i]] = true
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if not wanted[field] then redis.call('HDEL', KEYS[1], field) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[2], epoch .. ':' .. ARGV[1] .. ':' .. ARGV[2] .. ':' .. taken .. ':' .. ARGV[5], 'PX', ARGV[4])
return 'stored ' .. epoch
"""

# ARGV: worker, number. From here on the session is this worker's; each change of hands is a new epoch.
_TAKE = """
local owner = redis.call('GET', KEYS[2])
if redis.call('EXISTS', KEYS[1]) == 0 then return owner and 'expired' or 'unknown' end
local epoch, worker, digest = 1, ARGV[1], ''
if owner then
  local held, by, model = string.match(owner, '^(%d+):([^:]*):%d+:%d+:(.*)$')
  epoch, digest = tonumber(held) + (by == worker and 0 or 1), model
end
redis.call('SET', KEYS[2], epoch .. ':' .. worker .. ':0:' .. ARGV[2] .. ':' .. digest, 'KEEPTTL')
return {tostring(epoch), redis.call('HGETALL', KEYS[1])}
"""

# ARGV: ttl ms, owner ttl ms.
_TOUCH = """
local there = redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 1
local owned = redis.call('PEXPIRE', KEYS[2], ARGV[2]) == 1
return there and 'touched' or owned and 'expired' or 'unknown'
"""

_DELETE = """
if redis.call('DEL', KEYS[1]) == 1 then
  redis.call('DEL', KEYS[2])
  return 'deleted'
end
return redis.call('EXISTS', KEYS[2]) == 1 and 'expired' or 'unknown'
"""

# One call, so that of several callers who note something new one is first. (SET NX GET takes Redis 7.)
_NOTE = """
local kept = ARGV[3] == '1' and redis.call('GET', KEYS[1])
if kept then return kept end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""


class RedisSessionStore:
    """The SessionStore port on a Redis, or a Redis Cluster (a client made by `connect`, which the caller closes).
    Sessions belong to `worker`, a name that no other process ever has."""

    def __init__(self, redis: AnyRedis, worker: str | None = None) -> None:
        self._redis = redis
        self._save = redis.register_script(_SAVE)
        self._take = redis.register_script(_TAKE)
        self._touch = redis.register_script(_TOUCH)
        self._delete = redis.register_script(_DELETE)
        self._note = redis.register_script(_NOTE)
        self._worker = worker or secrets.token_hex(8)
        self._numbers = itertools.count(1)

    async def save(self, snapshot: Snapshot, ttl_s: float, *, constant: bool, existing: bool = False) -> int:
        """Stored and, with `appendfsync always`, on disk when this returns. SnapshotDamaged when a constant state is
        gone that should be there.
        Of two saves of a session under way at once the later call wins, whichever Redis hears of first."""
        session, number = snapshot.session, next(self._numbers)
        kept = [codec.META] if existing else []
        if not constant:
            kept = [codec.constant_field(object_id) for object_id in snapshot.object_ids]
        fields = await asyncio.to_thread(codec.encode, snapshot, constant=constant)
        whose: tuple[str, int] = (snapshot.model_digest, int(existing or not constant))
        arguments: list[str | int | bytes] = [self._worker, number, *_lifetimes_ms(ttl_s), *whose, len(kept), *kept]
        for field, data in fields.items():
            arguments += [field, data]
        reply: bytes = await ask(self._redis, lambda: self._save(keys=session_keys(session), args=arguments))
        said, _, what = reply.decode().partition(" ")
        if said == "lost":
            raise OwnershipLost(
                f"session {session} is worker {what}'s now; what this one did since is not stored", by="worker"
            )
        if said == "missing":
            raise codec.damaged(session, what, "is missing")
        if said not in ("stored", "superseded"):
            raise absent(session, expired=said == "expired")
        return int(what)

    async def load(self, session: SessionId) -> Snapshot:
        """Raises SessionUnknown, SessionExpired, SnapshotDamaged."""
        number = next(self._numbers)
        reply = await ask(
            self._redis,
            lambda: self._take(keys=session_keys(session), args=[self._worker, number]),
        )
        if isinstance(reply, bytes):
            raise absent(session, expired=reply == b"expired")
        epoch, flat = reply
        named = {field.decode(errors="replace"): data for field, data in zip(flat[::2], flat[1::2], strict=True)}
        snapshot = await asyncio.to_thread(codec.decode, session, named)
        return replace(snapshot, epoch=int(epoch))

    async def held(self, session: SessionId) -> bool:
        owner = await ask(self._redis, lambda: self._redis.get(owner_key(session)))
        assert not isinstance(owner, str), "the client decodes nothing"
        return owner is not None and owner.split(b":")[1].decode() == self._worker

    async def touch(self, session: SessionId, ttl_s: float) -> None:
        """Start the session's time to live anew. Raises SessionUnknown or SessionExpired."""
        lifetimes = _lifetimes_ms(ttl_s)
        reply: bytes = await ask(self._redis, lambda: self._touch(keys=session_keys(session), args=lifetimes))
        if reply != b"touched":
            raise absent(session, expired=reply == b"expired")

    async def delete(self, session: SessionId) -> None:
        reply: bytes = await ask(self._redis, lambda: self._delete(keys=session_keys(session)))
        if reply != b"deleted":
            raise absent(session, expired=reply == b"expired")

    async def note(self, name: str, value: bytes, ttl_s: float, *, new: bool = False) -> bytes:
        arguments: list[bytes | int] = [value, _lifetimes_ms(ttl_s)[0], int(new)]
        kept: bytes = await ask(self._redis, lambda: self._note(keys=[note_key(name)], args=arguments))
        return kept

    async def recall(self, name: str) -> bytes | None:
        kept = await ask(self._redis, lambda: self._redis.get(note_key(name)))
        assert not isinstance(kept, str), "the client decodes nothing"
        return kept

    async def ping(self) -> None:
        await ask(self._redis, self._redis.ping)


def _lifetimes_ms(ttl_s: float) -> tuple[int, int]:
    """Of the snapshot and of the memory that it was there. At least a millisecond: 0 would delete at once."""
    return max(1, round(ttl_s * 1000)), max(1, round((ttl_s + SEEN_FOR_S) * 1000))
