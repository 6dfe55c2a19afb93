"""The page and its picture have the figures of the result, all of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from s2spp.benchmark.page import write_page
from s2spp.benchmark.plan import Plan
from s2spp.benchmark.plot import plot
from s2spp.benchmark.result import Memory
from s2spp.benchmark.rows import path_rows
from s2spp.benchmark.svg import ticks
from tests.unit.s2spp.bench_results import made_up

SVG = "{http://www.w3.org/2000/svg}"


def _lines(svg: str) -> list[list[tuple[float, float]]]:
    """Corners of every line, those of the legend among them."""
    lines = ElementTree.fromstring(svg).iter(f"{SVG}polyline")
    return [
        [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+),([-\d.]+)", line.get("points", ""))] for line in lines
    ]


def test_the_page_has_every_figure_and_the_command(tmp_path: Path) -> None:
    result = made_up()
    write_page(tmp_path / "docs" / "PAGE.md", result)
    page = (tmp_path / "docs" / "PAGE.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    for run in result.runs:
        share = result.share_of_raw(run)
        shown = ["", ""] if run.path == "raw" else [f"{share:.2f}", f"{run.overhead_ms_p50:.2f}"]
        times = [f"{run.ms_p50:.1f}", f"{run.ms_p95:.1f}"]
        cell = [run.path, str(run.sessions), str(run.objects), f"{run.fps:.1f}"]
        assert [*cell, shown[0], *times, shown[1]] in rows
    assert ["commit", "1", "4.2", "9.8", "348.1", "351.2", "40"] in rows
    assert ["resume", "3", "12.5", "", "1400.0", "", "10"] in rows  # too few for a 95th percentile
    assert ["s2spp serve", "1.82", "5"] in rows
    assert ["8", "70.0", "60.0", "95.0", "4.75", "700"] in rows
    assert ["grpc", "17.50", "1.25", "14.00", "0.50", "0.75", "1.00", "90"] in rows
    assert ["10,000", "230.4"] in rows and "grew by 0.4 MB" in page
    assert f"s2spp bench --seconds 3 --report {tmp_path}/docs/PAGE.md" in page
    assert "A Processor, 2 cores" in page and "2024-05-06" in page and "Linux-1" not in page
    assert "](PAGE.svg)" in page and (tmp_path / "docs" / "PAGE.svg").exists()


@pytest.mark.parametrize(("count", "shown"), [(19, ""), (20, "15.0"), (None, "15.0")])
def test_the_95th_percentile_of_few_frames_is_blank(count: int | None, shown: str) -> None:
    result = made_up()
    assert path_rows(replace(result, runs=[replace(result.runs[0], count=count)]))[0][6] == shown


def test_the_picture_has_a_line_for_each_path_in_each_panel() -> None:
    result = made_up()
    svg = plot(result)
    lines = _lines(svg)
    # A legend of five, five in each of two panels, and memory.
    assert len(lines) == 5 + 2 * 5 + 1
    assert [len(line) for line in lines] == [2] * 15 + [len(result.memory.frames)]
    names = [group.text for group in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert {"raw model", "gRPC", "REST", "memory of the server"} <= set(names)
    # In a panel the higher rate is the higher place, which is the smaller y.
    panel = {name: line[0][1] for name, line in zip(("raw", "engine", "grpc", "ws", "rest"), lines[5:10], strict=True)}
    assert sorted(panel, key=lambda name: panel[name]) == ["raw", "engine", "grpc", "ws", "rest"]
    texts = "".join(text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text"))
    assert "frames / s" in texts and "sessions" in texts and "resident MB" in texts
    assert "prefers-color-scheme: dark" in svg


def test_the_picture_of_one_row_stands_alone() -> None:
    result = replace(made_up(), memory=Memory())
    assert len(_lines(plot(replace(result, runs=result.runs[1:2])))) == 2


@pytest.mark.parametrize("high", [0.0, 0.3, 1.0, 7.0, 100.0, 134.8, 999.0, 1234.5])
def test_ticks_are_few_and_reach_over_the_data(high: float) -> None:
    found = ticks(high)
    assert found[0] == 0 and 2 <= len(found) <= 6 and found[-1] >= high * 0.999


def test_the_command_says_what_is_not_by_default() -> None:
    assert Plan().command() == "s2spp bench"
    plan = Plan("my bundle", ("raw", "grpc"), (1,), (1, 3), 3.0, 0, 2, False, False)
    assert plan.command() == (
        "s2spp bench --bundle 'my bundle' --paths raw,grpc --sessions 1 --objects 1,3 --seconds 3 "
        "--memory-frames 0 --threads 2 --no-precisions --no-store"
    )
