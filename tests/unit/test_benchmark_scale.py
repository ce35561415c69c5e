"""The benchmark of sizes, on few rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks import scale
from benchmarks.scale import SECTIONS, earlier_result, main
from benchmarks.scale_figures import LIMITS, added, goals, table
from benchmarks.scale_others import OTHERS
from benchmarks.scale_stages import STAGES, called, laid_out
from benchmarks.scale_tables import drawn, put

ROOT = Path(__file__).parents[2]
FEW = {
    **SECTIONS,
    "search": {"candidates": 1, "rung_steps": 4, "rungs": 1, "feasibility_steps": 4},
    "training": {"num_agents": 2, "steps": 12, "trunk_steps": 4, "warmup_steps": 2},
}
"""What is said of a stage does not depend on how long it trains."""


def figures(rows: int, stage: str, by: str = "now", **other: float) -> dict[str, Any]:
    """Returns a row of figures, as small as can be."""
    size = {"rows": rows, "columns": 15, "stage": stage, "by": by}
    used = {"cpu_s": 2.0, "start_cpu_s": 1.0, "peak_mib": 100.0, "disk_peak_mib": 1.0}
    return {**size, **used, **other}


def test_a_table_has_the_rows_and_columns_that_are_asked_for() -> None:
    for columns in (15, 40):
        found = pa.concat_tables(drawn(3000, columns))
        assert (found.num_rows, found.num_columns) == (3000, columns)
        assert found.equals(pa.concat_tables(drawn(3000, columns)))
        assert {"race", "sex", "income"} <= set(found.column_names)


def test_every_stage_is_measured_and_sizes_are_added_to_what_is_stored(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(scale, "RESULT", tmp_path / "scale.json")
    monkeypatch.setattr(scale, "SECTIONS", FEW)
    main(["--sizes", "2000", "--write"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines[:5]] == [*STAGES]
    # Beyond the largest that is trained, an untrained model is judged.
    monkeypatch.setattr(scale, "TRAINED", 2500)
    main(["--sizes", "3000", "--write"])
    stored = json.loads((tmp_path / "scale.json").read_text())
    pairs = [(row["rows"], row["stage"]) for row in stored["rows"]]
    assert pairs == [(2000, stage) for stage in STAGES] + [
        (3000, "prepare_data"),
        (3000, "evaluate_safety"),
    ]
    for row in stored["rows"]:
        assert 0 < row["start_cpu_s"] < row["cpu_s"]
        assert row["peak_mib"] > 50
    assert "--sizes 2000 3000" in stored["command"]
    assert len([g for g in stored["goals"] if g["what"].startswith("CPU s a row")]) == 2


def test_figures_of_other_code_are_not_added_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "RESULT", tmp_path / "scale.json")
    old = {"rows": [figures(5, "prepare_data")], "code": {"data": "0"}}
    (tmp_path / "scale.json").write_text(json.dumps(old))
    with pytest.raises(SystemExit, match=r"other code .*data.*--anew"):
        earlier_result(anew=False)
    assert earlier_result(anew=True) == {"rows": []}


def test_an_earlier_revision_and_a_library_are_measured_on_the_same_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scale, "SECTIONS", FEW)
    both = ["prepare_data", "train_agents"]
    monkeypatch.setattr(scale, "STAGES", {name: STAGES[name] for name in both})
    given = scale.options(["--others", "polars", "--most", "3000"])
    found = [*scale.measured(3000, 15, given, {"now": ROOT, "before": ROOT})]
    names = [(row["by"], row["stage"]) for row in found]
    assert names == [("polars", both[0])] + [
        (who, stage) for who in ("now", "before") for stage in both
    ]


def test_another_library_makes_splits_of_the_same_sizes(tmp_path: Path) -> None:
    put(tmp_path, 3000, 15)
    called(STAGES["prepare_data"], tmp_path, ROOT)
    called(OTHERS["polars"], tmp_path, ROOT)
    for i, name in ((0, "train"), (4, "select")):
        own = pq.read_metadata(tmp_path / "dataset" / f"{name}.parquet").num_rows
        other = pq.read_metadata(tmp_path / f"polars{i}.parquet").num_rows
        # The same shares of the same strata, by another hash.
        assert abs(own - other) < 20


def test_a_stage_s_disk_is_that_of_its_files_with_and_without_a_name(
    tmp_path: Path,
) -> None:
    code = """
import tempfile
from pathlib import Path
imported()
folder = Path(sys.argv[1])
(folder / "named").write_bytes(bytes(1 << 21))
with tempfile.TemporaryFile(dir=folder) as file:
    file.write(bytes(3 << 20))
    file.flush()
    time.sleep(1.5)
"""
    (tmp_path / "rows.csv").write_bytes(bytes(1 << 20))
    assert called(code, tmp_path, ROOT)["disk_peak_mib"] == pytest.approx(5, abs=0.1)
    assert laid_out(tmp_path) == pytest.approx(2 << 20, abs=1 << 16)


def test_a_stage_that_fails_ends_the_measurement_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such table"):
        called("raise SystemExit('no such table')", tmp_path, ROOT)


def test_goals_are_peaks_growth_the_share_of_before_and_the_limits_of_a_pod() -> None:
    rows = [
        figures(50_000, "train_agents"),
        figures(5_000_000, "train_agents", peak_mib=300.0, cpu_s=121.0),
        figures(5_000_000, "train_agents", "before", peak_mib=1000.0),
        figures(100_000_000, "prepare_data", cpu_s=7200.0, peak_mib=1024.0),
    ]
    told = {g["what"]: g["value"] for g in goals(rows)}
    assert told["peak resident memory of train_agents, MiB, greatest"] == 300
    growth = "CPU s a row of train_agents, of 5,000,000 rows / of 50,000"
    assert told[growth] == pytest.approx(1.2)
    assert told["memory of train_agents at 5,000,000 rows, now / before"] == 0.3
    limit = "of prepare_data at 100,000,000 rows / its limit"
    assert (told[f"cpu_s {limit}"], told[f"peak_mib {limit}"]) == (2.0, 0.5)


def test_a_row_takes_the_place_of_its_like_and_has_a_cell_in_the_table() -> None:
    old, new = figures(50, "train_agents"), figures(50, "train_agents", cpu_s=9.0)
    rows = added([old, figures(500, "train_agents")], [new])
    assert [row["cpu_s"] for row in rows] == [9.0, 2.0]
    assert "| 50 x 15 | now | - | - | 9.0 s, 100 MiB | - | - |" in table(rows)


def test_the_limits_are_those_of_the_compiled_pipeline_and_the_manifests() -> None:
    spec = next(
        yaml.safe_load_all((ROOT / "tests/golden/train.yaml").read_text("utf-8"))
    )
    defaults = spec["root"]["inputDefinitions"]["parameters"]
    assert defaults["resources_memory"]["defaultValue"] == "2Gi"
    assert defaults["resources_cpu"]["defaultValue"] == "1"
    text = (ROOT / "tests/golden/train.yaml").read_text("utf-8")
    assert f"activeDeadlineSeconds: '{LIMITS['cpu_s']}'" in text
    assert LIMITS["peak_mib"] == 2 << 10
    limits = (ROOT / "manifests/base/limits.yaml").read_text("utf-8")
    [quota] = [d for d in yaml.safe_load_all(limits) if d["kind"] == "LimitRange"]
    each = quota["spec"]["limits"][0]["default"]["ephemeral-storage"]
    # The stage's container and the one that KFP adds.
    assert 2 * int(each.removesuffix("Gi")) << 10 == LIMITS["disk_peak_mib"]
