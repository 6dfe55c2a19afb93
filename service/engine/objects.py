"""What a session follows, and changes of it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

import numpy as np

from service.core.errors import S2sppError
from service.core.types import ObjectChange, RemoveObject, State


@dataclass(frozen=True)
class Followed:
    """The objects that are followed, and their state: tensors [N,...] in the order of the ids."""

    object_ids: tuple[int, ...]
    state: State

    def with_drawn(self, drawn: Followed) -> Followed:
        """`drawn` objects added, or in the place of what they were. New ones come last."""
        new = [row for row, object_id in enumerate(drawn.object_ids) if object_id not in self.object_ids]
        ids = (*self.object_ids, *(drawn.object_ids[row] for row in new))
        state = {}
        for name, tensor in self.state.items():
            rows = np.concatenate([tensor, drawn.state[name][new]])
            for row, object_id in enumerate(drawn.object_ids):
                rows[ids.index(object_id)] = drawn.state[name][row]
            state[name] = rows
        return Followed(ids, state)

    def without(self, object_id: int) -> Followed:
        kept = [row for row, known in enumerate(self.object_ids) if known != object_id]
        state = {name: tensor[kept] for name, tensor in self.state.items()}
        return Followed(tuple(self.object_ids[row] for row in kept), state)


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
