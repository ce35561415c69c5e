"""The benchmark of sealed rows, on few of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale_judged import STAGES, goals, measured
from safescale_ammt.files.canonical import is_digest

ROOT = Path(__file__).parents[2]


def test_rows_are_judged_registered_and_verified_each_by_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = measured(400, "now", ROOT)
    assert [row["stage"] for row in found] == [*STAGES]
    assert all(row["peak_mib"] > 50 for row in found)
    assert is_digest(found[0]["verdict"])
    assert is_digest(found[0]["evidence"])
    assert len(capsys.readouterr().out.splitlines()) == len(STAGES)

    before = [{**row, "by": "before"} for row in found]
    before[0]["evidence"] = "another"
    most, departing = goals([*found, *before])
    assert most["value"] == max(row["peak_mib"] for row in found)
    assert departing["value"] == 1
