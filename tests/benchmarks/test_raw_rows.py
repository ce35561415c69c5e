"""The benchmark of raw rows, in small."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.provenance import ROOT
from benchmarks.raw_rows import NUMBERS, WORDS, forms, measured, result, write_table


def test_both_files_hold_the_table_and_what_is_measured_reads_it(
    tmp_path: Path,
) -> None:
    files = write_table(tmp_path, 3000)
    assert pq.read_table(files["parquet"]).shape == (3000, len(WORDS) + len(NUMBERS))

    # The code of today stands in for both: `before` reads the table as a whole.
    found = {
        f"{kind}, {when}": [measured(ROOT, file, when)]
        for kind, file in files.items()
        for when in ("before", "now")
    }
    aside = [*forms(files["csv"], tmp_path)]

    assert {each[0]["rows"] for each in found.values()} == {3000}
    assert len({form["what"] for form in aside}) == 6
    sizes = {form["what"]: form["bytes"] for form in aside}
    assert sizes["arrow, zstd"] < sizes["arrow, not packed"]
    stored = result(found, "python -m benchmarks raw-rows", aside)
    assert [goal["op"] for goal in stored["goals"]] == ["<="] * 4
