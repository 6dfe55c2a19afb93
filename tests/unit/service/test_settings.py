"""What the environment says, what the command line says, and what is told when either makes no sense."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, misspelt, variable


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable(field), raising=False)


def test_the_environment_sets_and_the_command_line_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2SPP_HTTP_PORT", "8123")
    monkeypatch.setenv("S2SPP_GRPC_PORT", "9123")
    monkeypatch.setenv("S2SPP_LOG_LEVEL", "DEBUG")
    settings = Settings.load(http_port=0, grpc_port=None)
    assert (settings.http_port, settings.grpc_port, settings.log_level) == (0, 9123, "debug")


def test_redis_url_is_the_one_name_without_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().redis_url is None
    monkeypatch.setenv("REDIS_URL", "")
    assert Settings.load().redis_url is None
    monkeypatch.setenv("REDIS_URL", "redis://there:6379/0")
    assert Settings.load().redis_url == "redis://there:6379/0"
    assert Settings.load(redis_url="unix:///r.sock").redis_url == "unix:///r.sock"


def test_the_data_folder_outlives_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Settings.load().data_dir == tmp_path / "s2spp"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings.load().data_dir == tmp_path / ".local" / "state" / "s2spp"
    assert Settings.load(data_dir="~/here").data_dir == tmp_path / "here"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("S2SPP_HTTP_PORT", "65536"),
        ("S2SPP_THREADS", "two"),
        ("S2SPP_MAX_OBJECTS", "256"),
        ("S2SPP_MAX_SESSIONS", "0"),
        ("S2SPP_IDLE_TIMEOUT_S", "-1"),
        ("S2SPP_PROVIDER", "tpu"),
        ("S2SPP_LOG_FORMAT", "xml"),
    ],
)
def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}={value}: "):
        Settings.load()


@pytest.mark.parametrize(
    "address",
    ["http://w:50051", "w", "w:", ":50051", "w:0", "w:99999", "w:50051/x", "fd00::3:50051", "a b:1", "dns:///w:50051"],
)
def test_an_address_for_gateways_is_host_and_port(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for good in ("w:50051", "10.0.0.3:1", "[fd00::3]:65535", "worker_3.example:50051"):
        assert Settings.load(advertise=good).advertise == good
    monkeypatch.setenv("S2SPP_ADVERTISE", address)
    with pytest.raises(SettingsError, match=f"^S2SPP_ADVERTISE={address}: should be host:port"):
        Settings.load()


def test_pages_are_named_as_browsers_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2SPP_CORS_ORIGINS", "https://Page.example:443/, http://localhost:3000")
    assert Settings.load().cors_origins == ("https://page.example", "http://localhost:3000")
    for good in ("*", "null", "chrome-extension://abc"):
        assert Settings.load(cors_origins=good).cors_origins == (good,)
    for bad in ("page.example", "https://page.example/live", "https://", "https://*.example", "https://a@b"):
        monkeypatch.setenv("S2SPP_CORS_ORIGINS", f"https://page.example,{bad}")
        with pytest.raises(
            SettingsError, match=f"^S2SPP_CORS_ORIGINS={re.escape(bad.removesuffix('/'))}: should be an origin"
        ):
            Settings.load()


def test_every_bad_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2SPP_THREADS", "x")
    with pytest.raises(SettingsError) as told:
        Settings.load(http_port=-1)
    assert "--http-port=-1: " in str(told.value) and "S2SPP_THREADS=x: " in str(told.value)


def test_the_form_of_an_address_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "there")
    with pytest.raises(SettingsError) as told:
        Settings.load(redis_url="redis:6379")
    assert str(told.value).split("; ") == [
        "--redis-url: should begin with redis://, rediss://, unix://, redis-cluster:// or rediss-cluster://",
        "OTEL_EXPORTER_OTLP_ENDPOINT=there: should be http://host:port or https://host:port",
    ]


def test_a_bad_redis_url_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "http://user:secret@there")
    with pytest.raises(SettingsError, match=r"^REDIS_URL: ") as told:
        Settings.load()
    assert "secret" not in str(told.value)


def test_a_setting_that_does_not_exist_is_told() -> None:
    with pytest.raises(SettingsError, match="no setting 'http_prot'"):
        Settings.load(http_prot=1)


def test_a_variable_that_is_nearly_a_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S2SPP_MAX_SESSION", "S2SPP_COMMITEVERY", "S2SPP_MAX_SESSIONS", "S2SPP_DATA", "S2SPP_SERVICE_HOST"):
        monkeypatch.setenv(name, "4")
    assert misspelt() == {"S2SPP_MAX_SESSION": "S2SPP_MAX_SESSIONS", "S2SPP_COMMITEVERY": "S2SPP_COMMIT_EVERY"}


def test_what_is_set_for_another_form_of_the_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2SPP_MAX_SESSIONS", "4")
    monkeypatch.setenv("S2SPP_MAX_VIDEOS", "")
    settings = Settings.load(bundle="mine", window=3, cors_origins="*")
    assert settings.of_others("gateway") == ["S2SPP_BUNDLE", "S2SPP_MAX_SESSIONS"]
    assert settings.of_others("worker") == ["S2SPP_CORS_ORIGINS"]
    assert settings.of_others("server") == []


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in Settings.model_fields.values())
