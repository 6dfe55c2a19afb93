"""deploy/kubernetes runs what docker-compose.yml runs: images, commands, ports, probes, users, variables, Redis."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.kustomize import Kustomization, Manifest

_ROOT = Path(__file__).resolve().parents[3]
_COMPOSE = _ROOT / "docker-compose.yml"
_KUBERNETES = _ROOT / "deploy" / "kubernetes"
_FORMS = {"base": ["docker-compose.yml"], "overlays/gpu": ["docker-compose.yml", "docker-compose.gpu.yml"]}
# What only a cluster has to say, and why: where this pod is; cores that are this pod's, not the node's; logs that are
# collected by machines; and what the image for GPUs says itself.
_KUBERNETES_ONLY = {
    "gateway": {"S2SPP_LOG_FORMAT"},
    "worker": {"POD_IP", "S2SPP_ADVERTISE", "S2SPP_THREADS", "S2SPP_LOG_FORMAT", "S2SPP_PROVIDER"},
}


class Image:
    """The last stage of a Dockerfile: what it says of `command`, `ports`, `user`, `environment`, and its probe."""

    def __init__(self, path: Path) -> None:
        text = path.read_text().replace("\\\n", " ")
        stage = re.split(r"^FROM ", text, flags=re.MULTILINE)[-1]
        told = dict(re.findall(r"^(USER|EXPOSE|ENTRYPOINT|CMD|ENV|HEALTHCHECK) +(.*)$", stage, re.MULTILINE))
        self.entrypoint, self.command = json.loads(told["ENTRYPOINT"]), json.loads(told["CMD"])
        self.ports = {int(port) for port in told["EXPOSE"].split()}
        self.user = int(told["USER"])
        self.environment = dict(re.findall(r"(\w+)=(\S+)", told["ENV"]))
        self.health = told["HEALTHCHECK"]


def composed(files: list[str], name: str) -> dict[str, Any]:
    """The service `name`: of each later file what it says, over what the earlier ones said."""
    merged: dict[str, Any] = {}
    for file in files:
        service = yaml.safe_load((_ROOT / file).read_text())["services"].get(name, {})
        build = merged.get("build", {}) | service.get("build", {})
        merged |= service | ({"build": build} if build else {})
    return merged


def pod_of(built: Kustomization, kind: str, name: str) -> tuple[Manifest, Manifest]:
    pod = built.one(kind, name)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def tagged(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("name", ["gateway", "worker"])
def test_a_server_is_the_same_in_both(form: str, name: str) -> None:
    service = composed(_FORMS[form], name)
    image = Image(_ROOT / service["build"]["dockerfile"])
    built = Kustomization(_KUBERNETES / form)
    pod, container = pod_of(built, "Deployment", name)

    assert container["image"] == tagged(service["image"])
    assert (container.get("command", image.entrypoint), container["args"]) == (
        service.get("entrypoint", image.entrypoint),
        service.get("command", image.command),
    )
    assert pod["securityContext"]["runAsUser"] == image.user

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert set(ports.values()) == image.ports
    assert {name: str(port) for name, port in ports.items()} == {
        "http": image.environment["S2SPP_HTTP_PORT"],
        "grpc": image.environment["S2SPP_GRPC_PORT"],
    }
    assert image.environment["S2SPP_HOST"] == "0.0.0.0", "or nobody could reach the pod"
    assert f"'{container['readinessProbe']['httpGet']['path']}'" in image.health

    told = {each["name"]: each.get("value") for each in container["env"]}
    assert told.keys() - _KUBERNETES_ONLY[name] == service["environment"].keys()
    for variable in told.keys() & image.environment.keys():
        assert told[variable] == image.environment[variable], f"{variable} contradicts the image"
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    writable = {entry for entry in service.get("tmpfs", []) + service.get("volumes", []) if ":" not in entry}
    assert mounted == writable
    assert any(Path(image.environment["S2SPP_DATA_DIR"]).is_relative_to(each) for each in mounted)


def test_the_gateways_service_has_the_ports_that_compose_publishes() -> None:
    published = {int(entry.rpartition(":")[2]) for entry in composed(_FORMS["base"], "gateway")["ports"]}
    service = Kustomization(_KUBERNETES / "base").one("Service", "gateway")
    assert {port["port"] for port in service["spec"]["ports"]} == published


@pytest.mark.parametrize("name", ["gateway", "worker"])
def test_the_redis_url_is_the_same(name: str) -> None:
    (generator,) = yaml.safe_load((_KUBERNETES / "base" / "kustomization.yaml").read_text())["secretGenerator"]
    assert generator["literals"] == [f"REDIS_URL={composed(_FORMS['base'], name)['environment']['REDIS_URL']}"]


def test_redis_is_the_same_in_both() -> None:
    service = composed(_FORMS["base"], "redis")
    built = Kustomization(_KUBERNETES / "base")
    _, container = pod_of(built, "StatefulSet", "redis")
    assert container["image"] == service["image"]
    assert container["command"] == service["entrypoint"]
    assert container["workingDir"] == service["working_dir"]
    assert container["resources"]["limits"]["memory"].removesuffix("Gi") == service["mem_limit"].removesuffix("g")
    kind, *test = service["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    for when in ("startup", "readiness", "liveness"):
        assert container[f"{when}Probe"]["exec"]["command"] == ["sh", "-c", *test]
    (source,) = [each.split(":")[0] for each in service["volumes"] if each.endswith("redis.conf:ro")]
    assert built.one("ConfigMap", "redis")["data"] == {"redis.conf": (_ROOT / source).read_text()}
    targets = {each.split(":")[1] for each in service["volumes"]}
    assert {each["mountPath"] for each in container["volumeMounts"]} == {
        str(Path(each).parent) if each.endswith(".conf") else each for each in targets
    }
