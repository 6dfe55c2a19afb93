"""docs/API.md: its examples run against a real server, its tables are those of the code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import json_format

from s2spp.embedded import EmbeddedServer
from s2spp.v1 import segmentation_pb2 as pb
from service.client import Client
from service.core import errors
from service.settings import Settings, variable
from service.transport.grpc.errors import status_code
from service.transport.http.problems import row_of
from tests.e2e.material import Clip
from tests.integration.server_process import ServerProcess
from tests.integration.tiny_bundle import write_tiny_bundle

_ROOT = Path(__file__).resolve().parents[2]
_TEXT = (_ROOT / "docs" / "API.md").read_text()


def _example(language: str, server: EmbeddedServer | None = None) -> str:
    (block,) = re.findall(rf"<!-- (?:run|checked) by [^>]*-->\n```{language}\n(.*?)```", _TEXT, re.DOTALL)[:1]
    if server is None:
        return str(block)
    host = server.http.removeprefix("http://")
    return str(block).replace("localhost:8000", host).replace("localhost:50051", server.grpc)


def _rows(heading: str) -> list[list[str]]:
    section = _TEXT.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[1:]]


@pytest.fixture
def folder(tmp_path: Path, clip: Clip) -> Path:
    (tmp_path / "frames").mkdir()
    for index, jpeg in enumerate(clip.jpegs[:6]):
        (tmp_path / "frames" / f"{index:05d}.jpg").write_bytes(jpeg)
    (tmp_path / "first.png").write_bytes(clip.mask_png)
    more = np.zeros_like(clip.labels)
    more[20:60, 20:80] = 2
    cv2.imwrite(str(tmp_path / "more.png"), more)
    return tmp_path


def _run(command: list[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_rest(folder: Path, server: EmbeddedServer) -> None:
    said = _run(["sh", "-c", "set -eu\n" + _example("sh", server)], folder)
    assert (folder / "1.png").read_bytes() == (folder / "again.png").read_bytes()
    assert (folder / "2.png").stat().st_size > 0 and "s2spp-committed-frame: 1" in (
        folder / "headers.txt"
    ).read_text().lower()
    added, corrected, removed, stands = (json.loads(one) for one in re.findall(r"\{.*?\}", said))
    assert [one["object_ids"] for one in (added, corrected, removed)] == [[1, 2], [1, 2], [1]]
    assert stands["next_frame"] == 3


def test_python(folder: Path, server: EmbeddedServer) -> None:
    lines = _run([sys.executable, "-c", _example("python", server)], folder).splitlines()
    followed = [line for line in lines if line[0].isdigit()]
    assert [line.split(" [")[0] for line in followed] == ["0", "1", "2", "3", "4", "5"]
    assert "[1, 2]" in followed[2] and "[1]" in followed[3] and lines[-1] == "True"


# Node 20 has a browser's WebSocket behind this flag, later ones without.
_NODE = ["node", "--experimental-websocket", "-e"]


def _node_has_websockets() -> bool:
    if shutil.which("node") is None:
        return False
    asked = subprocess.run([*_NODE, "process.exit(typeof WebSocket === 'function' ? 0 : 1)"], capture_output=True)
    return asked.returncode == 0


@pytest.mark.skipif(not _node_has_websockets(), reason="no Node with WebSocket on this machine")
def test_browser(folder: Path, server: EmbeddedServer, clip: Clip) -> None:
    with Client(server.grpc) as client:
        session = client.create_session(clip.jpegs[0], clip.mask_png).info.session
        program = f"""
{_example("js", server)}
const fs = require("fs");
const frameAt = async (index) => index < 6 ? new Blob([fs.readFileSync(`frames/0000${{index}}.jpg`)]) : null;
follow({json.dumps(session)}, frameAt, (told, mask) => console.log(told.frame_index, mask.byteLength > 0));
"""
        said = _run([*_NODE, program], folder)
        assert said.split() == [word for index in range(1, 6) for word in (str(index), "true")]
        assert client.session(session).next_frame == 6


@pytest.mark.skipif(not _node_has_websockets(), reason="no Node with WebSocket on this machine")
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_browsers_client_goes_on_when_the_server_comes_back(
    tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    (tmp_path / "0.jpg").write_bytes(clip.jpegs[1])
    with ServerProcess(tmp_path / "data", str(write_tiny_bundle(tmp_path / "tiny")), threads=1) as server:
        with Client(server.grpc) as client:
            session = client.create_session(clip.jpegs[0], clip.mask_png).info.session
        program = f"""
{_example("js", server)}
const frame = new Blob([require("fs").readFileSync("0.jpg")]);
const frameAt = async (index) => {{
  await new Promise((soon) => setTimeout(soon, 10));
  return index < 100 ? frame : null;
}};
follow({json.dumps(session)}, frameAt, (told) => console.log(told.frame_index));
"""
        node = subprocess.Popen([*_NODE, program], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert node.stdout is not None
        said = [node.stdout.readline().strip() for _ in range(20)]
        getattr(server, end)()
        server.start()
        said += node.communicate(timeout=60)[0].split()
        assert node.returncode == 0 and said == [str(index) for index in range(1, 100)]


def test_grpcurl() -> None:
    """The methods are there, and the JSON is theirs."""
    block = re.findall(r"```sh\n(grpcurl.*?)```", _TEXT, re.DOTALL)[0]
    methods = pb.DESCRIPTOR.services_by_name["Segmentation"].methods_by_name
    calls = re.findall(r"-d '(.*)' \S+ s2spp.v1.Segmentation/(\w+)", block)
    assert {method for _, method in calls} == {"GetModel", "GetSession", "RemoveObject"}
    for data, method in calls:
        message = getattr(pb, methods[method].input_type.name)()
        json_format.Parse(data, message)


def test_the_table_of_errors_is_that_of_the_code() -> None:
    def all_kinds(kind: type[errors.S2sppError]) -> set[type[errors.S2sppError]]:
        return {kind}.union(*map(all_kinds, kind.__subclasses__()))

    expected = {}
    for kind in all_kinds(errors.S2sppError):
        error = kind("", 1.0) if kind is errors.Overloaded else kind("")
        expected[kind.reason] = (status_code(error).name, str(row_of(kind).status))
    assert {row[0]: (row[2], row[3]) for row in _rows("Errors")} == expected


def test_the_table_of_settings_is_that_of_the_code() -> None:
    rows = {row[0]: row for row in _rows("Limits and settings")}
    assert set(rows) == set(map(variable, Settings.model_fields))
    for name, setting in Settings.model_fields.items():
        default = setting.get_default(call_default_factory=False)
        shown = rows[variable(name)][1]
        assert shown == ("" if default in (None, ()) or setting.default_factory else str(default)), name
