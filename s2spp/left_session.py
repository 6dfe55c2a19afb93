"""What an interrupted `segment --server` leaves beside its masks, so that another run may go on."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

_NAME = "session.json"


class LeftSession:
    """The note in the folder `out`, whose masks are 00000.png, 00001.png, ..."""

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / _NAME
        self._written = ""

    def write(self, session: str) -> None:
        if session != self._written:
            draft = self._path.with_suffix(".partial")
            draft.write_text(json.dumps({"session": session}))
            draft.replace(self._path)
            self._written = session

    def read(self) -> tuple[str, int]:
        """The session, and the last frame up to which all masks are there. Raises ValueError: there is no such run."""
        try:
            session = json.loads(self._path.read_text())["session"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._out} holds no interrupted run ({_NAME}: {error}); leave --resume out") from error
        missing = next(index for index in count() if not (self._out / f"{index:05d}.png").exists())
        if missing == 0:
            raise ValueError(f"{self._out} holds no mask; leave --resume out")
        return str(session), missing - 1

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    @property
    def exists(self) -> bool:
        return self._path.exists()
