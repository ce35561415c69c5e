"""What kustomize builds, and the pods inside it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from yaml_texts import documents

from policy import Object

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "manifests"
OVERLAYS = (
    *("base", "overlays/local", "overlays/gpu", "overlays/kueue", "overlays/tpu"),
    "overlays/team",
)
"""What builds as it lies there; `overlays/gitops` needs a release first."""
COMPONENTS = (
    *("minio", "irsa", "api-server", "notify-egress", "read-only-root"),
    *("gpu", "kueue", "tpu", "spark"),
)
CLUSTER_WIDE = {
    "Namespace",
    "ResourceFlavor",
    "ClusterQueue",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
_UNITS = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "m": -3}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5}
_NO_KUSTOMIZE = 4


def build(folder: Path) -> list[Object]:
    """Returns the objects of a kustomization; skips where there is no kustomize."""
    script = MANIFESTS / "kustomize.sh"
    done = subprocess.run(
        [str(script), "build", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode == _NO_KUSTOMIZE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return [o for o in documents(done.stdout) if o]


def copy_manifests(folder: Path) -> Path:
    """Copies the manifests to a folder, with each example in its place."""
    copied = folder / "manifests"
    # What somebody has filled in here is theirs.
    theirs = shutil.ignore_patterns("generated", "*.env", "pull.json", "address.yaml")
    shutil.copytree(MANIFESTS, copied, ignore=theirs)
    for example in copied.rglob("*.example"):
        shutil.copy(example, example.with_suffix(""))
    return copied


def compose(folder: Path, *, base: str, components: tuple[str, ...] = ()) -> Path:
    """Writes an overlay of a base and components into a copy; returns its folder."""
    overlay = folder / "overlays" / "-".join(("composed", *components))
    overlay.mkdir()
    text = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../../{base}"],
        "components": [f"../../components/{name}" for name in components],
    }
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return overlay


def key(thing: Object) -> tuple[str, str]:
    """Returns kind and name."""
    return thing["kind"], thing["metadata"]["name"]


def called(thing: Object) -> str:
    """Returns how a complaint names an object."""
    return "/".join(key(thing))


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Returns the objects of some kinds."""
    return [o for o in objects if o["kind"] in kinds]


@dataclass(frozen=True)
class Pod:
    """A pod template, with where it stands."""

    where: str
    metadata: Object
    spec: Object

    @property
    def labels(self) -> dict[str, str]:
        """Labels that the pods will carry."""
        return self.metadata.get("labels") or {}

    @property
    def containers(self) -> list[Object]:
        """All containers, those that start first included."""
        return [*self.spec.get("initContainers", []), *self.spec.get("containers", [])]


def pods(objects: list[Object]) -> Iterator[Pod]:
    """Yields every pod template: any mapping with a `spec` that has containers."""
    for thing in objects:
        yield from _pods(thing, called(thing))


def _pods(value: Any, where: str) -> Iterator[Pod]:
    if isinstance(value, list):
        for part in value:
            yield from _pods(part, where)
    elif isinstance(value, dict):
        spec = value.get("spec")
        if isinstance(spec, dict) and isinstance(spec.get("containers"), list):
            yield Pod(where, value.get("metadata") or {}, spec)
        for name, part in value.items():
            # A compiled pipeline is no manifest: policy.ir looks at it.
            if name not in {"pipelineSpec", "platformSpec"}:
                yield from _pods(part, where)


def amount(text: Any) -> Decimal:
    """Reads a Kubernetes quantity.

    Raises:
        ValueError: it is none.
    """
    said = str(text)
    for unit, power in _BINARY.items():
        if said.endswith(unit):
            return _number(said.removesuffix(unit)) * 1024**power
    unit = said[-1:] if said[-1:] in _UNITS and not said[-1:].isdigit() else ""
    return _number(said.removesuffix(unit)) * Decimal(10) ** _UNITS[unit]


def _number(digits: str) -> Decimal:
    if not digits or set(digits) - set("0123456789."):
        raise ValueError(digits)
    return Decimal(digits)


def texts(value: Any) -> Iterator[str]:
    """Yields every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts(part)


@cache
def shipped() -> dict[str, list[Object]]:
    """Returns what we ship, built once: each overlay, each component on the base.

    The templates of the secrets, with their placeholders, are under `secrets`.
    """
    with tempfile.TemporaryDirectory() as folder:
        copied = copy_manifests(Path(folder))
        found = {name: build(copied / name) for name in OVERLAYS}
        found["secrets"] = build(copied / "secrets")
        for name in ("overlays/local/secrets", "overlays/team/secrets"):
            found[name] = build(copied / name)
        for name in COMPONENTS:
            overlay = compose(copied, base="base", components=(name,))
            found[f"components/{name}"] = build(overlay)
    return found


def with_secrets(name: str) -> list[Object]:
    """Returns one of `shipped`, with the templates of its secrets."""
    found, own = shipped(), f"{name}/secrets"
    return [*found[name], *found[own if own in found else "secrets"]]
