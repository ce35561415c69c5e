"""Removing runs: what may go, what never does, and a removal that is killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from registered_world import ended_run, registered, write_parts

from pipelines.cli import run_command
from pipelines.local.runfile import RunFile, run_folders
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.store.base import Store


def made(output: Path, store: Store, *, code: int | None = 3, **artifacts: str) -> str:
    """Makes a run with artifacts of some identities, and their copies in the store."""
    run = RunFile.create(output, ["safescale", "run"])
    run.facts |= {"store": store.uri}
    for name, identity in artifacts.items():
        key = f"runs/{run.id}/stage/{name}"
        entry = {"name": name, "path": "", "uri": f"{store.uri}/{key}"}
        run.artifacts[name] = {**entry, "identity": identity}
        store.put(f"{key}/manifest.json", b"{}")
    run.point_latest()
    run.save()
    if code is not None:
        run.end(code, "It is over.")
    return run.id


def collect(output: Path, store: Store, *words: str) -> int:
    return run_command(
        ["runs", "gc", *words, "--store", store.uri, "--output", str(output)]
    )


def names(output: Path) -> set[str]:
    return {folder.name for folder in run_folders(output)}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_what_a_version_or_a_use_names_is_never_removed(
    output: Path,
    file_store: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = write_parts(tmp_path / "parts")
    version = registered(file_store, bundle)
    entry = version.entry
    of_version = ended_run(output, tmp_path / "parts", file_store, version).id
    same_model = made(output, file_store, model=entry.model)
    digest = "sha256:" + "a" * 64
    use = ledger.reserve(
        file_store,
        rows=[b"r" * 16],
        model=digest,
        holdout="sha256:" + "b" * 64,
        planned=1,
        constitution="sha256:" + "c" * 64,
    )
    of_use = made(output, file_store, model=digest)
    older = made(output, file_store, dataset=entry.dataset, code=0)
    newer = made(output, file_store, dataset=entry.dataset, code=0)
    loose = made(output, file_store, model="sha256:" + "d" * 64)
    running = made(output, file_store, code=None)
    every = names(output)

    # A look removes nothing.
    assert collect(output, file_store) == 0
    told = capsys.readouterr().out
    assert names(output) == every
    assert "2 of 7 runs may go." in told
    for run, why in {
        of_version: "it registered loans version 1",
        same_model: "loans version 1 names it",
        of_use: f"use {use.event} of the ledger names it",
        newer: "no other run has what loans version 1 names",
        running: "it goes on, or was killed",
        older: "may go",
        loose: "may go",
    }.items():
        (line,) = (line for line in told.splitlines() if line.startswith(run))
        assert why in line

    assert collect(output, file_store, "--remove") == 0
    assert names(output) == every - {older, loose}
    kept = {info.key.split("/")[1] for info in file_store.list("runs/")}
    assert kept >= {same_model, of_use, newer}
    assert not kept & {older, loose}
    assert [v.number for v in Registry(file_store, "loans").verify()] == [1]
    assert read_manifest(bundle).identity == entry.bundle_digest
    # Asking for it by name changes nothing about what refers to it.
    assert collect(output, file_store, of_use, "--remove") == 0
    assert of_use in names(output)
    # What goes on may be named: who names it knows.
    assert collect(output, file_store, running, "--remove") == 0
    assert running not in names(output)


def test_only_older_runs_and_those_of_this_store_go(
    output: Path, file_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(output, file_store)
    assert collect(output, file_store, "--older-than", "1", "--remove", "--json") == 0
    assert json.loads(capsys.readouterr().out) == [
        {"run": run, "kept_for": "it is younger"}
    ]
    (output.parent / "other").mkdir()
    other = f"file://{output.parent}/other"
    words = ["runs", "gc", "--store", other, "--remove", "--output", str(output)]
    assert run_command(words) == 0
    assert f"its store is {file_store.uri}" in capsys.readouterr().out
    assert names(output) == {run}


def test_a_removal_that_is_killed_is_finished_by_the_next(
    output: Path, file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(output, file_store)
    second = made(output, file_store, model="sha256:" + "e" * 64)
    (output / second / "report.html").write_text("page")
    whole = shutil.rmtree

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    (output / second / "logs").mkdir()
    monkeypatch.setattr(shutil, "rmtree", killed)
    assert collect(output, file_store, second, "--remove") == 1
    assert second in names(output)
    monkeypatch.setattr(shutil, "rmtree", whole)
    assert collect(output, file_store, second, "--remove") == 0
    assert names(output) == {first}
    assert (output / "latest").resolve().name == first
    assert not (output / second).exists()


def test_a_broken_log_removes_nothing(
    output: Path, file_store: Store, tmp_path: Path
) -> None:
    registered(file_store, write_parts(tmp_path / "parts"))
    run = made(output, file_store)
    file_store.put("registry/loans/events/00000001.json", b"{}")
    assert collect(output, file_store, "--remove") == 3
    assert names(output) == {run}


def test_an_empty_folder_has_no_runs(
    output: Path, file_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(output, file_store) == 0
    assert "0 of 0 runs may go." in capsys.readouterr().out
