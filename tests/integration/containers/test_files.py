"""The files that Docker reads say what is so: nothing is copied that is not there, no port is opened that nobody
listens on, no variable is set that is no setting."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings, variable
from tests.integration.containers.files import COMPOSE, DOCKERFILES, GPU, ROOT, Dockerfile, Service, compose, ignored
from tests.integration.containers.only import extras_of_the_project, installed_with

OURS = [("worker",), ("gateway",), ("worker", COMPOSE, GPU)]
HEAVY = {"torch", "onnx", "onnxscript", "tensorboard", "lightning-fabric", "pytest", "mypy"}
BUILD_TOOLS = re.compile(
    r"build-essential|gcc|g\+\+|clang|cmake|\bmake\b|-dev\b|-devel|\bpip3?\b|python3-(pip|venv)|git\b"
)
images = pytest.mark.parametrize("image", [Dockerfile(path) for path in DOCKERFILES], ids=lambda image: image.path.name)
services = pytest.mark.parametrize(
    "service", [Service.read(*asked) for asked in OURS], ids=lambda one: one.image.path.name
)


@images
def test_hadolint(image: Dockerfile) -> None:
    # Not asked for: versions of Debian's packages, which go from its mirrors, and of s2spp, which is this checkout.
    linter = [Path(sys.executable).parent / "hadolint", "--ignore", "DL3008", "--ignore", "DL3013"]
    done = subprocess.run([*linter, image.path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_docker_compose_files_are_what_their_schema_says() -> None:
    checker = [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*checker, COMPOSE, GPU], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


@images
def test_what_an_image_copies_is_all_that_its_package_is_built_of(image: Dockerfile, tmp_path: Path) -> None:
    """Copied as Docker would, by .dockerignore, the package can be built, and holds everything."""
    for source in image.copied:
        assert (ROOT / source).exists(), f"{source} is not in the repository"
        assert not ignored(source), f".dockerignore keeps {source} out"
        _copy(ROOT / source, tmp_path / source)
    if "bundles" not in image.copied:
        (tmp_path / "bundles").mkdir()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    bundles = {name for name in inside if name.startswith("service/_bundles/")}
    shipped = {path.relative_to(ROOT / "bundles").as_posix() for path in (ROOT / "bundles").glob("*/*")}
    expected = {f"service/_bundles/{name}" for name in shipped} if "worker" in image.path.name else set()
    assert bundles == expected
    modules = {
        path.relative_to(ROOT).as_posix() for room in ("s2spp", "service") for path in (ROOT / room).rglob("*.py")
    }
    assert modules <= inside


def _copy(source: Path, target: Path) -> None:
    def left_out(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if ignored(str((Path(folder) / name).relative_to(ROOT)))}

    if source.is_dir():
        shutil.copytree(source, target, ignore=left_out)
    else:
        shutil.copy(source, target)


def test_what_lies_about_in_a_checkout_stays_out_of_the_images() -> None:
    for path in (".git/config", ".venv/bin/python", "runs/light/checkpoint.pt", "data/davis2016", "docs/demo.jpg",
                 "service/__pycache__/settings.cpython-312.pyc", "tests/conftest.py"):  # fmt: skip
        assert ignored(path), path
    assert not ignored("service/settings.py") and not ignored("bundles/s2spp-light/step.onnx")


@images
def test_an_image_holds_no_training_and_no_build_tools(image: Dockerfile) -> None:
    there = installed_with(image.extras)
    assert not there & HEAVY
    runtimes = there & {"onnxruntime", "onnxruntime-gpu"}
    kind = image.path.name.removesuffix(".Dockerfile")
    assert runtimes == {"worker": {"onnxruntime"}, "worker-gpu": {"onnxruntime-gpu"}, "gateway": set()}[kind]
    assert set(image.extras) <= set(extras_of_the_project())
    for run in image.all("RUN"):
        assert not BUILD_TOOLS.search(run), run
    assert len(image.stages) > 1, "what builds is left behind"


@pytest.mark.parametrize("name", ["worker", "worker-gpu"])
def test_a_worker_sends_no_usage_data(name: str) -> None:
    assert Dockerfile(ROOT / "docker" / f"{name}.Dockerfile").environment["ORT_DISABLE_TELEMETRY"] == "1"


@images
def test_nobody_is_root(image: Dockerfile) -> None:
    # A number: Kubernetes can tell that it is not root.
    assert int(image.all("USER")[-1]) >= 10_000
    last = [name for name, _ in image.final if name in ("USER", "RUN", "COPY")]
    assert last[-1] == "USER"


@services
def test_the_command_is_one_of_the_program(service: Service) -> None:
    program, command, *options = service.command
    assert program == "s2spp" and not options
    shown = subprocess.run(
        [sys.executable, "-m", "s2spp.cli", command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert shown.returncode == 0 and command == service.name


@services
def test_variables_are_settings_and_ports_are_those_listened_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("S2SPP_")]:
        monkeypatch.delenv(name)
    ours = {name: value for name, value in service.environment.items() if name.startswith(("S2SPP_", "REDIS_"))}
    assert set(ours) <= set(map(variable, Settings.model_fields))
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert settings.host == "0.0.0.0", "others reach it"
    assert {settings.http_port, settings.grpc_port} == service.image.ports
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.provider == ("cuda" if "gpu" in service.image.path.name else "cpu")
    assert _writable(service, settings.data_dir), "its file system is read-only"


def _writable(service: Service, folder: Path) -> bool:
    assert service.told["read_only"]
    places = [*service.told.get("tmpfs", []), *(each for each in service.told.get("volumes", []) if ":" not in each)]
    return any(folder.is_relative_to(place) for place in places)


def test_only_the_gateway_is_reached_from_outside() -> None:
    told: dict[str, Any] = compose()["services"]
    published = {name: [port.rsplit(":", 2) for port in one.get("ports", [])] for name, one in told.items()}
    assert {inside for _, _, inside in map(tuple, published["gateway"])} == {
        str(port) for port in Service.read("gateway").image.ports
    }
    assert not published["redis"] and not published["worker"]
    assert {host for ports in published.values() for host, _, _ in ports} == {"${PUBLISH:-127.0.0.1}"}


def test_workers_can_be_scaled() -> None:
    worker = compose(COMPOSE, GPU)["services"]["worker"]
    assert not {"container_name", "ports", "hostname"} & set(worker)
    (gpu,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert gpu["capabilities"] == ["gpu"]
    assert worker["environment"] == compose()["services"]["worker"]["environment"], "the rest stays"


def test_what_waits_for_health_waits_for_a_health_check() -> None:
    told = compose()["services"]
    for name in ("worker", "gateway"):
        assert told[name]["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert "healthcheck" in told["redis"]


def test_observability_is_a_profile_and_nothing_else_is() -> None:
    told = compose()["services"]
    assert {name for name, one in told.items() if one.get("profiles") == ["observability"]} == {"prometheus", "grafana"}
    assert {name for name, one in told.items() if "profiles" not in one} == {"redis", "worker", "gateway"}


@pytest.mark.parametrize("name", list(compose()["services"]))
def test_a_service_is_kept_small(name: str) -> None:
    told = compose()
    one = told["services"][name]
    assert one["read_only"] and one["cap_drop"] == ["ALL"] and one["restart"] == "unless-stopped"
    assert one["security_opt"] == ["no-new-privileges:true"]
    for volume in (each.split(":") for each in one.get("volumes", [])):
        if volume[0].startswith("."):
            assert (ROOT / volume[0]).exists() and volume[2] == "ro"
        elif len(volume) > 1:
            assert volume[0] in told["volumes"]
    if "image" in one and "build" not in one:
        assert re.search(r":v?\d", one["image"]), "a version, not what is newest today"
