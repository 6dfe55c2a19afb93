"""What `s2spp export` says while it works."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model import export as exporting
from model.training.checkpoint import Checkpoint
from s2spp.commands.export import export


def test_the_stages_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def write(checkpoint: Any, out: Path, name: str, card: Any, say: Any) -> Any:
        say("tracing init.onnx")
        assert "tracing init.onnx" in capsys.readouterr().err, "before the next begins"
        parity = SimpleNamespace(batch=1, frames=12, probability=0.0, pixels=0.0)
        return exporting.ExportReport(out, "0" * 64, 1.0, [parity])  # type: ignore[list-item]

    monkeypatch.setattr(exporting, "export_bundle", write)
    monkeypatch.setattr(Checkpoint, "load", lambda path: None)
    export(tmp_path / "checkpoint.pt", tmp_path / "bundle")
    assert "1 object, 12 frames" in capsys.readouterr().out
