"""How many cores a process has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.runtime.graphs import cores, physical_cores

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", ALL),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("100001 100000", 2),
        ("99900000 100000", ALL),
        ("nonsense", ALL),
    ],
)
def test_no_more_than_the_control_group_allows(tmp_path: Path, quota: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    assert cores(tmp_path / "cpu.max") == min(expected, ALL or 1)
    assert cores(tmp_path / "none") == ALL


def test_two_threads_of_one_core_are_one_core(tmp_path: Path) -> None:
    for n in range(os.cpu_count() or 1):
        folder = tmp_path / f"cpu{n}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{n // 2 * 2}-{n // 2 * 2 + 1}")
    if hasattr(os, "sched_getaffinity"):
        assert physical_cores(tmp_path) == len({n // 2 for n in os.sched_getaffinity(0)})
    assert physical_cores(tmp_path / "none") == ALL
