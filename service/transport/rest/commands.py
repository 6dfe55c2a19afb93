"""What a text message on the WebSocket may say."""

from __future__ import annotations

import json
from collections.abc import Collection
from difflib import get_close_matches
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.core.errors import InvalidOption

MOST_TEXT = 4096
"""Characters: what is larger is no command, and would take its time to be parsed."""
_MOST_FAULTS = 3
_ObjectId = Annotated[int, Field(ge=1, le=255)]
_Index = Annotated[int, Field(ge=0, le=2**63 - 1)]
_Ordinal = Annotated[int, Field(ge=1, le=2**63 - 1)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ChangeIn(_In):
    """`frame_index`: the frame sent last; left out, it is that one. `ordinal`: as in the routes of objects."""

    frame_index: _Index | None = None
    ordinal: _Ordinal | None = None


class DrawIn(ChangeIn):
    """Two binary messages follow: the frame sent last, once more, and the mask. `object_id`: all that the mask marks is
    this object."""

    object_id: _ObjectId | None = None


class RemoveIn(ChangeIn):
    object_id: _ObjectId


class CommandIn(_In):
    """One of these. `received_through`: the last frame whose mask the caller has; answers after it are kept."""

    received_through: _Index | None = None
    draw: DrawIn | None = None
    remove: RemoveIn | None = None

    @model_validator(mode="after")
    def _one(self) -> CommandIn:
        if sum(said is not None for said in (self.received_through, self.draw, self.remove)) != 1:
            raise ValueError("one of received_through, draw and remove")
        return self


_CHANGES = ("draw", "remove")
_NAMES = (*CommandIn.model_fields, *DrawIn.model_fields)


def no_such(name: str, known: Collection[str]) -> str:
    """What is said of a name that is none of `known`: the one that is probably meant, else all of them."""
    near = get_close_matches(name, known, n=1)
    return f"there is no {name[:64]!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}" if known else "there are none here"
    )


def first_faults(error: ValidationError, known: Collection[str]) -> str:
    """`known`: the names that are."""
    faults = [
        no_such(str(fault["loc"][-1]), known)
        if fault["type"] == "extra_forbidden"
        else ": ".join([*map(str, fault["loc"]), fault["msg"]])
        for fault in error.errors()[:_MOST_FAULTS]
    ]
    return "; ".join([*faults, "..."] if error.error_count() > _MOST_FAULTS else faults)


def read_command(text: str) -> CommandIn:
    """Raises InvalidOption."""
    if len(text) > MOST_TEXT:
        raise InvalidOption(
            f"text message of {len(text)} characters; a command has a few, and images go as binary messages"
        )
    try:
        return CommandIn.model_validate_json(text)
    except ValidationError as error:
        raise InvalidOption(
            f"text message: {first_faults(error, _NAMES)} (images go as binary messages; text is "
            '{"received_through": 7}, {"draw": {}} or {"remove": {"object_id": 2}})'
        ) from error


def meant(text: str) -> set[str]:
    """Which changes a text that was refused was meant to make: `draw`, `remove`."""
    try:
        said = json.loads(text[:MOST_TEXT])
    except ValueError:
        return {name for name in _CHANGES if f'"{name}"' in text[:MOST_TEXT]}
    return {name for name in _CHANGES if isinstance(said, dict) and said.get(name) is not None}
