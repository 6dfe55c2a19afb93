"""What another version of this program wrote, read by this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Kind = TypeVar("_Kind", bound="DataclassInstance")


def from_known(kind: type[_Kind], told: Mapping[str, Any]) -> _Kind:
    """A dataclass of the fields that it knows: what a newer writer tells beyond is left out. An older one tells less,
    so a field that is added later has a default."""
    known = {each.name for each in fields(kind)}
    return kind(**{name: value for name, value in told.items() if name in known})
