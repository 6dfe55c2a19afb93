"""Prometheus finds what there is to scrape, and Grafana shows what is really measured."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.containers.files import ROOT, Service, compose
from tests.integration.containers.stack import Stack
from tests.integration.server_process import make_clip

DOCKER = ROOT / "docker"
SCRAPES = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "s2spp.json").read_text())
TARGETS = [(panel["title"], target) for panel in DASHBOARD["panels"] for target in panel["targets"]]
# What Prometheus adds to each series, and its own metric.
ADDED = {"job": {"worker", "gateway"}, "instance": set[str]()}
SERIES = dict[str, dict[str, set[str]]]


@pytest.fixture(scope="module")
def measured(stack: Stack) -> SERIES:
    """What a worker and a gateway that were used tell: sample -> label -> its values."""
    frames, mask = make_clip(3)
    with httpx.Client(base_url=stack.running["gateway"].http, timeout=30) as rest:
        opened = rest.post("/v1/sessions", files={"frame": ("f.jpg", frames[0]), "mask": ("m.png", mask)})
        session = opened.raise_for_status().json()["session"]
        rest.post(f"/v1/sessions/{session}/frames/1", content=frames[1]).raise_for_status()
        assert rest.post(f"/v1/sessions/{session}/frames/2", content=b"no image").is_error
    series: SERIES = {"up": defaultdict(set, job=ADDED["job"], instance=set())}
    for container in stack.running.values():
        for family in text_string_to_metric_families(httpx.get(f"{container.http}/metrics").text):
            for sample in family.samples:
                labels = series.setdefault(sample.name, defaultdict(set, {key: set(of) for key, of in ADDED.items()}))
                for key, value in sample.labels.items():
                    labels[key].add(value)
    return series


def test_prometheus_asks_for_each_of_our_services_where_it_tells_its_metrics(stack: Stack) -> None:
    assert {scrape["job_name"] for scrape in SCRAPES} == {"worker", "gateway"}
    for scrape in SCRAPES:
        (by_dns,) = scrape["dns_sd_configs"]
        assert by_dns["names"] == [scrape["job_name"]] and by_dns["type"] == "A"
        service = Service.read(scrape["job_name"])
        assert by_dns["port"] == int(service.environment["S2SPP_HTTP_PORT"])
        container = stack.running[service.name]
        told = httpx.get(f"{container.http}{scrape.get('metrics_path', '/metrics')}")
        assert told.status_code == 200 and "process_resident_memory_bytes" in told.text


def _selectors(query: str) -> Iterator[Any]:
    found: list[Any] = []

    def keep(each: Any) -> None:
        if isinstance(each, promql_parser.VectorSelector):
            found.append(each)

    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "1m")), pre_visit=keep)
    return iter(found)


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{title} {target['refId']}" for title, target in TARGETS])
def test_a_panel_asks_for_what_is_measured(title: str, target: dict[str, str], measured: SERIES) -> None:
    query = target["expr"]
    selectors = list(_selectors(query))
    assert selectors
    for selector in selectors:
        assert selector.name in measured, f"there is no metric {selector.name}"
        labels = measured[selector.name]
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
            values = labels[matcher.name]
            if matcher.op == promql_parser.MatchOp.Equal and matcher.value != "unavailable":  # the store was there
                assert matcher.value in values, f"{matcher.name} of {selector.name} is never {matcher.value}"
        grouped = {name for group in re.findall(r"by \(([^)]*)\)", query) for name in group.split(", ")}
        assert grouped <= set(labels)
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert shown <= (grouped if grouped else set(labels))


def test_the_dashboard_shows_what_matters() -> None:
    asked = {selector.name for _, target in TARGETS for selector in _selectors(target["expr"])}
    assert asked >= {
        "s2spp_frame_seconds_count",
        "s2spp_frame_seconds_bucket",
        "s2spp_sessions_in_memory",
        "s2spp_sessions_total",
        "s2spp_commit_seconds_count",
        "s2spp_streams_moved_total",
        "s2spp_frame_failures_total",
        "s2spp_requests_total",
        "process_resident_memory_bytes",
    }
    assert any('result="refused"' in target["expr"] for _, target in TARGETS)


def test_grafana_is_provisioned_with_what_compose_mounts() -> None:
    told = compose()["services"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in told["grafana"]["volumes"])

    def outside(path: str) -> Path:
        """Of a path in the container, where it lies here."""
        (place,) = (place for place in mounts if path == place or path.startswith(f"{place}/"))
        return ROOT / mounts[place] / Path(path).relative_to(place)

    provisioning = outside("/etc/grafana/provisioning")
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090" and "prometheus" in told
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "s2spp.yml").read_text())["providers"]
    assert [path.name for path in outside(provider["options"]["path"]).glob("*.json")] == ["s2spp.json"]
    assert outside(told["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).is_file()
    (config,) = (volume for volume in told["prometheus"]["volumes"] if volume.startswith("./docker/prometheus.yml:"))
    assert config.split(":")[1] == "/etc/prometheus/prometheus.yml"


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
