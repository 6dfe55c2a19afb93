"""A server of our own never outlives us, however we leave."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from s2spp.embedded import EmbeddedServer


def test_leaving_while_it_starts_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[psutil.Process] = []
    before = set(psutil.Process().children())  # of other tests

    def interrupted(seconds: float) -> None:
        started.extend(set(psutil.Process().children()) - before)
        monkeypatch.undo()  # one Ctrl-C: ending the server waits, too
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt), EmbeddedServer(tmp_path):
        pass
    assert started and not any(process.is_running() for process in started)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no-such-bundle"), EmbeddedServer(tmp_path, bundle="no-such-bundle"):
        pass
