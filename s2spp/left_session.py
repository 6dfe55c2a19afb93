"""What an interrupted `segment --server` leaves beside its masks, so that another run may go on."""

from __future__ import annotations

import json
from pathlib import Path

_NAME = "session.json"


class LeftSession:
    """The note in the folder `out`: the session, and the last frame whose mask this run has written. What else lies
    there, from runs before, does not count."""

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / _NAME
        self.written = False
        """By this run."""

    @property
    def there(self) -> bool:
        """Some run left one."""
        return self._path.exists()

    def write(self, session: str, frame_index: int) -> None:
        draft = self._path.with_suffix(".partial")
        draft.write_text(json.dumps({"session": session, "through": frame_index}))
        draft.replace(self._path)
        self.written = True

    def read(self) -> tuple[str, int]:
        """The session, and the last frame whose mask is there. Raises ValueError: there is no such run."""
        try:
            note = json.loads(self._path.read_text())
            return str(note["session"]), int(note["through"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._out} holds no interrupted run ({_NAME}: {error}); leave --resume out") from error

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
