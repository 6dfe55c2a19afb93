"""A client to be killed: follows the story, or goes on with it, and writes what it gets to files.

    python -m tests.chaos.client_process TARGET FOLDER OUT

FOLDER/session has the id of the session, once there is one; a later process finds it there. FOLDER/OUT/INDEX.raw is a
mask, written under another name and then renamed: a file that is there is whole. They tell how far the others came.
"""

from __future__ import annotations

import sys
from pathlib import Path

from service.client import Client
from tests.chaos.material import story


def main() -> None:
    target, folder, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[2]) / sys.argv[3]
    out.mkdir()
    tale = story(int(sys.argv[4]))
    named = folder / "session"
    with Client(target) as client:
        if named.exists():
            last = max(int(path.stem) for path in folder.glob("*/*.raw"))
            results = client.resume(named.read_text(), tale.items(), last)
        else:
            results = client.track(tale.items(), tale.labels)
        for result in results:
            if not named.exists():
                draft = named.with_suffix(".partial")
                draft.write_text(result.session)
                draft.replace(named)
            path = out / f"{result.frame_index}.raw"
            path.with_suffix(".partial").write_bytes(result.labels.tobytes())
            path.with_suffix(".partial").replace(path)


if __name__ == "__main__":
    main()
