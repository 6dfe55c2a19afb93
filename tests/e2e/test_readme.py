"""The examples of README.md, run as they stand against a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s2spp.embedded import EmbeddedServer
from tests.e2e.material import Clip

_README = Path(__file__).resolve().parents[2] / "README.md"


def _example(language: str, server: EmbeddedServer) -> str:
    """The tested block of this language, with the server's own addresses."""
    blocks = re.findall(rf"<!-- tested by [^>]*-->\n```{language}\n(.*?)```", _README.read_text(), re.DOTALL)
    assert len(blocks) == 1, f"README.md should have one tested {language} example"
    return str(blocks[0]).replace("http://localhost:8000", server.http).replace("localhost:50051", server.grpc)


@pytest.fixture
def folder(tmp_path: Path, clip: Clip) -> Path:
    (tmp_path / "frames").mkdir()
    for index, jpeg in enumerate(clip.jpegs[:3]):
        (tmp_path / "frames" / f"{index:05d}.jpg").write_bytes(jpeg)
    (tmp_path / "first.png").write_bytes(clip.mask_png)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_curl_example(folder: Path, server: EmbeddedServer, clip: Clip) -> None:
    script = "set -eu\n" + _example("sh", server)
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"next_frame":3' in done.stdout.replace(" ", "")
    for name in ("mask1.png", "mask2.png"):
        mask = Image.open(folder / name)
        assert mask.mode == "P" and np.array(mask).shape == clip.labels.shape and np.array(mask).any()


def test_python_example(folder: Path, server: EmbeddedServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _example("python", server)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(_README.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["0", "1", "2"]
