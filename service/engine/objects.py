"""What a session follows, and changes of it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

from service.core.errors import S2sppError
from service.core.state import State
from service.core.types import ObjectChange, RemoveObject


@dataclass(frozen=True)
class Followed:
    """The objects that are followed, and their state, with its rows in the order of the ids."""

    object_ids: tuple[int, ...]
    state: State

    def with_drawn(self, drawn: Followed) -> Followed:
        """`drawn` objects added, or in the place of what they were. New ones come last."""
        row_of = {object_id: row for row, object_id in enumerate((*self.object_ids, *drawn.object_ids))}
        ids = tuple(dict.fromkeys((*self.object_ids, *drawn.object_ids)))
        joined, rows = self.state.join([drawn.state]), [row_of[object_id] for object_id in ids]
        return Followed(ids, joined if rows == list(range(joined.objects)) else joined.take(rows))

    def without(self, object_id: int) -> Followed:
        kept = [row for row, known in enumerate(self.object_ids) if known != object_id]
        return Followed(tuple(self.object_ids[row] for row in kept), self.state.take(kept))


def digest_of(change: ObjectChange) -> str:
    """The same for the same change, sent again."""
    if isinstance(change, RemoveObject):
        return f"remove:{change.object_id}"
    digest = hashlib.sha256(f"{change.as_object}".encode())
    for image in (change.frame, change.mask):
        digest.update(f"{image.format} {image.height} {image.width} {len(image.data)}:".encode())
        digest.update(image.data)
    return f"draw:{digest.hexdigest()}"


@dataclass(eq=False)
class Change:
    """A change of the objects after the frame sent last. `work` is the engine's own task, its result the error that
    kept it from being made; None when it was made before this process had the session. `siblings`: all the changes
    after that frame, itself among them."""

    digest: str
    made: bool = False
    revision: int = 0
    work: asyncio.Task[S2sppError | None] | None = field(default=None, repr=False)
    siblings: list[Change] = field(default_factory=list, repr=False)

    @property
    def ordinal(self) -> int:
        return self.siblings.index(self) + 1

    def withdraw(self) -> None:
        """One that was not made takes no ordinal."""
        if not self.made and self in self.siblings:
            self.siblings.remove(self)
