"""How many cores a process has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.runtime.graphs import cores

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
