"""What a forger does who holds a bundle: makes every manifest in it fit again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safescale_ammt.files.artifacts import MANIFEST, Draft, describe, read_manifest
from safescale_ammt.files.canonical import read_json, write_json


def sealed_again(folder: Path, **versions: str) -> None:
    """Writes every manifest of a bundle anew, from the inside out.

    Args:
        folder: the bundle.
        versions: code versions to state, by part: `model`, `verdict`, `bundle`.
    """
    for inner in (folder / "model", folder / "verdict", folder):
        part = "bundle" if inner == folder else inner.name
        old = read_json(inner / MANIFEST)
        parents = dict(old["parents"])
        if part == "verdict":
            parents["model"] = read_manifest(folder / "model").identity
        if part == "bundle":
            for role in ("model", "verdict"):
                parents[role] = read_manifest(folder / role).identity
        artifact_sealed_again(inner, parents, versions.get(part, ""))


def artifact_sealed_again(
    folder: Path, parents: dict[str, str] | None = None, version: str = ""
) -> None:
    """Writes one manifest anew, for the files that lie there.

    Args:
        folder: the artifact.
        parents: those to state, None = those of before.
        version: code version to state, "" = that of before.
    """
    old = read_json(folder / MANIFEST)
    outside = {n for n, e in old["files"].items() if not e["identity"]}
    draft = Draft(folder, old["parents"] if parents is None else parents, outside)
    new = describe(folder, draft, old["kind"], old["stage"], old["config_digest"])
    stated = replace(new, code_version=version or old["code_version"])
    write_json(folder / MANIFEST, stated.to_dict())
