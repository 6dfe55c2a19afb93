"""Two results: a faster machine is no faster program, and a slower program shows on any machine."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from s2spp.benchmark.compare import compare
from s2spp.benchmark.result import Memory, Precisions, Result, read_result
from s2spp.benchmark.tables import print_comparison
from s2spp.json_file import write_json
from tests.unit.s2spp.bench_results import made_up


def test_another_speed_of_the_machine_changes_nothing() -> None:
    comparison = compare(made_up(), made_up(speed=2.0))
    assert len(comparison.pairs) == 20 and not comparison.missing
    assert {pair.rate.verdict for pair in comparison.pairs if pair.path != "raw"} == {"same"}
    assert {pair.latency.verdict for pair in comparison.pairs if pair.path != "raw"} == {"same"}
    assert all(pair.new.fps == 2 * pair.old.fps for pair in comparison.pairs)


def test_a_change_is_told_though_the_machine_hides_it() -> None:
    comparison = compare(made_up(), made_up(speed=1.5, shares={"grpc": 0.45, "ws": 0.7, "rest": 0.41}))
    told = {pair.path: (pair.rate.verdict, pair.latency.verdict) for pair in comparison.pairs}
    assert told == {
        "raw": ("unknown", "unknown"),  # what the others are measured by
        "engine": ("same", "same"),
        "grpc": ("slower", "slower"),  # by its frames a second alone it would be faster
        "ws": ("faster", "faster"),
        "rest": ("same", "same"),
    }
    grpc = next(pair for pair in comparison.pairs if pair.path == "grpc")
    assert grpc.new.fps > grpc.old.fps and grpc.rate.gain == pytest.approx(-0.25)


def _grpc(old: Result, new: Result) -> tuple[str, str]:
    pair = {pair.path: pair for pair in compare(old, new).pairs}["grpc"]
    return pair.rate.verdict, pair.latency.verdict


def test_what_changes_less_than_slices_of_one_run_is_noise() -> None:
    slower = {"grpc": 0.5}
    assert _grpc(made_up(), made_up(shares=slower)) == ("slower", "slower")
    assert _grpc(made_up(), made_up(shares=slower, swing=0.3)) == ("same", "slower")
    assert _grpc(made_up(), made_up(shares=slower, ms_swing=0.3)) == ("slower", "same")


def test_latencies_of_a_file_without_their_slices_tell_nothing() -> None:
    old = made_up()
    old = replace(old, runs=[replace(run, ms_slices=()) for run in old.runs])
    assert _grpc(old, made_up(shares={"grpc": 0.5})) == ("slower", "unknown")


def test_other_machines_bundles_and_rows_are_told() -> None:
    old, new = made_up(), made_up()
    new = replace(new, machine={**new.machine, "cpu": "B"}, model_digest="sha256:2", runs=new.runs[:-1])
    comparison = compare(old, new)
    assert [warning.partition(":")[0] for warning in comparison.warnings] == ["another machine", "another tiny"]
    assert comparison.missing == 1 and len(comparison.pairs) == 19


def test_a_machine_that_others_used_is_told() -> None:
    busy = replace(made_up(), machine={**made_up().machine, "others_cpu": 0.31})
    (warning,) = compare(made_up(), busy).warnings
    assert "the newer run" in warning and "31%" in warning


def test_a_file_without_the_newer_parts_is_read_and_compared(tmp_path: Path) -> None:
    whole = made_up().to_dict()
    newer = {"fps_slices", "ms_slices", "count"}
    runs = [{name: value for name, value in run.items() if name not in newer} for run in whole["runs"]]  # type: ignore[attr-defined]
    memory = {"frames": [500.0, 5000.0], "rss_mb": [583.0, 588.0]}
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"machine": whole["machine"], "runs": runs, "memory": memory, "precisions": None}))
    old = read_result(path)
    assert old.store is None and old.memory.growth_mb == 5.0 and old.runs[0].count is None
    out = io.StringIO()
    print_comparison(Console(file=out, width=100), "old.json", compare(old, made_up(shares={"ws": 0.3})))
    assert "ws" in out.getvalue() and "unknown" in out.getvalue() and "no slices" in out.getvalue()


def test_one_slice_tells_no_noise_and_so_no_verdict() -> None:
    long = made_up()
    short = replace(
        long, runs=[replace(run, fps=run.fps / 2, fps_slices=[run.fps], ms_slices=[run.ms_p50]) for run in long.runs]
    )
    for old, new in ((short, long), (long, short)):
        pairs = compare(old, new).pairs
        assert {verdict for pair in pairs for verdict in (pair.rate.verdict, pair.latency.verdict)} == {"unknown"}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write_json(tmp_path / "bench.json", made_up().to_dict())
    again = read_result(tmp_path / "bench.json")
    assert again == made_up() and json.loads((tmp_path / "bench.json").read_text())["memory"]["growth_mb"] is not None


@pytest.mark.parametrize("precisions", [Precisions("float", "int8", 18.0, 6.0), "no int8 here", None])
def test_precisions_are_read_again_with_their_ratio(tmp_path: Path, precisions: Precisions | str | None) -> None:
    result = replace(made_up(), precisions=precisions)
    write_json(tmp_path / "bench.json", result.to_dict())
    assert read_result(tmp_path / "bench.json") == result
    told = {"float_bundle": "float", "int8_bundle": "int8", "float_ms": 18.0, "int8_ms": 6.0, "ratio": 3.0}
    written = json.loads((tmp_path / "bench.json").read_text())["precisions"]
    assert written == {str: {"unavailable": precisions}, Precisions: told}.get(type(precisions))


def test_what_a_newer_bench_adds_is_left_out(tmp_path: Path) -> None:
    whole: dict[str, Any] = made_up().to_dict()
    rows = [whole[name][0] for name in ("runs", "start", "parts", "live")]
    for part in (whole, *rows, whole["store"], whole["store"]["rows"][0]):
        part["of_tomorrow"] = 1
    write_json(tmp_path / "new.json", whole)
    assert read_result(tmp_path / "new.json") == made_up()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"runs": [], "machine": {}}', '{"runs": [{"path": "raw"}]}'])
def test_a_file_that_is_no_result_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"scores\.json is not what `s2spp bench --json` writes"):
        read_result(path)


def test_growth_counts_from_frame_500() -> None:
    assert Memory([100, 500, 1000], [9.0, 10.0, 10.5]).growth_mb == 0.5
    assert Memory([10, 20], [9.0, 10.0]).growth_mb is None and Memory().growth_mb is None
