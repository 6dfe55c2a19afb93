"""deploy/kubernetes: whole in itself, and true of the service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx

from service.bootstrap import listening
from service.settings import Settings, variable
from service.telemetry import Telemetry
from service.transport.http import create_operations_app
from service.transport.rest import create_app
from tests.fakes.engine_world import World
from tests.unit.deploy.kustomize import Kustomization, Manifest

_FOLDER = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
_COLLECTOR_S = 10  # OTEL_EXPORTER_OTLP_TIMEOUT: a server that stops waits so long for a collector that is away


def pods(built: Kustomization) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name, labels and spec of the pods of each workload."""
    for each in built.all("Deployment") + built.all("StatefulSet"):
        template = each["spec"]["template"]
        yield each["metadata"]["name"], template["metadata"]["labels"], template["spec"]


def servers(built: Kustomization) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Name, pod and container of the gateway and the worker."""
    found = {name: pod for name, _, pod in pods(built) if name in ("gateway", "worker")}
    assert len(found) == 2
    for name, pod in found.items():
        (container,) = pod["containers"]
        yield name, pod, container


def environment(container: Manifest) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container["env"]}


def gigabytes(quantity: str) -> float:
    """Of 1024**3 bytes."""
    found = re.fullmatch(r"(\d+)(Gi|gb)", quantity)
    assert found, quantity
    return float(found[1])


def test_every_file_is_used_and_every_file_used_is_there() -> None:
    used = Kustomization(_FOLDER / "base").files | Kustomization(_FOLDER / "overlays" / "gpu").files
    assert used == {path for path in _FOLDER.rglob("*") if path.is_file()} - {_FOLDER / "README.md"}


def test_selectors_find_their_pods_and_services_their_ports(built: Kustomization) -> None:
    labels = {name: found for name, found, _ in pods(built)}
    ports = {name: {port["name"] for port in pod["containers"][0]["ports"]} for name, _, pod in pods(built)}

    def selected(selector: Manifest) -> set[str]:
        wanted = selector.get("matchLabels", {}).items()
        either = {each["key"]: each["values"] for each in selector.get("matchExpressions", [])}
        assert wanted or either
        assert {each["operator"] for each in selector.get("matchExpressions", [])} <= {"In"}
        return {
            name
            for name, found in labels.items()
            if wanted <= found.items() and all(found.get(key) in values for key, values in either.items())
        }

    for each in built.all("Deployment") + built.all("StatefulSet"):
        name, spec = each["metadata"]["name"], each["spec"]
        assert selected(spec["selector"]) == {name}
        for spread in spec["template"]["spec"].get("topologySpreadConstraints", []):
            assert selected(spread["labelSelector"]) == {name}
    for each in built.all("PodDisruptionBudget"):
        assert selected(each["spec"]["selector"]) == {each["metadata"]["name"]}
    assert {each["metadata"]["name"] for each in built.all("PodDisruptionBudget")} == {"gateway", "worker"}
    for service in built.all("Service"):
        (name,) = selected({"matchLabels": service["spec"]["selector"]})
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports[name]
    for policy in built.all("NetworkPolicy"):
        (name,) = selected(policy["spec"]["podSelector"])
        rules = policy["spec"]["ingress"]
        assert {port["port"] for rule in rules for port in rule["ports"]} == ports[name]
        (peer,) = [peer for rule in rules for peer in rule.get("from", [])]
        assert selected(peer["podSelector"]) == {"worker": {"gateway"}, "redis": {"gateway", "worker"}}[name]
    (monitor,) = built.all("PodMonitor")
    assert selected(monitor["spec"]["selector"]) == {"gateway", "worker"}
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert all(endpoint["port"] in ports[name] for name in ("gateway", "worker"))


def test_all_that_is_referred_to_is_there(built: Kustomization) -> None:
    for _, _, pod in pods(built):
        for volume in pod["volumes"]:
            if "configMap" in volume:
                built.one("ConfigMap", volume["configMap"]["name"])
        for container in pod["containers"]:
            for each in container.get("env", []):
                if secret := each.get("valueFrom", {}).get("secretKeyRef"):
                    assert secret["key"] in built.one("Secret", secret["name"])["data"]
    for each in built.all("StatefulSet"):
        built.one("Service", each["spec"]["serviceName"])
    (scaled,) = built.all("ScaledObject")
    assert "replicas" not in built.one("Deployment", scaled["spec"]["scaleTargetRef"]["name"])["spec"]


def test_the_servers_are_told_what_they_know(built: Kustomization) -> None:
    known = {variable(field) for field in Settings.model_fields}
    for name, _, container in servers(built):
        told = [each["name"] for each in container["env"]]
        assert len(told) == len(set(told))
        assert set(told) - known <= {"POD_IP"}
        assert "REDIS_URL" in told
        if name == "worker":
            (grpc,) = [port["containerPort"] for port in container["ports"] if port["name"] == "grpc"]
            assert environment(container)["S2SPP_ADVERTISE"] == f"$(POD_IP):{grpc}"
            assert told.index("POD_IP") < told.index("S2SPP_ADVERTISE"), "only what stands before is put in"


async def test_probes_and_metrics_are_answered(built: Kustomization) -> None:
    world, metrics = World(), Telemetry().render
    apps = {
        "worker": create_operations_app(world.engine, metrics),
        "gateway": create_app(world.engine, max_image_bytes=1, metrics=metrics, version="1"),
    }
    (monitor,) = built.all("PodMonitor")
    for name, _, container in servers(built):
        probes = [container[f"{when}Probe"]["httpGet"] for when in ("startup", "readiness", "liveness")]
        assert {probe["port"] for probe in probes} == {"http"}
        assert probes[-1]["path"] == "/healthz", "a Redis that is away is no reason to restart a server"
        paths = {probe["path"] for probe in probes} | {each["path"] for each in monitor["spec"]["podMetricsEndpoints"]}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(apps[name]), base_url="http://pod") as client:
            assert {path: (await client.get(path)).status_code for path in paths} == dict.fromkeys(paths, 200)
    await world.engine.close()


def test_pods_have_the_time_to_drain(built: Kustomization) -> None:
    for name, pod, container in servers(built):
        before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        drain = float(environment(container).get("S2SPP_DRAIN_S") or Settings.model_fields["drain_s"].default)
        transports = drain + listening._OVERDUE_S
        storing = 0.0
        if name == "worker":  # all that it may hold, an object being 0.83 MB, at the rate that commits have
            limits = {field: Settings.model_fields[field].default for field in ("max_sessions", "max_objects")}
            held = limits["max_sessions"] * limits["max_objects"] * 0.83e6
            storing = held / Settings.model_fields["commit_bytes_per_s"].default
        assert pod["terminationGracePeriodSeconds"] > before + transports + storing + _COLLECTOR_S


def test_pods_may_do_little(built: Kustomization) -> None:
    for _, _, pod in pods(built):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_all_videos_that_may_wait_have_room(built: Kustomization) -> None:
    (room,) = built.one("Deployment", "gateway")["spec"]["template"]["spec"]["volumes"]
    most = Settings.model_fields["max_videos"].default * Settings.model_fields["max_video_bytes"].default
    assert gigabytes(room["emptyDir"]["sizeLimit"]) * 2**30 > most


def test_scaling_asks_for_metrics_that_workers_have(built: Kustomization) -> None:
    (scaled,) = built.all("ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    asked = re.findall(r'(\w+)\{namespace="(\w+)"\}', query)
    assert len(asked) == query.count("{") == 2
    assert {namespace for _, namespace in asked} == {scaled["metadata"]["namespace"]}
    served = Telemetry().render().decode()
    for metric, _ in asked:
        assert f"\n{metric} " in served


def test_a_worker_with_a_gpu() -> None:
    worker = Kustomization(_FOLDER / "overlays" / "gpu").one("Deployment", "worker")
    pod = worker["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"].partition(":")[0] == "s2spp-worker-gpu"
    assert environment(container)["S2SPP_PROVIDER"] == "cuda"
    assert container["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": 1}
    assert pod["nodeSelector"] and pod["tolerations"]


def test_a_redis_elsewhere_leaves_none_here(folder: Path, built: Kustomization) -> None:
    assert bool(built.all("StatefulSet")) is (folder.name != "mine")


def test_redis_has_more_memory_than_it_may_fill_and_disk_for_its_log() -> None:
    built = Kustomization(_FOLDER / "base")
    (config,) = built.one("ConfigMap", "redis")["data"].values()
    told = dict(line.split(" ", 1) for line in config.splitlines() if line and not line.startswith("#"))
    assert (told["maxmemory-policy"], told["appendonly"], told["appendfsync"]) == ("noeviction", "yes", "always")
    redis = built.one("StatefulSet", "redis")["spec"]
    (container,), (claim,) = redis["template"]["spec"]["containers"], redis["volumeClaimTemplates"]
    maximum = gigabytes(told["maxmemory"])
    assert gigabytes(container["resources"]["limits"]["memory"]) >= 1.5 * maximum
    assert gigabytes(claim["spec"]["resources"]["requests"]["storage"]) > 4 * maximum
    mounts = {each["mountPath"] for each in container["volumeMounts"]}
    assert mounts == {container["workingDir"], str(Path(container["command"][1]).parent)}
    (port,) = container["ports"]
    assert str(port["containerPort"]) == told["port"]
