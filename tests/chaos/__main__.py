"""What the service promises, under attack: `make chaos`. One line for each promise; exit status 1 if any is broken.

python -m tests.chaos                        all of it
python -m tests.chaos --only kills --seed 7  one line, again as it was
python -m tests.chaos --without outbox       a test build without a promise: the lines that need it fail
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import clients, cluster, fuzz, kills, realtime
from tests.chaos.material import FRAMES, Story, story
from tests.chaos.server import KILL_POINTS, PROMISES

NEEDS = {
    "outbox": "kill points: after-commit-before-answer",
    "commit-before-answer": "kill points: after-answer-before-commit",
    "acknowledgement": "kill points: after-commit-before-answer",
    "epoch": "cluster stop: a worker past its lease",
}
"""The line that has to fail without the promise."""
LINES = {
    "kill points", "kills", "clients", "fuzz", "realtime",
    "cluster kills", "cluster stop", "cluster drain", "cluster redis",
}  # fmt: skip
KILLS_AT_RANDOM, CLIENT_KILLS, FUZZED = 20, 5, 10_000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", help=f"one of: {', '.join(sorted(LINES))}; again for more")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--without", choices=[*PROMISES, "epoch"])
    parser.add_argument("--bundle", help="model bundle; default: the shipped one that suits this machine")
    parser.add_argument("--frames", type=int, default=FRAMES)
    chosen = parser.parse_args()
    if unknown := set(chosen.only or ()) - LINES:
        parser.error(f"no line {', '.join(sorted(unknown))}; there are {', '.join(sorted(LINES))}")
    tale = story(chosen.frames)
    print(f"video: {tale.name}, {len(tale.jpegs)} frames; seed {chosen.seed}", flush=True)
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="s2spp-chaos-") as folder:
        for name, check in _checks(Path(folder), tale, chosen):
            if chosen.only and name.split(":")[0] not in chosen.only:
                continue
            began = time.monotonic()
            try:
                problem = check()
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            failed += [name] if problem else []
            took = time.monotonic() - began
            print(
                f"{'FAILED' if problem else 'ok    '} {name} ({took:.0f} s){': ' + problem if problem else ''}",
                flush=True,
            )
    if chosen.without:
        seen = NEEDS[chosen.without] in failed
        print(f"without {chosen.without}: {NEEDS[chosen.without]} {'fails, as it must' if seen else 'DID NOT FAIL'}")
    return 1 if failed else 0


def _checks(folder: Path, tale: Story, chosen: argparse.Namespace) -> list[tuple[str, Callable[[], str]]]:
    expected: list[kills.Seen] = []
    without = chosen.without if chosen.without in PROMISES else None

    def compare(found: list[kills.Seen]) -> str:
        if not expected:
            expected.extend(kills.undisturbed(folder / "undisturbed", chosen.bundle, tale))
        return kills.verdict(found, expected)

    def at(point: str) -> str:
        return compare(kills.killed_at(folder / point, chosen.bundle, tale, point, without))

    def at_random() -> str:
        return compare(
            kills.killed_at_random(folder / "random", chosen.bundle, tale, KILLS_AT_RANDOM, chosen.seed, without)
        )

    def client_killed() -> str:
        digests, twice = clients.killed(folder / "clients", chosen.bundle, len(tale.jpegs), CLIENT_KILLS, chosen.seed)
        print(
            f"       {twice} masks were written twice, with the same bytes; the server died {CLIENT_KILLS // 2} times"
        )
        if not expected:
            compare([])
        return "" if digests == [digest for *_, digest in expected] else "masks differ from the uninterrupted run"

    def fuzzed() -> str:
        report = fuzz.fuzz_own_server(folder / "fuzz", FUZZED, chosen.seed)
        print(f"       {report}")
        return "; ".join(report.faults[:3])

    def at_twice_the_rate() -> str:
        found = realtime.live(folder / "realtime", chosen.bundle, tale)
        print(f"       {found}")
        return found.problem

    def in_cluster(check: Callable[[], tuple[str, str]]) -> str:
        problem, figures = check()
        print(f"       {figures}")
        return problem

    place, bundle, seed = folder / "cluster", chosen.bundle, chosen.seed
    return [
        *((f"kill points: {point}", lambda point=point: at(point)) for point in KILL_POINTS),  # type: ignore[misc]
        (f"kills: {KILLS_AT_RANDOM} at random", at_random),
        (f"clients: {CLIENT_KILLS} killed", client_killed),
        (f"fuzz: {FUZZED} senseless requests", fuzzed),
        ("realtime: at twice the rate", at_twice_the_rate),
        (
            "cluster kills: workers and gateways",
            lambda: in_cluster(lambda: cluster.killed(place / "kills", bundle, seed)),
        ),
        (
            "cluster stop: a worker past its lease",
            lambda: in_cluster(lambda: cluster.stood_still(place / "stop", bundle, chosen.without != "epoch")),
        ),
        (
            "cluster redis: killed 10 times",
            lambda: in_cluster(lambda: cluster.without_redis(place / "redis", bundle, seed)),
        ),
        ("cluster drain: SIGTERM", lambda: in_cluster(lambda: cluster.drained(place / "drain", bundle))),
    ]


if __name__ == "__main__":
    sys.exit(main())
