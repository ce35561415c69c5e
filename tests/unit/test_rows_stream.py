"""Rows stream: however few are held at once, the artifacts are what they were."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import preparing
import pytest
from prepared_tables import CASES, put

from safescale_ammt.data.local_table import Held
from safescale_ammt.errors import StorageError
from safescale_ammt.files.canonical import digest_json, read_json
from safescale_ammt.stages import prepare_data

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads(
    (Path(__file__).parent.parent / "golden" / "prepared.json").read_text()
)


def identities(given: dict[str, Any], folder: Path, **limits: Any) -> dict[str, str]:
    """Prepares a case; returns what the golden file has of it."""
    dataset, holdout = folder / "dataset", folder / "holdout"
    environ = preparing.environ_of(holdout)
    found = prepare_data.run(given, dataset, holdout, environ=environ, **limits)
    audit = digest_json(read_json(dataset / "audit.json"))
    return {"dataset": found["dataset"], "holdout": found["holdout"], "audit": audit}


@pytest.mark.parametrize("case", GOLDEN)
def test_a_table_gives_the_artifacts_that_it_gave_before_rows_streamed(
    tmp_path: Path, case: str
) -> None:
    name, rows = case.split()
    given = put(tmp_path / "in", name, int(rows))
    assert identities(given, tmp_path) == GOLDEN[case]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("rows", "batch"), [(700, 7), (4000, 1000)])
def test_a_table_in_small_batches_gives_the_same_artifacts(
    tmp_path: Path, name: str, rows: int, batch: int
) -> None:
    given = put(tmp_path / "in", name, rows)
    # Nothing stays in memory, and equal rows are looked for in many files.
    held = Held(batch, bucket_rows=rows // 20, memory=0)
    assert identities(given, tmp_path, held=held) == GOLDEN[f"{name} {rows}"]


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    given = put(tmp_path / "in", "plain", 4000)
    (tmp_path / "out").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Too little for what is laid aside, and for the buckets of equal rows.
    for room, memory in ((1 << 12, 0), (1 << 12, 1 << 28)):
        held = Held(500, bucket_rows=1000, memory=memory)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            with pytest.raises(StorageError) as caught:
                identities(given, tmp_path / "out", held=held)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert "the disk has no room left" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not list((tmp_path / "out").iterdir())


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    given = put(tmp_path / "in", "plain", 700)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"^making a private folder failed: .*\.$"):
        identities(given, tmp_path / "file")


def test_a_killed_preparation_leaves_no_row_behind(tmp_path: Path) -> None:
    given = put(tmp_path / "in", "plain", 4000)
    code = """
import json, os, signal, sys
from pathlib import Path
from safescale_ammt.data import preparation
from safescale_ammt.data.local_table import Held
from safescale_ammt.errors import StorageError
from safescale_ammt.stages import prepare_data

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

preparation.repeated_rows = killed
out = Path(sys.argv[1])
environ = {"SAFESCALE_STORE": (out.parent / "store").as_uri()}
given, held = json.loads(sys.argv[2]), Held(500, 1000, 0)
prepare_data.run(given, out / "dataset", out / "holdout", environ=environ, held=held)
"""
    out = tmp_path / "out"
    command = [sys.executable, "-c", code, str(out), json.dumps(given)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    # A folder may stay, and nothing is in it: the files had no names.
    assert not [path for path in out.rglob("*") if path.is_file()]
    assert not (tmp_path / "store").exists()


def test_of_many_rows_a_sample_is_audited_and_all_are_counted(tmp_path: Path) -> None:
    given = put(tmp_path / "in", "grouped", 4000)
    whole = identities(given, tmp_path / "whole")
    held = Held(audited_rows=1500)
    assert identities(given, tmp_path / "part", held=held) | {"audit": 0} == whole | {
        "audit": 0
    }
    part, every = (
        read_json(tmp_path / name / "dataset" / "audit.json")
        for name in ("part", "whole")
    )
    assert part["rows"] == every["rows"]
    assert part["base_rates"] == every["base_rates"]
    assert "sampled_rows" not in every
    # Each row by itself: binomial, with a standard deviation of 28.
    assert abs(part["sampled_rows"] - 1500) < 140
    again = identities(given, tmp_path / "again", held=held)
    assert again["audit"] == digest_json(part)
