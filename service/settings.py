"""Settings: what the environment says, read here and nowhere else. The command line overrides it."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PositiveFloat, PositiveInt, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_PREFIX = "S2SPP_"
_NEARLY = 0.9
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+):([0-9]{1,5})")
_OTLP_NAMES = ("S2SPP_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_REDIS, _HTTP = "^(rediss?(-cluster)?|unix)://", "^https?://[^/]"
_ORIGIN = r"^(\*|null|[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]+)?)$"
_IN_WORDS = {
    _REDIS: "should begin with redis://, rediss://, unix://, redis-cluster:// or rediss-cluster://",
    _HTTP: "should be http://host:port or https://host:port",
    _ORIGIN: "should be an origin as browsers name it, https://host or https://host:port, and no pattern; or *",
}


# What a form of the server does not read: others do.
Form = Literal["server", "worker", "gateway"]
_WORKERS = {"advertise", "bundle", "provider", "threads", "max_sessions", "max_sessions_per_client", "max_objects"}
_WORKERS |= {"idle_timeout_s", "commit_every", "commit_bytes_per_s", "max_batch"}
_GATEWAYS = {"cors_origins", "max_video_bytes", "max_video_frames", "max_videos"}
_OF_OTHERS: dict[Form, set[str]] = {"server": {"advertise"}, "worker": _GATEWAYS, "gateway": _WORKERS}


class SettingsError(ValueError):
    """A setting that cannot be used. The message names the environment variable, or the option that overrode it."""


def _state_folder() -> Path:
    """`$XDG_STATE_HOME/s2spp`, else `~/.local/state/s2spp`: it outlives the working folder and the cache."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "state") / "s2spp"


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _origins(value: object) -> object:
    """As browsers write them: in small letters, nothing behind the host and port."""
    if not isinstance(value, str):
        return value
    plain = (each.strip().lower().removesuffix("/") for each in value.split(",") if each.strip())
    return [re.sub("^(http://.*):80$|^(https://.*):443$", r"\1\2", each) for each in plain]


def _host_port(value: str) -> str:
    found = _HOST_PORT.fullmatch(value)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise PydanticCustomError(
            "host_port",
            "should be host:port, as in worker-3.example:50051 or [fd00::3]:50051, with a port from 1 to 65535",
        )
    return value


