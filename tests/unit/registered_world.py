"""Registered versions, and runs that ended with one, for tests of the commands."""

from __future__ import annotations

from pathlib import Path

from safety_world import (
    PARENTS,
    constitution,
    evidence,
    submission,
    write_model,
    write_verdict,
)

from pipelines.local.runfile import RunFile
from safescale_ammt.config.sections import RegistryConfig
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.files.canonical import write_json
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.bundle import write_bundle
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.versions import Version, VersionEntry
from safescale_ammt.store.base import Store
from safescale_ammt.store.protected import set_apart


def write_parts(folder: Path, weights: bytes = b"w", gap: float = 0.0) -> Path:
    """Writes a model, a verdict and their bundle; returns the bundle."""
    rule = constitution()
    model = write_model(folder / "model", rule, weights)
    rows, about = evidence(gap=gap), submission(model.identity)
    write_verdict(folder / "verdict", rule, rows, about, page=True)
    write_bundle(
        folder / "bundle",
        model=folder / "model",
        verdict=folder / "verdict",
        constitution=rule,
        registry=RegistryConfig(name="loans"),
    )
    return folder / "bundle"


def registered(
    store: Store, bundle: Path, name: str = "loans", decision: str = "pass"
) -> Version:
    """Registers a bundle as the gate does."""
    registry = Registry(store, name)
    stored, verdict = registry.put_bundle(bundle), Verdict.load(bundle / "verdict")
    return registry.register(
        VersionEntry(
            model=verdict.model,
            verdict=read_manifest(bundle / "verdict").identity,
            constitution=verdict.constitution,
            dataset=verdict.dataset,
            holdout=verdict.holdout,
            architecture=PARENTS["architecture"],
            decision=decision,
            bundle=stored.prefix,
            bundle_digest=stored.digest,
            code_version="0.1.0",
        )
    )


def ended_run(
    output: Path, parts: Path, store: Store, version: Version | None = None
) -> RunFile:
    """Makes the folder of a run that ended with the parts, registered or not."""
    run = RunFile.create(output, ["safescale", "run"])
    run.point_latest()
    config = {"registry": {"name": "loans"}}
    run.facts |= {"store": store.uri, "config": config}
    run.facts |= {"source": "s3://rows.csv", "sealed_source": ""}
    # As the judge leaves it: the evidence is in the store.
    places = {"verdict": parts / "apart"}
    set_apart(store, parts / "verdict", places["verdict"])
    if version is not None:
        places["version"] = parts / "version"
        facts = {"registry": "loans", "version": version.number}
        facts |= {"status": version.status}
        facts |= {"bundle": f"{store.uri}/{version.entry.bundle}"}
        facts["bundle_digest"] = version.entry.bundle_digest
        write_json(places["version"] / "version.json", facts)
    for name, path in places.items():
        key = f"runs/{run.id}/stage/{name}"
        store.upload_folder(path, key)
        entry = {"name": name, "path": str(path), "identity": f"sha256:{name}"}
        run.artifacts[name] = {**entry, "uri": f"{store.uri}/{key}"}
    run.keep_results()
    run.end(0, "It is over.")
    return run
