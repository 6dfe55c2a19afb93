"""`python -m tests.integration.containers.only cpu,otel worker ...`: the s2spp program where nothing is installed but
itself with these extras, as in an image. What else is here cannot be imported."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_OURS = "s2spp"
_PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


def installed_with(extras: Sequence[str]) -> set[str]:
    """The distributions that s2spp and these of its extras need, and those that they need, by canonical name."""
    found: set[tuple[str, str]] = set()
    waiting = [(_OURS, extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for requirement in _required(name, extra):
            waiting += [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]
    return {name for name, _ in found}


def extras_of_the_project() -> dict[str, list[str]]:
    """Those of this checkout. What is installed may be older."""
    project = tomllib.loads(_PROJECT.read_text())["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def _required(name: str, extra: str) -> list[Requirement]:
    if name == _OURS:
        wanted = [Requirement(line) for line in extras_of_the_project()[extra]]
    else:
        try:
            wanted = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:  # onnxruntime-gpu, on most machines
            return []
    return [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": extra})]


class _Absent(MetaPathFinder):
    def __init__(self, names: set[str]) -> None:
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def main() -> None:
    there = installed_with(sys.argv[1].split(","))
    absent = {
        module
        for module, owners in packages_distributions().items()
        if not there.intersection(map(canonicalize_name, owners))
    }
    for module in [name for name in sys.modules if name.partition(".")[0] in absent]:
        del sys.modules[module]
    sys.meta_path.insert(0, _Absent(absent))
    sys.argv[:2] = [_OURS]

    from s2spp.cli import main as s2spp

    s2spp()


if __name__ == "__main__":
    main()
