"""What an interrupted `segment --server` leaves beside its masks, so that another run may go on."""

from __future__ import annotations

import json
from pathlib import Path

_NAME = "session.json"
_MASKS = "[0-9]" * 5 + ".png"


class LeftSession:
    """The note in the folder `out`: the session, and the last frame whose mask this run has written."""

    def __init__(self, out: Path) -> None:
        self._out, self._path = out, out / _NAME
        self.written = False
        """By this run."""

    @property
    def there(self) -> bool:
        """Some run left one."""
        return self._path.exists()

    @property
    def masks(self) -> int:
        """How many masks lie in the folder."""
        return sum(1 for _ in self._out.glob(_MASKS))

    def refuse_if_used(self) -> None:
        """Raises ValueError: what another run has left there would lie among what this one writes."""
        if self.there:
            raise ValueError(
                f"{self._out} holds a run that was interrupted: add --resume to go on with it, or choose another folder"
            )
        if self.masks:
            raise ValueError(
                f"{self._out} holds {self.masks} masks of another run: choose another folder for -o, or delete them"
            )

    def write(self, session: str, frame_index: int) -> None:
        draft = self._path.with_suffix(".partial")
        draft.write_text(json.dumps({"session": session, "through": frame_index}))
        draft.replace(self._path)
        self.written = True

    def read(self) -> tuple[str, int]:
        """The session, and the last frame whose mask is there. Raises ValueError: there is none."""
        try:
            note = json.loads(self._path.read_text())
            return str(note["session"]), int(note["through"])
        except FileNotFoundError:
            raise ValueError(
                f"{self._out} holds no interrupted run (there is no {_NAME}): leave --resume out, and name a folder "
                "without masks, to begin one"
            ) from None
        except OSError as error:
            raise ValueError(f"{self._path}, which names the session, cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path} does not name a session any more: begin anew in another folder") from error

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)
