"""docker-compose.yml and the Dockerfiles, read as Docker reads them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from docker.utils.build import PatternMatcher
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[3]
COMPOSE, GPU = ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
Instruction = tuple[str, str]


class Dockerfile:
    """`stages`: the instructions of each, FROM first, by name or number. `final`: those of the image, with what it
    inherits from earlier stages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parser = DockerfileParser(fileobj=BytesIO(path.read_bytes()))
        self.stages: dict[str, list[Instruction]] = {}
        for each in self._parser.structure:
            if each["instruction"] == "FROM":
                name = re.search(r" AS (\S+)$", each["value"])
                current = self.stages.setdefault(name[1] if name else str(len(self.stages)), [])
            if each["instruction"] != "COMMENT":
                current.append((each["instruction"], each["value"]))
        self.final = self._inherited(current)

    def _inherited(self, stage: list[Instruction]) -> list[Instruction]:
        base = stage[0][1].split()[0]
        return [*(self._inherited(self.stages[base]) if base in self.stages else []), *stage]

    def all(self, instruction: str) -> list[str]:
        """The values in the image, in order."""
        return [value for name, value in self.final if name == instruction]

    @property
    def environment(self) -> dict[str, str]:
        return dict(self._parser.envs)

    @property
    def command(self) -> list[str]:
        (entry,), (command,) = self.all("ENTRYPOINT"), self.all("CMD")
        return [*json.loads(entry), *json.loads(command)]

    @property
    def ports(self) -> set[int]:
        return {int(port) for value in self.all("EXPOSE") for port in value.split()}

    @property
    def healthcheck(self) -> tuple[list[str], float]:
        """What is run, and the seconds that it gets."""
        (value,) = self.all("HEALTHCHECK")
        options, command = value.split(" CMD ", 1)
        (seconds,) = re.findall(r"--timeout=(\d+)s", options)
        return json.loads(command), float(seconds)

    @property
    def extras(self) -> list[str]:
        """Of s2spp, that are installed."""
        (asked,) = {found for stage in self.stages.values() for _, value in stage for found in _EXTRAS.findall(value)}
        return str(asked).split(",")

    @property
    def copied(self) -> list[str]:
        """Of the repository, into any stage."""
        copies = [value.split() for stage in self.stages.values() for name, value in stage if name == "COPY"]
        return [source for words in copies if not words[0].startswith("--from=") for source in words[:-1]]


_EXTRAS = re.compile(r"install .*'\.\[([a-z,]+)\]'")


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps it from the images."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return bool(PatternMatcher([line for line in lines if line and not line.startswith("#")]).matches(path))


def compose(*files: Path) -> dict[str, Any]:
    """The files, a later one over an earlier one: mappings are merged, all else is replaced."""
    whole: dict[str, Any] = {}
    for file in files or (COMPOSE,):
        _merge(whole, yaml.safe_load(file.read_text()))
    return whole


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


@dataclass(frozen=True)
class Service:
    """One of ours. `environment`: the image's, and over it the service's."""

    name: str
    image: Dockerfile
    command: list[str]
    environment: dict[str, str]
    told: dict[str, Any]

    @classmethod
    def read(cls, name: str, *files: Path) -> Service:
        told = compose(*files)["services"][name]
        image = Dockerfile(ROOT / told["build"]["context"] / told["build"]["dockerfile"])
        entry, given = image.command[:1], image.command[1:]
        command = [*told.get("entrypoint", entry), *told.get("command", given)]
        return cls(name, image, command, {**image.environment, **told.get("environment", {})}, told)

    @property
    def grace_s(self) -> float:
        return float(self.told["stop_grace_period"].removesuffix("s"))
