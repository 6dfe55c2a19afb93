"""Workers, gateways and the Redis they share die, stand still and are told to stop, under streams of real video: every
frame is answered once, in order, with the masks of an uninterrupted run."""

from __future__ import annotations

import hashlib
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from service.client import Client
from service.core.errors import Unavailable
from service.core.registry import LEASE_S
from service.runtime import suitable
from tests.chaos.material import Story, story
from tests.integration.cluster_processes import Cluster, Member

_STREAMS, _SECONDS, _EVERY_S = 24, 120.0, 5.0
_FRAMES = 120
_PATIENCE_S = 60.0
_PAUSE_S = 2.0


@dataclass
class Follower:
    """One client that follows the story again and again. `times`: when each mask came."""

    story: Story
    expected: list[str]
    target: str
    times: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rounds: int = 0
    session: str = ""

    def run(self, over: threading.Event) -> None:
        try:
            with Client(self.target, retry_for_s=_PATIENCE_S) as client:
                while not over.is_set():
                    for index, result in enumerate(client.track(self.story.jpegs, self.story.labels)):
                        self.times.append(time.monotonic())
                        self.session = result.session
                        if (result.frame_index, digest(result.labels)) != (index, self.expected[index]):
                            self.problems.append(f"frame {index} came as {result.frame_index}, or with another mask")
                        if over.is_set():
                            break
                    else:
                        self.rounds += 1
                        if index + 1 != len(self.expected):
                            self.problems.append(f"{index + 1} masks of {len(self.expected)}")
        except Exception as error:
            self.problems.append(f"{type(error).__name__}: {error}")

    def longest_pause(self, since: float, until: float) -> float:
        """Between two masks, of those pauses that touch the time between."""
        pauses = zip(self.times, self.times[1:], strict=False)
        return max((after - before for before, after in pauses if before < until and after > since), default=0.0)


def digest(labels: np.ndarray) -> str:  # type: ignore[type-arg]
    return hashlib.sha256(labels.tobytes()).hexdigest()


class Load:
    """Followers in threads, for as long as the block lasts."""

    def __init__(self, cluster: Cluster, expected: list[str], tale: Story, count: int) -> None:
        addresses = [member.grpc for member in cluster.gateways]
        self._over = threading.Event()
        self.followers = []
        for number in range(count):
            turned = addresses[number % len(addresses) :] + addresses[: number % len(addresses)]
            self.followers.append(Follower(tale, expected, "ipv4:" + ",".join(turned)))
        self._threads = [threading.Thread(target=each.run, args=[self._over], daemon=True) for each in self.followers]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + _PATIENCE_S
        while not all(len(each.times) > 5 or each.problems for each in self.followers):
            assert time.monotonic() < deadline, "the streams do not get going"
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_PATIENCE_S)

    @property
    def masks(self) -> int:
        return sum(len(each.times) for each in self.followers)

    @property
    def problem(self) -> str:
        """The first of them; empty: none."""
        hung = [thread for thread in self._threads if thread.is_alive()]
        problems = [problem for each in self.followers for problem in each.problems]
        return f"{len(hung)} streams hang" if hung else problems[0] if problems else ""


@contextmanager
def running(
    folder: Path, bundle: str | None, workers: int = 3, gateways: int = 2
) -> Iterator[tuple[Cluster, Story, list[str]]]:
    """A cluster, and what its streams are to be told: the masks of a stream that nothing happens to."""
    tale = story(_FRAMES)
    cluster = Cluster(folder, bundle or suitable("cpu")[0], workers, gateways)
    with cluster, Client(cluster.grpc) as client:
        yield cluster, tale, [digest(result.labels) for result in client.track(tale.jpegs, tale.labels)]


