"""On all cores or on one: by what was faster of late."""

from __future__ import annotations

from service.batching.pace import Pace


def go(pace: Pace, runs: int, wide_ms: float, narrow_ms: float, kind: str = "a") -> list[bool]:
    ways = []
    for _ in range(runs):
        ways.append(pace.wide(kind))
        pace.ran(kind, ways[-1], wide_ms if ways[-1] else narrow_ms)
    return ways


def test_all_cores_as_long_as_they_are_faster() -> None:
    ways = go(Pace(), 500, 14, 23)
    assert ways[:40] == [True] * 2 + [False] + [True] * 37 and sum(ways) == 489, "the other way is tried now and then"


def test_one_core_where_others_want_the_rest_and_back_again() -> None:
    pace = Pace()
    go(pace, 200, 14, 23)
    crowded = go(pace, 200, 60, 25)
    assert sum(crowded[20:]) <= 20, "it is tried now and then"
    assert sum(go(pace, 200, 14, 23)[13:]) >= 183, "one that goes well is tried again at once"


def test_where_it_is_crowded_from_the_start_it_is_noticed_at_once() -> None:
    assert sum(go(Pace(), 20, 60, 25)) <= 4


def test_one_late_run_changes_nothing() -> None:
    pace = Pace()
    go(pace, 200, 14, 23)
    pace.ran("a", True, 500)
    assert sum(go(pace, 40, 14, 23)) >= 39


def test_kinds_are_told_apart_and_few_are_kept() -> None:
    pace = Pace()
    go(pace, 200, 60, 25, "crowded")
    assert sum(go(pace, 5, 14, 23, "other")) == 4
    for number in range(100):
        go(pace, 2, 1, 2, f"kind {number}")
    assert len(pace._kinds) <= 32
