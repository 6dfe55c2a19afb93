"""One session for each idempotency key, whatever is sent twice and whatever crashes.

A key's note in the store says which request came with it, under which id its session opens, and, once that is
stored, what the caller was told. The note is written before the session: a server that dies between the two leaves a
note without an answer, and the same request then opens under the same id. A request that is refused leaves no note.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from service.core.errors import IdempotencyKeyInUse, IdempotencyKeyReused, InvalidOption
from service.core.ports import Opened, SessionStore
from service.core.types import PASSING_KEY, EncodedImage, SessionId, SessionInfo, SessionOptions, new_session_id

KEPT_FOR_S, PASSING_KEPT_FOR_S = 24 * 3600.0, 3600.0
"""How long a key is known: a caller's, and a `passing_key`."""
_LONGEST = 255


@dataclass(frozen=True)
class Keyed:
    """An opening request with an idempotency key. `request` tells it from another one: a digest of all it holds."""

    key: str
    request: str

    @classmethod
    def of(cls, key: str, frame: EncodedImage, mask: EncodedImage, options: SessionOptions) -> Keyed:
        digest = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
        for image in (frame, mask):
            digest.update(struct.pack("<QQQ16s", len(image.data), image.height, image.width, image.format.encode()))
            digest.update(image.data)
        return cls(key, digest.hexdigest())

    @property
    def name(self) -> str:
        return f"opening:{self.key}"

    @property
    def kept_for_s(self) -> float:
        return PASSING_KEPT_FOR_S if self.key.startswith(PASSING_KEY) else KEPT_FOR_S


@dataclass(frozen=True)
class _Note:
    request: str
    session: SessionId
    opened: Opened | None = None

    def encoded(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decoded(cls, data: bytes) -> _Note:
        fields = json.loads(data)
        opened = fields["opened"]
        if opened is not None:
            info = opened["info"]
            opened = Opened(SessionInfo(**{**info, "object_ids": tuple(info["object_ids"])}), opened["state_bytes"])
        return cls(fields["request"], SessionId(fields["session"]), opened)


class OpeningKeys:
    """The idempotency keys of one engine's openings."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._in_use: set[str] = set()

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """While a request with `key` is under way. Raises IdempotencyKeyInUse; InvalidOption: not a key."""
        if not (key.isascii() and key.isprintable() and 1 <= len(key) <= _LONGEST):
            raise InvalidOption(f"an idempotency key is 1 to {_LONGEST} printable ASCII characters, such as a UUID")
        if key in self._in_use:
            raise IdempotencyKeyInUse("the first request with this idempotency key is under way; send it again shortly")
        self._in_use.add(key)
        try:
            yield
        finally:
            self._in_use.discard(key)

    async def told(self, keyed: Keyed) -> Opened | None:
        """What was told to the one who sent the same before; None: nobody was. Raises IdempotencyKeyReused."""
        data = await self._store.recall(keyed.name)
        opened = None if data is None else _same(_Note.decoded(data), keyed).opened
        return None if opened is None else replace(opened, replayed=True)

    async def session(self, keyed: Keyed | None) -> SessionId:
        """The id that a session opens under. Raises IdempotencyKeyReused."""
        if keyed is None:
            return new_session_id()
        mine = _Note(keyed.request, new_session_id())
        kept = await self._store.note(keyed.name, mine.encoded(), keyed.kept_for_s, new=True)
        return _same(_Note.decoded(kept), keyed).session

    async def tell(self, keyed: Keyed | None, opened: Opened) -> None:
        """From now on it is what everybody is told who sends the same."""
        if keyed is not None:
            note = _Note(keyed.request, opened.info.session, opened)
            await self._store.note(keyed.name, note.encoded(), keyed.kept_for_s)


def _same(note: _Note, keyed: Keyed) -> _Note:
    if note.request != keyed.request:
        raise IdempotencyKeyReused(
            "this idempotency key came before with another frame, mask or options; a new request takes a new key"
        )
    return note
