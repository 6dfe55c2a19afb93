"""What an interrupted `segment --server` leaves beside its masks, so that another run may go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from s2spp.words import counted
from service.client.images import labels_of

_NAME = "session.json"
_ALIKE = 3
_MASKS = "[0-9]" * 5 + ".png"


@dataclass(frozen=True)
class Note:
    """The session, the last frame whose mask is there, and the `outline` of the video's first frame (None: an earlier
    version did not note it)."""

    session: str
    through: int
    first_frame: list[int] | None = None

    def refuse_other_video(self, source: str, first: NDArray[np.uint8] | None) -> None:
        """Raises ValueError: `first` is not the frame that the session was begun with."""
        if self.first_frame is None:
            return
        if first is None or np.abs(np.subtract(outline(first), self.first_frame)).max() > _ALIKE:
            raise ValueError(
                f"{source} does not begin with the frame that the interrupted run began with: give that run's video to "
                "go on with it, or leave --resume out and choose another folder for -o to begin anew"
            )


def outline(frame: NDArray[np.uint8]) -> list[int]:
    """16 x 16 greys, 0 to 255. No digest: another version of a decoder may be off by a little everywhere."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return [int(value) for value in cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).ravel()]


class LeftSession:
    """The note in the folder `out`, as this run writes it."""

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
                f"{self._out} holds {counted(self.masks, 'mask')} of another run: choose another folder for -o, or "
                "empty this one"
            )

    def refuse_other_mask(self, given: Path, labels: NDArray[np.uint8]) -> None:
        """Raises ValueError: the first mask in the folder, which is the one that its run was given, has not these
        `labels`."""
        first = self._out / "00000.png"
        if first.exists() and not np.array_equal(labels_of(first), labels):
            raise ValueError(
                f"{given} is not the mask that the run in {self._out} was begun with: give that one, or a copy of "
                f"{first}, to go on with it, or leave --resume out and choose another folder for -o to begin anew"
            )

    def write(self, note: Note) -> None:
        draft = self._path.with_suffix(".partial")
        draft.write_text(json.dumps(asdict(note)))
        draft.replace(self._path)
        self.written = True

    def read(self) -> Note:
        """Raises ValueError: there is none."""
        try:
            note = json.loads(self._path.read_text())
            return Note(str(note["session"]), int(note["through"]), note.get("first_frame"))
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
