"""The float16 form of a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_bundles import Exported

from model.export import ExportReport, parity
from model.export.bundle import bundle_digest
from model.export.float16 import halve_bundle
from service.runtime import DeviceRuntime, check_stored_step, load_bundle


@pytest.fixture(scope="module")
def half(light: Exported, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return halve_bundle(light[1].folder, tmp_path_factory.mktemp("bundles") / "light-float16", "light-float16")


def test_every_convolution_is_in_float16(half: ExportReport) -> None:
    for part in ("init.onnx", "step.onnx"):
        graph = onnx.load(half.folder / part).graph
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        weights = [types[node.input[1]] for node in graph.node if node.op_type == "Conv"]
        assert len(weights) > 20 and set(weights) == {TensorProto.FLOAT16}


def test_inputs_and_outputs_are_those_of_the_float_bundle(light: Exported, half: ExportReport) -> None:
    ours, floats = (
        [
            (value.name, value.type)
            for session in parity.open_graphs(folder)
            for value in (*session.get_inputs(), *session.get_outputs())
        ]
        for folder in (half.folder, light[1].folder)
    )
    assert ours == floats


def test_its_masks_are_those_of_the_float_bundle(light: Exported, half: ExportReport) -> None:
    assert all(result.holds for result in half.parity)
    assert max(result.pixels for result in half.parity) < 0.001
    assert max(result.probability for result in half.parity) > 0, "something else was compared"


def test_it_is_served_as_on_a_device(half: ExportReport) -> None:
    bundle = load_bundle(str(half.folder))
    runtime = DeviceRuntime(bundle, max_batch=2, provider="cpu")
    check_stored_step(runtime, half.folder)
    runtime.warm_up()


def test_it_says_what_it_was_made_of(light: Exported, half: ExportReport) -> None:
    ours, floats = (json.loads((folder / "manifest.json").read_text()) for folder in (half.folder, light[1].folder))
    assert ours["halved_from"] == floats["digest"] != ours["digest"] == half.digest
    assert ours["states"] == floats["states"]
    assert ours["name"] == "light-float16" and ours["scores"] == {}


def test_what_is_no_float_bundle_is_refused(half: ExportReport, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no float bundle"):
        halve_bundle(half.folder, tmp_path / "again", "again")
    assert not (tmp_path / "again").exists()


def test_its_source_stays(light: Exported, tmp_path: Path) -> None:
    source = Path(shutil.copytree(light[1].folder, tmp_path / "light"))
    with pytest.raises(ValueError, match="another folder"):
        halve_bundle(source, source, "light")
    assert bundle_digest(source) == light[1].digest


def test_one_that_differs_is_not_written(light: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "MAX_PROBABILITY", np.nextafter(0.0, -1.0))
    with pytest.raises(ValueError, match="disagree"):
        halve_bundle(light[1].folder, tmp_path / "half", "half")
    assert not list(tmp_path.iterdir())
