"""deploy/kubernetes by the schemas of Kubernetes, KEDA and the Prometheus Operator, and as kubectl builds it."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor

from tests.unit.deploy.kustomize import Kustomization, Manifest

_BASE = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes" / "base"
# The oldest that the README names, and the newest that there is a schema for.
_VERSIONS = ("1.30", kubernetes_validate.latest_version())
_CUSTOM = {"ScaledObject": ScaledObject, "PodMonitor": PodMonitor}


def check(manifest: Manifest, version: str) -> None:
    """Raises ValueError where the API server of `version` would refuse `manifest`, or drop a field of it."""
    if manifest["kind"] in _CUSTOM:
        model = _CUSTOM[manifest["kind"]].model_validate(manifest, strict=True)
        if json.loads(model.model_dump_json(by_alias=True, exclude_unset=True)) != manifest:
            raise ValueError(f"{manifest['kind']} has a field that its definition does not know")
        return
    try:
        kubernetes_validate.validate(manifest, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise ValueError(error.message) from error


@pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed; it builds the same is not checked"
)
def test_kubectl_builds_the_same(folder: Path, built: Kustomization) -> None:
    text = subprocess.run(
        ["kubectl", "kustomize", folder], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    hashed = {each["metadata"]["name"] for each in built.all("ConfigMap") + built.all("Secret")}
    plain = re.sub(rf"name: ({'|'.join(hashed)})-[a-z0-9]{{10}}$", r"name: \1", text, flags=re.MULTILINE)

    def ordered(manifests: list[Manifest]) -> list[Manifest]:
        return sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"]))

    assert ordered(built.manifests) == ordered(list(yaml.safe_load_all(plain)))


@pytest.mark.parametrize("version", _VERSIONS)
def test_every_manifest_is_valid(built: Kustomization, version: str) -> None:
    for manifest in built.manifests:
        check(manifest, version)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", "spec/template/spec/terminationGracePeriod", 9),
        ("Deployment", "spec/template/spec/containers/0/ports/0/containerPort", "8000"),
        ("PodDisruptionBudget", "spec/maxAvailable", 1),
        ("NetworkPolicy", "spec/ingress/0/port", 1),
        ("ScaledObject", "spec/minReplicas", 1),
        ("ScaledObject", "spec/triggers/0/metadata/threshold", 0.75),
        ("ScaledObject", "spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown/policy", "Pods"),
        ("PodMonitor", "spec/podMetricsEndpoints/0/every", "10s"),
    ],
)
def test_a_manifest_with_a_mistake_is_not_valid(kind: str, path: str, value: object) -> None:
    manifest = copy.deepcopy(Kustomization(_BASE).all(kind)[0])
    check(manifest, _VERSIONS[0])
    *steps, last = path.split("/")
    inner: Any = manifest
    for step in steps:
        inner = inner[int(step) if isinstance(inner, list) else step]
    inner[last] = value
    with pytest.raises(ValueError):
        check(manifest, _VERSIONS[0])
