"""What whoever starts a run gives is an address, and never the disk of a pod."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest
from small_tables import config, loans, officially_sealed, save, spell

import safescale_ammt
from pipelines.cli import run_command
from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import json_file
from safescale_ammt.stages import prepare_data, promote
from safescale_ammt.store.uri import OWN_DISK, check_given, open_store

SECRET = "AWS_SECRET_ACCESS_KEY=of-the-gate"
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
FORMS = ("file://{}", "FILE://{}", "file://localhost{}", " file://{}", "file:{}")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A file of the pod that nobody else reads."""
    file = tmp_path / "environ"
    file.write_text(SECRET)
    return file


def environ(folder: Path, **more: str) -> dict[str, str]:
    return {"SAFESCALE_STORE": (folder / "store").as_uri(), **more}


@pytest.mark.parametrize("form", FORMS)
def test_approvals_in_a_pod_are_no_file_of_its_disk(
    disk: Path, tmp_path: Path, form: str
) -> None:
    place = form.format(disk)
    for around in (place, f"\n{place}\n"):
        with pytest.raises(InputError) as refused:
            promote.run(
                *("pending", "loans", around, tmp_path / "out"),
                environ=environ(tmp_path, **POD),
            )
        assert SECRET not in str(refused.value)
    if form == FORMS[0]:
        assert "approvals is a file:// address" in str(refused.value)
        # On one's own machine the file is read, and is no approval.
        with pytest.raises(InputError, match="is no approval as"):
            promote.run(
                "pending", "loans", place, tmp_path / "out", environ=environ(tmp_path)
            )


@pytest.mark.parametrize("form", FORMS[:3])
@pytest.mark.parametrize("key", ["source", "sealed_source"])
def test_rows_in_a_pod_are_no_file_of_its_disk(
    disk: Path, tmp_path: Path, key: str, form: str
) -> None:
    source = save(tmp_path / "loans.csv", spell(loans(400)))
    given: dict[str, Any] = {"source": "s3://bucket/rows.csv", key: form.format(disk)}
    section = officially_sealed(**{"sealed_source": "s3://bucket/test.csv", **given})
    out = (tmp_path / "dataset", tmp_path / "holdout")
    with pytest.raises(InputError, match=f"data.{key} is a file:// address"):
        prepare_data.run(section, *out, environ=environ(tmp_path, **POD))
    assert not any(place.exists() for place in out)
    # The same table is prepared where the disk is one's own.
    told = prepare_data.run(config(source=source), *out, environ=environ(tmp_path))
    assert told["rows"]


def test_an_address_of_a_store_is_nobodys_disk() -> None:
    check_given("s3://bucket/key", "approvals", POD)
    check_given("file:///rows.csv", "data.source", {})
    # As in a notebook, where a run is on its owner's disk.
    check_given("file:///rows.csv", "data.source", {**POD, OWN_DISK: "1"})
    assert open_store("file:///tmp", environ=POD).uri == "file:///tmp"


def test_every_stage_that_reads_a_given_address_checks_it() -> None:
    stages = Path(safescale_ammt.__file__).parent / "stages"
    reading = {"read_uri", "split_uri", "open_store"}
    for file in sorted(stages.glob("*.py")):
        names = {
            name.id
            for name in ast.walk(ast.parse(file.read_text()))
            if isinstance(name, ast.Name)
        }
        assert not names & reading or "check_given" in names, file.name


def test_a_stage_that_a_person_calls_reads_the_disk_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = config(source=save(tmp_path / "loans.csv", spell(loans(400))))
    (tmp_path / "w.json").write_bytes(json_file({"data": section}))
    for name, value in environ(tmp_path, **POD).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(OWN_DISK, raising=False)
    places = [f"{name}={tmp_path / name}" for name in ("dataset", "holdout")]
    given = ["stage", "prepare_data", f"data={tmp_path / 'w.json'}", *places]
    assert run_command(given) == 0
    assert OWN_DISK not in os.environ
