"""onnxruntime reports its use to Microsoft unless told not to; nobody who runs s2spp was asked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["service.runtime", "model.export.parity", "s2spp.benchmark.precision"])
def test_onnxruntime_is_told_before_it_is_imported(module: str) -> None:
    watched = (
        "import os, sys, importlib.abc\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'onnxruntime': print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {module}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", watched], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]
