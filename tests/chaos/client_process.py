"""A client to be killed: follows the story, or goes on with it, and writes what it gets to files.

    python -m tests.chaos.client_process TARGET FOLDER OUT

FOLDER/session has the id of the session, once there is one; a later process finds it there. FOLDER/OUT/INDEX.raw is a
mask, written under another name and then renamed: a file that is there is whole. They tell how far the others came; one
that goes on asks for the last few once more, as far back as the server has them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from service.client import Client
from service.client.wire import TrackedFrame
from service.core.errors import FrameAcknowledged
from tests.chaos.material import Story, story

_AGAIN = 3
# Between a mask in its file and the next one asked for: the moment to die in.
_AT_HAND_S = 0.005


def main() -> None:
    target, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[2]) / sys.argv[3]
    out.mkdir()
    tale = story(int(sys.argv[4]))
    named = folder / "session"
    with Client(target) as client:
        if named.exists():
            last = max(int(path.stem) for path in folder.glob("*/*.raw"))
            results = _resumed(client, named.read_text(), tale, last)
        else:
            results: Iterator[TrackedFrame] = client.track(tale.items(), tale.labels)
        for result in results:
            if not named.exists():
                draft = named.with_suffix(".partial")
                draft.write_text(result.session)
                draft.replace(named)
            path = out / f"{result.frame_index}.raw"
            path.with_suffix(".partial").write_bytes(result.labels.tobytes())
            path.with_suffix(".partial").replace(path)
            time.sleep(_AT_HAND_S)


def _resumed(client: Client, session: str, tale: Story, last: int) -> Iterator[TrackedFrame]:
    for received in range(max(0, last - _AGAIN), last):
        try:
            results = client.resume(session, tale.items(), received)
            return chain([next(results)], results)
        except FrameAcknowledged:
            continue
    return client.resume(session, tale.items(), last)


if __name__ == "__main__":
    main()
