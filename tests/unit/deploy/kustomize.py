"""What `kubectl kustomize` makes of a folder, as far as deploy/kubernetes uses it: for machines without kubectl.

Anything that it does not know is a ValueError, never passed over. Generated names get no hash.
"""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
_KNOWN = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "secretGenerator", "images", "patches"}
_WHOLE_LISTS = {"tolerations", "args", "command"}
_CLUSTER_WIDE = {"Namespace"}


class Kustomization:
    """`manifests`, after everything was applied; `files`: all that was read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self.files = {self._folder / "kustomization.yaml"}
        self.manifests: list[Manifest] = []
        self._apply(yaml.safe_load(self._read("kustomization.yaml")))

    def one(self, kind: str, name: str) -> Manifest:
        (found,) = [each for each in self.manifests if (each["kind"], each["metadata"]["name"]) == (kind, name)]
        return found

    def all(self, kind: str) -> list[Manifest]:
        return [each for each in self.manifests if each["kind"] == kind]

    def _apply(self, told: Manifest) -> None:
        if unknown := told.keys() - _KNOWN:
            raise ValueError(f"{self._folder}: {unknown} is not known here")
        for name in told.get("resources", []):
            self._add(self._folder / name)
        for generator in told.get("configMapGenerator", []):
            self._generate("ConfigMap", generator, lambda text: text)
        for generator in told.get("secretGenerator", []):
            self._generate("Secret", generator, lambda text: base64.b64encode(text.encode()).decode())
        for patch in told.get("patches", []):
            text = patch["patch"] if "patch" in patch else self._read(patch["path"])
            if patch.keys() - {"patch", "path"}:
                raise ValueError(f"only plain patches are known here, not {patch}")
            self._patch(yaml.safe_load(text))
        for image in told.get("images", []):
            self._rename(image)
        if namespace := told.get("namespace"):
            for each in self.manifests:
                if each["kind"] not in _CLUSTER_WIDE:
                    each["metadata"]["namespace"] = namespace

    def _read(self, name: str) -> str:
        path = (self._folder / name).resolve()
        if self._folder not in path.parents:
            raise ValueError(f"kustomize reads no file outside {self._folder}: {name}")
        self.files.add(path)
        return path.read_text()

    def _add(self, path: Path) -> None:
        if path.is_dir():
            other = Kustomization(path)
            self.files |= other.files
            self.manifests += other.manifests
        else:
            self.manifests += yaml.safe_load_all(self._read(str(path.relative_to(self._folder))))

    def _generate(self, kind: str, generator: Manifest, encode: Any) -> None:
        texts = dict(each.split("=", 1) for each in generator.get("literals", []))
        texts |= {Path(name).name: self._read(name) for name in generator.get("files", [])}
        made = {"apiVersion": "v1", "kind": kind, "metadata": {"name": generator["name"]}}
        made["data"] = {key: encode(text) for key, text in texts.items()}
        if kind == "Secret":
            made["type"] = "Opaque"
        if generator.get("behavior") == "replace":
            self.one(kind, generator["name"])["data"] = made["data"]
        elif "behavior" in generator:
            raise ValueError(f"a generator's behavior {generator['behavior']!r} is not known here")
        else:
            self.manifests.append(made)

    def _patch(self, patch: Manifest) -> None:
        target = self.one(patch["kind"], patch["metadata"]["name"])
        if patch.get("$patch") == "delete":
            self.manifests.remove(target)
        else:
            target.update(_merged(target, patch))

    def _rename(self, image: Manifest) -> None:
        for each in self.manifests:
            for container in (
                each["spec"]["template"]["spec"]["containers"] if "template" in each.get("spec", {}) else []
            ):
                name, _, tag = container["image"].partition(":")
                if name == image["name"]:
                    container["image"] = f"{image.get('newName', name)}:{image.get('newTag', tag)}"


def _merged(old: Any, new: Any, key: str = "") -> Any:
    """A strategic merge. Lists are merged by `name`, except those that Kubernetes replaces as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {name: _merged(old.get(name), value, name) for name, value in new.items()}
    if not isinstance(new, list) or old is None or key in _WHOLE_LISTS:
        return copy.deepcopy(new)
    if not all("name" in each for each in old + new) or key == "ports":
        raise ValueError(f"how {key} is merged is not known here")
    by_name = {each["name"]: each for each in old}
    added = [each for each in new if each["name"] not in by_name]
    # As kustomize does: what is new comes first.
    changed = {each["name"]: _merged(by_name[each["name"]], each) for each in new if each["name"] in by_name}
    return copy.deepcopy(added) + [changed.get(each["name"], each) for each in old]
