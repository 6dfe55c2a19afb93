"""What the metrics count, and that docs/TELEMETRY.md lists just these."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.core.errors import SessionUnknown, Unavailable
from service.core.ports import FrameTimes, Period
from service.core.types import SessionId
from service.telemetry import MeasuredStore, Telemetry
from tests.fakes.clock import FakeClock
from tests.fakes.store import InMemorySessionStore

DOCS = Path(__file__).resolve().parents[3] / "docs" / "TELEMETRY.md"
TIMES = FrameTimes(
    3, Period(10, 14), Period(10, 10.25), None, Period(11, 11.5), Period(11.5, 12.5), Period(12.5, 12.75)
)


def samples(telemetry: Telemetry) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(telemetry.render().decode())
    return {
        (sample.name, ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def busy() -> Telemetry:
    """Everything has happened once, opening twice."""
    telemetry = Telemetry()
    for event in ("opened", "opened", "restored", "resumed", "parked", "expired", "deleted"):
        getattr(telemetry, f"session_{event}")()
    telemetry.sessions_in_memory(5)
    telemetry.sessions_capacity(64)
    telemetry.frame_answered(TIMES)
    telemetry.frame_failed("INVALID_IMAGE")
    telemetry.frame_dropped()
    telemetry.commit_ended(0.125, result="failed", age_s=None)
    telemetry.commit_ended(0.25, result="stored", age_s=8.0)
    telemetry.batch_ran(frames=2, objects=7)
    telemetry.store_answered("ping", "ok", 0.5)
    telemetry.stream_opened("grpc")
    telemetry.call_ended("rest", "GET /v1/models", "200")
    return telemetry


def test_what_happens_is_counted() -> None:
    found = samples(busy())
    events = ("opened", "restored", "resumed", "parked", "expired", "deleted")
    assert [found["s2spp_sessions_total", f"event={event}"] for event in events] == [2, 1, 1, 1, 1, 1]
    assert (found["s2spp_sessions_in_memory", ""], found["s2spp_sessions_capacity", ""]) == (5, 64)
    assert found["s2spp_frame_failures_total", "reason=INVALID_IMAGE"] == 1
    assert found["s2spp_frames_dropped_total", ""] == 1
    assert found["s2spp_commit_seconds_count", "result=failed"] == 1
    assert found["s2spp_commit_seconds_sum", "result=stored"] == 0.25
    assert found["s2spp_commit_age_seconds_sum", "result=stored"] == 8
    assert found["s2spp_commit_age_seconds_count", "result=failed"] == 0, "it covered no frame"
    assert found["s2spp_batch_size_sum", "of=objects"] == 7
    assert found["s2spp_streams_open", "transport=grpc"] == 1
    assert found["s2spp_requests_total", "route=GET /v1/models,status=200,transport=rest"] == 1
    assert found["process_resident_memory_bytes", ""] > 1e6


def test_the_total_of_a_frame_is_more_than_its_stages() -> None:
    found = samples(busy())
    stages = ("decode", "queue", "compute", "encode", "total")
    assert [found["s2spp_frame_seconds_sum", f"stage={stage}"] for stage in stages] == [0.25, 0.5, 1, 0.25, 4]


def test_what_has_not_happened_yet_is_there_at_zero() -> None:
    found = samples(Telemetry())
    assert found["s2spp_sessions_total", "event=parked"] == 0
    assert found["s2spp_commit_seconds_count", "result=failed"] == 0
    assert found["s2spp_streams_open", "transport=websocket"] == 0


def test_two_engines_in_one_process_count_apart() -> None:
    one, other = Telemetry(), Telemetry()
    one.session_opened()
    assert samples(other)["s2spp_sessions_total", "event=opened"] == 0


async def test_the_store_is_timed_and_its_absence_seen() -> None:
    telemetry = Telemetry()
    behind = InMemorySessionStore(FakeClock())
    store = MeasuredStore(behind, telemetry)
    await store.ping()
    with pytest.raises(SessionUnknown):
        await store.load(SessionId("nobody"))

    behind.away = True
    with pytest.raises(Unavailable):
        await store.ping()
    found = samples(telemetry)
    assert found["s2spp_store_seconds_count", "operation=ping,result=ok"] == 1
    assert found["s2spp_store_seconds_count", "operation=load,result=ok"] == 1, "the store did answer"
    assert found["s2spp_store_seconds_count", "operation=ping,result=unavailable"] == 1


def test_the_documentation_lists_every_metric_with_its_type_and_labels() -> None:
    documented = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", DOCS.read_text(), re.MULTILINE)
    }
    served = {}
    for family in text_string_to_metric_families(busy().render().decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        served[name] = (family.type, labels)
    assert documented == served
