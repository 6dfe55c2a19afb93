"""The committed probe of `s2spp bench`."""

from model.export.probe import PROBE, probe
from s2spp.benchmark.precision import int8_conv_gops


def test_the_probe_is_what_its_code_makes() -> None:
    assert PROBE.read_bytes() == probe(), "stale: run python -m model.export.probe"


def test_it_runs() -> None:
    assert int8_conv_gops(threads=1) > 1
