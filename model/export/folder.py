"""Replacing a folder in one step."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2) on Linux, RENAME_SWAP of renamex_np(2) on macOS


def replace_folder(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target`, on the same file system: whoever looks, or whenever this
    is killed, `target` is wholly the former or wholly the new folder. (Some network file systems cannot
    exchange two folders; there, `target` is away for the moment between two renames, the former one beside it
    as .NAME.former.)"""
    if not target.exists():
        os.rename(new, target)
        return
    former = target.with_name(f".{target.name}.former")
    if _exchange(new, target):
        os.rename(new, former)
    else:
        os.rename(target, former)
        os.rename(new, target)
    shutil.rmtree(former)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders atomically; whether the system could."""
    libc = ctypes.CDLL(None)
    a, b = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2"):
        return bool(libc.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, _EXCHANGE) == 0)
    if hasattr(libc, "renamex_np"):
        return bool(libc.renamex_np(a, b, _EXCHANGE) == 0)
    return False
