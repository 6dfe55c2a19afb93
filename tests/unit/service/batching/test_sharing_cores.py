"""Who gets how many cores."""

from __future__ import annotations

import pytest

from service.batching.cores import Cores


def company(lanes: int, most: int = 16) -> Cores:
    """Somebody else was there a moment ago."""
    cores = Cores(lanes, most)
    cores.came(busy=True)
    return cores


@pytest.mark.parametrize(
    ("lanes", "waiting", "alone", "in_company"),
    [
        (1, 9, True, True),  # there is but one way
        (2, 1, True, False),
        (2, 2, False, False),
        (4, 2, True, True),  # all four make a run 2.3 times as fast
        (4, 3, False, False),
        (64, 3, True, True),
        (64, 4, False, False),  # and however many they are, not four times as fast
    ],
)
def test_all_cores_are_for_less_work_than_they_speed_one_run_up(
    lanes: int, waiting: int, alone: bool, in_company: bool
) -> None:
    assert Cores(lanes, 16).may_be_wide(waiting) is alone
    assert company(lanes).may_be_wide(waiting) is in_company


def test_who_has_been_alone_for_a_while_is_alone() -> None:
    cores = company(2)
    for _ in range(3):
        assert not cores.may_be_wide(1)
        cores.came(busy=False)
    assert cores.may_be_wide(1)


@pytest.mark.parametrize(
    ("lanes", "objects", "waiting", "sizes"),
    [
        (1, 5, 0, [[5]]),
        (1, 21, 0, [[11], [10]]),
        (2, 1, 0, [[1]]),
        (2, 5, 0, [[3, 2]]),
        (2, 5, 2, [[5]]),  # others have work for every core
        (2, 40, 0, [[10, 10], [10, 10]]),
        (2, 33, 0, [[9, 9], [9, 6]]),
        (4, 2, 0, [[2]]),  # all four are faster, one after the other
        (16, 5, 0, [[1, 1, 1, 1, 1]]),
        (64, 16, 0, [[1] * 16]),
    ],
)
def test_objects_of_a_frame_in_company(lanes: int, objects: int, waiting: int, sizes: list[list[int]]) -> None:
    waves = company(lanes).waves(objects, waiting, urgent=False)
    assert [[len(rows) for rows in wave] for wave in waves] == sizes
    assert [row for wave in waves for rows in wave for row in rows] == list(range(objects))


@pytest.mark.parametrize(("objects", "sizes"), [(1, [1]), (16, [16]), (17, [9, 8]), (20, [10, 10]), (40, [14, 14, 12])])
def test_objects_of_a_frame_alone_or_urgent_stay_together_as_far_as_a_run_holds_them(
    objects: int, sizes: list[int]
) -> None:
    for waves in (Cores(2, 16).waves(objects, 0, urgent=False), company(2).waves(objects, 0, urgent=True)):
        assert [[len(rows) for rows in wave] for wave in waves] == [[size] for size in sizes]
