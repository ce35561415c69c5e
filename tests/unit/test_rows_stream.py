"""Rows stream: however few are held at once, the artifacts are what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import preparing
import pytest
from prepared_tables import CASES, put

from safescale_ammt.data.preparation import Held
from safescale_ammt.files.canonical import digest_json, read_json
from safescale_ammt.stages import prepare_data

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
