"""`safescale data sealed`: what a store keeps of sealed rows, listed and removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from registered_world import registered, write_parts

from pipelines.cli import run_command
from safescale_ammt.files.artifacts import PROTECTED, read_manifest
from safescale_ammt.store.base import Store
from safescale_ammt.store.protected import all_kept, set_apart
from safescale_ammt.store.uri import STORE, open_store


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its verdict with evidence, and their bundle."""
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder)
    return folder


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store of the environment, empty."""
    uri = (tmp_path / "store").as_uri()
    monkeypatch.setenv(STORE, uri)
    return open_store(uri)


def age(store: Store, days: float) -> None:
    """Makes all that a store keeps of sealed rows look so many days old."""
    for kept in all_kept(store):
        for key in kept.keys:
            file = Path(store.uri.removeprefix("file://")) / key
            then = file.stat().st_mtime - days * 86_400
            os.utime(file, (then, then))


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict]:
    assert run_command(["data", "sealed", "--json", *words]) == 0
    found: list[dict] = json.loads(capsys.readouterr().out)
    return found


def test_what_a_store_keeps_is_listed_with_the_versions_that_name_it(
    parts: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_apart(store, parts / "verdict", tmp_path / "v")
    store.put(f"{PROTECTED}notes.txt", b"not ours")
    digest = read_manifest(tmp_path / "v").identity
    (row,) = listed(capsys)
    assert (row["kind"], row["digest"], row["versions"]) == ("verdict", digest, [])
    assert row["bytes"] == (parts / "verdict/evidence.parquet").stat().st_size
    registered(store, parts / "bundle")
    assert listed(capsys)[0]["versions"] == ["loans 1"]
    assert run_command(["data", "sealed"]) == 0
    head, line, end = capsys.readouterr().out.splitlines()
    assert head.split() == ["kind", "digest", "bytes", "written", "versions", "told"]
    assert line.split()[-3:-1] == ["loans", "1"]
    assert end == f"Listed 1 of 1 in {store.uri}."


def test_what_is_old_and_named_by_no_version_is_removed_and_nothing_else(
    parts: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_apart(store, parts / "verdict", tmp_path / "v")
    other = write_parts(tmp_path / "other", weights=b"other").parent
    set_apart(store, other / "verdict", tmp_path / "w")
    registered(store, parts / "bundle")
    age(store, 3)
    assert listed(capsys, "--older-than", "4", "--remove") == []
    (gone,) = listed(capsys, "--older-than", "2", "--remove")
    assert (gone["digest"], gone["removed"]) == (
        read_manifest(tmp_path / "w").identity,
        True,
    )
    (left,) = listed(capsys)
    assert left["digest"] == read_manifest(tmp_path / "v").identity
    # Whoever names it, means it.
    assert len(listed(capsys, left["digest"], "--remove")) == 1
    assert listed(capsys) == []
    assert list(store.list(PROTECTED)) == []


def test_nothing_is_removed_without_being_chosen(
    parts: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_apart(store, parts / "verdict", tmp_path / "v")
    assert run_command(["data", "sealed", "--remove"]) == 2
    assert "DIGEST or --older-than" in capsys.readouterr().err
    assert run_command(["data", "sealed", "sha256:0", "--remove"]) == 2
    assert "keeps nothing of sha256:0" in capsys.readouterr().err
    assert len(listed(capsys)) == 1


def test_a_verdict_whose_evidence_was_removed_says_so_when_it_is_verified(
    parts: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_apart(store, parts / "verdict", tmp_path / "v")
    assert run_command(["verify", str(tmp_path / "v")]) == 0
    assert "is whole, but by whom" in capsys.readouterr().out
    assert len(listed(capsys, "--older-than", "0", "--remove")) == 1
    assert run_command(["verify", str(tmp_path / "v")]) == 2
    assert "evidence.parquet is not there" in capsys.readouterr().err


@pytest.mark.parametrize("days", ["nan", "inf", "1e300", "1e6", "-1"])
def test_an_age_that_no_object_has_is_refused_by_its_option(
    store: Store, days: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["data", "sealed", "--older-than", days]) == 2
    assert "--older-than" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["a\x1b[31m", "ab" * 31, "AB" * 32, "0x" * 32])
def test_what_lies_in_a_folder_of_another_form_is_not_ours_to_list_or_remove(
    store: Store, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"{PROTECTED}verdict/{folder}/evidence.parquet"
    store.put(key, b"somebody else's")
    age(store, 2)
    assert listed(capsys, "--older-than", "0", "--remove") == []
    assert store.exists(key)