class Settings(BaseSettings):
    """What the server and the in-process engine can be told. Each field `x` is the variable `S2SPP_X`."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, populate_by_name=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every network")
    http_port: int = Field(8000, ge=0, le=65535, description="Port of REST and WebSocket; 0 for any free one")
    advertise: Annotated[str, AfterValidator(_host_port)] | None = Field(
        None,
        description="A worker's gRPC address as gateways reach it, host:port. Default: where it listens; this "
        "machine's name, if that is every network",
    )
    cors_origins: Annotated[tuple[Annotated[str, Field(pattern=_ORIGIN)], ...], NoDecode, BeforeValidator(_origins)] = (
        Field(
            (),
            description="Web pages that may call, by their origin (https://page.example), commas between; * for all",
        )
    )
    grpc_port: int = Field(50051, ge=0, le=65535, description="Port of gRPC; 0 for any free one")
    data_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=_state_folder,
        description="Folder of the embedded Redis and of server.json; one process at a time. "
        "Default: $XDG_STATE_HOME/s2spp, else ~/.local/state/s2spp",
    )
    redis_url: str | None = Field(
        None,
        pattern=_REDIS,
        validation_alias="REDIS_URL",
        description="A Redis that runs elsewhere, in place of the embedded one: redis://, rediss:// or unix://; "
        "redis-cluster:// or rediss-cluster:// is a Redis Cluster, by any of its nodes",
    )
    bundle: str = Field(
        "auto",
        description="Model bundle: a folder, the name of a shipped one, or auto: s2spp-light-int8 on a CPU with 8-bit "
        "dot products, else s2spp-light",
    )
    provider: Literal["cpu", "cuda"] = Field("cpu", description="Where the model runs")
    threads: int = Field(
        0,
        ge=0,
        description="Cores for the model on a CPU; 0: all that the process may use; four times those at most",
    )

    max_image_bytes: PositiveInt = Field(3 << 25, description="Largest frame or mask, in bytes as sent")
    max_pixels: PositiveInt = Field(1 << 25, description="Largest frame or mask, in pixels")
    max_video_bytes: PositiveInt = Field(1 << 30, description="Largest video, in bytes as sent; it waits in TMPDIR")
    max_video_frames: PositiveInt = Field(100_000, description="Frames of one video")
    max_videos: PositiveInt = Field(2, description="Videos segmented at a time; more are told to come back later")
    max_sessions: PositiveInt = Field(
        64,
        description="Sessions in memory at a time; those that pause make room, else more are told to come back later",
    )
    max_sessions_per_client: int = Field(
        0, ge=0, description="Of them, those that one client (a network address) may have opened; 0: all"
    )
    max_objects: int = Field(32, ge=1, le=255, description="Objects in one session")
    idle_timeout_s: PositiveFloat = Field(3600, description="Seconds after which an idle session expires")
    window: PositiveInt = Field(16, description="Frames of one stream that may be under way")
    commit_every: int = Field(3, ge=1, le=32, description="Frames between two commits of a stream")
    commit_bytes_per_s: PositiveFloat = Field(
        50e6,
        description="What all commits may take; beyond it streams are stored less often, every 32 frames at least",
    )
    max_batch: PositiveInt = Field(16, description="Objects in one run of the model, at most")
    drain_s: PositiveFloat = Field(5, description="Seconds that running requests get when the server stops")

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="Least level logged"
    )
    log_format: Annotated[Literal["console", "json"], BeforeValidator(_lower)] = Field(
        "console", description="Log lines for people, or for machines"
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern=_HTTP,
        validation_alias=AliasChoices(*_OTLP_NAMES),
        description="OpenTelemetry collector (OTLP over HTTP, usually port 4318) that traces are sent to; "
        "OTEL_EXPORTER_OTLP_ENDPOINT says the same",
    )

    @classmethod
    def load(cls, **overrides: Any) -> Self:
        """The environment, and over it those `overrides` that are not None: options of a command, by their names.
        Raises SettingsError."""
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError("; ".join(_told(fault, given) for fault in error.errors())) from error

    def of_others(self, form: Form) -> list[str]:
        """The variables of what is set here and means nothing to that form of the server."""
        return sorted(map(variable, self.model_fields_set & _OF_OTHERS[form]))


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return "REDIS_URL" if field == "redis_url" else _PREFIX + field.upper()


def misspelt() -> dict[str, str]:
    """Environment variables that are nearly one of ours -> the one that is probably meant. Others with our prefix are
    nobody's mistake: Kubernetes makes some for every Service."""
    known = {variable(field) for field in Settings.model_fields} | set(_OTLP_NAMES)
    strangers = [name for name in os.environ if name.startswith(_PREFIX) and name not in known]
    nearest = {name: get_close_matches(name, known, n=1, cutoff=_NEARLY) for name in strangers}
    return {name: meant[0] for name, meant in nearest.items() if meant}


def _told(fault: ErrorDetails, options: Collection[str]) -> str:
    name = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        return f"there is no setting {name!r}"
    field = name.lower() if name.isupper() else name
    shown = name if name.isupper() else variable(name)
    if field in options:
        shown = f"--{field.replace('_', '-')}"
    elif shown in _OTLP_NAMES:
        shown = next((each for each in _OTLP_NAMES if os.environ.get(each)), shown)
    secret = field == "redis_url"  # may hold a password
    why = _IN_WORDS[fault["ctx"]["pattern"]] if fault["type"] == "string_pattern_mismatch" else fault["msg"]
    return f"{shown}{'' if secret else '=' + str(fault['input'])}: {why}"