def killed(folder: Path, bundle: str | None, seed: int) -> tuple[str, str]:
    """Every five seconds a worker or a gateway, for two minutes. What is wrong, and the figures."""
    chance = random.Random(seed)
    with running(folder, bundle) as (cluster, tale, expected), Load(cluster, expected, tale, _STREAMS) as load:
        kills: list[float] = []
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            time.sleep(_EVERY_S)
            member = chance.choice([*cluster.workers, *cluster.gateways])
            kills.append(time.monotonic())
            member.kill()
            member.start()
        time.sleep(_EVERY_S)
    # The longest pause of each stream around each kill, of those that are longer than that stream's usual ones: a
    # stream that the kill did not touch has none.
    pauses = [each.longest_pause(at, at + _EVERY_S) for at in kills for each in load.followers]
    p95 = float(np.percentile(pauses, 95))
    figures = (
        f"{len(kills)} kills under {_STREAMS} streams, {load.masks} masks; "
        f"pause p95 {p95:.2f} s, longest {max(pauses):.2f} s"
    )
    return load.problem or (f"the pause is {p95:.2f} s" if p95 > _PAUSE_S else ""), figures


def stood_still(folder: Path, bundle: str | None, fence: bool = True) -> tuple[str, str]:
    """A worker is stopped past its lease and goes on: what it has not stored by then is refused, and counted."""
    with running(folder, bundle, workers=2, gateways=1) as (cluster, tale, expected):
        if not fence:
            for worker in cluster.workers:
                worker.stop()
                worker.run_as("tests.chaos.unfenced")
                worker.start()
        with Load(cluster, expected, tale, 4) as load:
            worker = cluster.owner(load.followers[0].session)
            worker.send(signal.SIGSTOP)
            at = time.monotonic()
            time.sleep(LEASE_S + 3)
            moved = all(each.times[-1] > at + LEASE_S for each in load.followers)
            worker.send(signal.SIGCONT)
            refused = _eventually(lambda: counted(worker, 's2spp_commit_seconds_count{result="refused"}'))
            time.sleep(2)
        problem = (
            load.problem
            or ("" if moved else "its streams stood still with it")
            or ("" if refused else "no commit of its was refused")
        )
        return problem, f"{refused:.0f} commits refused; {load.masks} masks"


def drained(folder: Path, bundle: str | None) -> tuple[str, str]:
    """SIGTERM: its sessions go on elsewhere, without a frame computed twice, or an error."""
    with running(folder, bundle) as (cluster, tale, expected), Load(cluster, expected, tale, 8) as load:
        for worker in cluster.workers:
            worker.stop()
            worker.start()
            time.sleep(2)
        moves = sum(counted(gateway, "s2spp_streams_moved_total") for gateway in cluster.gateways)
        again = sum(counted(gateway, "s2spp_frames_sent_again_total") for gateway in cluster.gateways)
    problem = (
        load.problem
        or ("" if moves else "no stream moved")
        or (f"{again:.0f} frames were computed again" if again else "")
    )
    return problem, f"{moves:.0f} streams moved, {again:.0f} frames sent again; {load.masks} masks"


def without_redis(folder: Path, bundle: str | None, seed: int) -> tuple[str, str]:
    """Redis is killed ten times under load; then for good."""
    chance = random.Random(seed)
    with running(folder, bundle) as (cluster, tale, expected):
        with Load(cluster, expected, tale, 8) as load:
            for _ in range(10):
                time.sleep(chance.uniform(0.5, 2))
                cluster.redis.kill()
                time.sleep(chance.uniform(0, 0.5))
                cluster.redis.start()
            before = load.masks
            _eventually(lambda: load.masks - before > 50)
        figures = f"10 kills; {load.masks} masks"
        if load.problem:
            return load.problem, figures
        cluster.redis.kill()
        at = time.monotonic()
        with Client(cluster.grpc, retry_for_s=5) as client:
            try:
                list(client.track(tale.jpegs, tale.labels))
                return "masks without a Redis", figures
            except Unavailable:
                took = time.monotonic() - at
        return (
            "" if took < 30 else f"UNAVAILABLE took {took:.0f} s",
            f"{figures}; UNAVAILABLE after {took:.1f} s without Redis",
        )


def counted(member: Member, name: str) -> float:
    """A metric's value now."""
    text = httpx.get(f"{member.http}/metrics", timeout=10).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _eventually(look: Callable[[], float]) -> float:
    """What it finds in the end, or finds at last."""
    deadline = time.monotonic() + 20
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
