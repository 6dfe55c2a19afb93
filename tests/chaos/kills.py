"""The server and its Redis die by SIGKILL while a client follows a video with objects that come and go: every mask, in
order, equal to those of an uninterrupted run."""

from __future__ import annotations

import hashlib
import queue
import random
import threading
from collections.abc import Iterator
from pathlib import Path

from service.client import Client, TrackedFrame
from tests.chaos.harness import PhoenixServer
from tests.chaos.material import Story
from tests.chaos.server import KILL_POINTS
from tests.integration.server_process import eventually

Seen = tuple[int, tuple[int, ...], str]
"""Frame index, object ids, digest of the labels."""

_PATIENCE_S = 60.0
_STUCK_S = 30.0


def seen(result: TrackedFrame) -> Seen:
    ids = tuple(report.object_id for report in result.objects)
    return result.frame_index, ids, hashlib.sha256(result.labels.tobytes()).hexdigest()


def undisturbed(folder: Path, bundle: str | None, story: Story) -> list[Seen]:
    with PhoenixServer(folder, bundle) as server, Client(server.grpc) as client:
        return [seen(result) for result in client.track(story.items(), story.labels)]


def killed_at(folder: Path, bundle: str | None, story: Story, point: str, without: str | None = None) -> list[Seen]:
    """Once, at a chosen moment. Raises AssertionError when it did not die there."""
    count = 1 if point == "during-open" else 2
    with PhoenixServer(folder, bundle, kill_at=point, count=count, without=without) as server:
        found = list(_moving(_follow(server, story)))
        assert server.deaths == 1, f"{point}: the server died {server.deaths} times"
    return found


def killed_at_random(
    folder: Path, bundle: str | None, story: Story, kills: int, seed: int, without: str | None = None
) -> list[Seen]:
    """`kills` times, each while a frame chosen at random is awaited, and a little later than that."""
    chance = random.Random(seed)
    frames = sorted(chance.sample(range(1, len(story.jpegs) - 1), kills))
    with PhoenixServer(folder, bundle, without=without) as server:
        due = iter([*frames, -1])
        next_kill = next(due)
        blows: list[threading.Timer] = []

        found = []
        for one in _moving(_follow(server, story)):
            found.append(one)
            if one[0] == next_kill:
                blows.append(threading.Timer(chance.uniform(0, 0.05), server.strike))
                blows[-1].start()
                next_kill = next(due)
        for blow in blows:
            blow.join()
        assert len(blows) == kills
        eventually(lambda: server.deaths == kills or None)
    return found


def verdict(found: list[Seen], expected: list[Seen]) -> str:
    """Empty when they are equal; else what is wrong, in words."""
    if found == expected:
        return ""
    indices = [index for index, *_ in found]
    if indices != [index for index, *_ in expected]:
        missing = sorted(set(range(len(expected))) - set(indices))
        return f"{len(found)} masks instead of {len(expected)}; missing {missing[:8]}"
    differing = [index for one, other in zip(found, expected, strict=True) if one != other for index in one[:1]]
    return f"{len(differing)} masks differ, the first is frame {differing[0]}"


def _follow(server: PhoenixServer, story: Story) -> Iterator[Seen]:
    with Client(server.grpc, retry_for_s=_PATIENCE_S) as client:
        for result in client.track(story.items(), story.labels):
            yield seen(result)


def _moving(source: Iterator[Seen]) -> Iterator[Seen]:
    """As they come. Raises AssertionError when nothing more does: a broken promise may leave a client waiting."""
    found: queue.Queue[Seen | Exception | None] = queue.Queue(1)

    def follow() -> None:
        try:
            for one in source:
                found.put(one)
            found.put(None)
        except Exception as error:
            found.put(error)

    threading.Thread(target=follow, daemon=True).start()
    count = 0
    while True:
        try:
            one = found.get(timeout=_STUCK_S)
        except queue.Empty:
            raise AssertionError(f"nothing comes after {count} masks") from None
        if one is None:
            return
        if isinstance(one, Exception):
            raise one
        count += 1
        yield one


__all__ = ["KILL_POINTS", "killed_at", "killed_at_random", "undisturbed", "verdict"]
