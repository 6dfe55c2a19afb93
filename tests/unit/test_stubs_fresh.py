"""The committed gRPC stubs are what the .proto files say, and the required libraries can load them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
STUBS = ROOT / "s2spp" / "v1"


def run_generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "proto" / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_committed_stubs_are_what_the_proto_files_give(tmp_path: Path) -> None:
    done = run_generate("--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    fresh = {path.name: path.read_text() for path in (tmp_path / "s2spp" / "v1").iterdir()}
    committed = {path.name: path.read_text() for path in STUBS.iterdir() if path.is_file()}
    stale = sorted(name for name in fresh | committed if fresh.get(name) != committed.get(name))
    assert not stale, f"stale in s2spp/v1: {stale}; run `make proto` and commit the result"


def test_proto_files_keep_the_rules_of_buf() -> None:
    done = run_generate("--lint")
    assert done.returncode == 0, done.stdout + done.stderr


def test_required_libraries_can_load_the_stubs() -> None:
    """Stubs refuse to load on a grpcio or protobuf older than the tools that wrote them."""
    grpc_made = _found(r"GRPC_GENERATED_VERSION = '([\d.]+)'", STUBS / "segmentation_pb2_grpc.py")
    protobuf_made = _found(r"Protobuf Python Version: ([\d.]+)", STUBS / "segmentation_pb2.py")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {name: spec for name, spec in map(_lowest, project["dependencies"])}
    assert required["grpcio"] >= Version(grpc_made)
    assert required["protobuf"] >= Version(protobuf_made)
    # Another release of the tools writes other text: the comparison above needs the one that wrote the stubs.
    assert f"grpcio-tools=={grpc_made}" in project["optional-dependencies"]["dev"]


def _found(pattern: str, path: Path) -> str:
    match = re.search(pattern, path.read_text())
    assert match, f"{path.name} does not say {pattern}"
    return match[1]


def _lowest(dependency: str) -> tuple[str, Version]:
    requirement = Requirement(dependency)
    bounds = [Version(spec.version) for spec in requirement.specifier if spec.operator in (">=", "==")]
    return requirement.name, max(bounds, default=Version("0"))
