"""More threads than cores: some are warned of, far too many refused, by the names of both who may have said so."""

from __future__ import annotations

import logging

import pytest

from service.bootstrap import load_runtime
from service.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.runtime.cores", lambda: 1)


def test_far_more_threads_than_cores_are_refused() -> None:
    told = r"--threads or S2SPP_THREADS is 5, the cores that this process may use 1: give 1, or 0"
    with pytest.raises(SettingsError, match=told):
        load_runtime(Settings.load(bundle="s2spp-light", threads=5))


def test_a_few_more_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_runtime(Settings.load(bundle="s2spp-light", threads=4))
    assert "--threads or S2SPP_THREADS is 4" in caplog.text and "hold each other up" in caplog.text
