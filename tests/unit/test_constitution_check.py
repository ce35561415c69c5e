"""`safescale constitution check --config`: from raw rows to what is certifiable."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipelines.cli import run_command

SPLITS = dict(
    zip(
        ("train", "validation", "constraint", "monitor", "select", "sealed"),
        (0.42, 0.07, 0.07, 0.07, 0.07, 0.3),
        strict=True,
    )
)
FAIR = {"metric": "tpr_gap", "group": "district", "threshold": 0.15}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty working folder, and a folder for temporary files that shows all."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAFESCALE_STORE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    return tmp_path


def rows(count: int = 6000) -> dict[str, list[Any]]:
    """Loans of two districts; income says who repays."""
    rng = np.random.default_rng(0)
    income = rng.normal(30, 8, count).round(2)
    repaid = income + rng.normal(0, 4, count) > 28
    return {
        "income": income.tolist(),
        "district": rng.choice(["north", "south"], count).tolist(),
        "outcome": np.where(repaid, "repaid", "lost").tolist(),
    }


def csv_text(table: dict[str, list[Any]]) -> str:
    lines = [",".join(table)]
    lines += [",".join(map(str, row)) for row in zip(*table.values(), strict=True)]
    return "\n".join(lines) + "\n"


def workload(folder: Path, *constraints: dict[str, Any], **data: Any) -> str:
    """Writes a config that names its source by a path beside it, and its file."""
    source = folder / "loans.csv"
    if not source.exists():
        source.write_text(csv_text(rows()))
    principles = [
        {"id": f"p{i}", "constraint": constraint}
        for i, constraint in enumerate(constraints or (FAIR,))
    ]
    raw = {
        "schema": 1,
        "constitution": {
            "schema": 1,
            "principles": principles,
            "groups": {"min_n": 100, "min_pos": 25},
        },
        "data": {
            "source": "loans.csv",
            "label": "outcome",
            "positive": "repaid",
            "sensitive": ["district"],
            "splits": SPLITS,
            **data,
        },
        "search": {"power_draws": 300},
    }
    (folder / "my.yaml").write_text(yaml.safe_dump(raw))
    return str(folder / "my.yaml")


def checked(*arguments: str) -> int:
    return run_command(["constitution", "check", *arguments])


def test_raw_rows_are_prepared_and_each_principle_is_answered(folder, capsys):
    soft = {**FAIR, "threshold": 0.05, "tier": "soft"}
    useful = {"metric": "accuracy", "threshold": 0.6}
    assert checked("--config", workload(folder, FAIR, soft, useful)) == 0
    out = capsys.readouterr().out
    assert re.search(r"^rows: train [\d,]+, .*sealed [\d,]+$", out, re.MULTILINE)
    assert "p0 (tpr_gap by district <= 0.15 (hard)): certifiable; the least" in out
    assert "p1 (tpr_gap by district <= 0.05 (soft)): soft: reported, not gated" in out
    assert "p2 (accuracy >= 0.6 (hard)): certifiable; the least certifiable line" in out


def test_the_least_line_of_a_certifiable_promise_is_no_looser_than_it(folder, capsys):
    assert checked("--config", workload(folder)) == 0
    said = capsys.readouterr().out
    least = float(said.split("the least certifiable line is <= ")[1].split()[0])
    assert 0 < least <= 0.15


def test_a_promise_at_the_least_line_is_certifiable_and_a_stricter_one_not(
    folder, capsys
):
    assert checked("--config", workload(folder, {**FAIR, "threshold": 0.01})) == 2
    told = capsys.readouterr()
    assert "p0 (tpr_gap by district <= 0.01 (hard)): not certifiable; the" in told.out
    least = float(told.out.split("the least certifiable line is <= ")[1].split()[0])
    assert "the promised one needs" in told.err
    line = {**FAIR, "threshold": least}
    assert checked("--config", workload(folder, line)) == 0


def test_nothing_is_left_behind_and_no_store_is_started(folder):
    assert checked("--config", workload(folder)) == 0
    assert checked("--config", workload(folder, {**FAIR, "threshold": 0.01})) == 2
    assert checked("--config", workload(folder), "--set", "data.label=gone") == 2
    assert list((folder / "scratch").iterdir()) == []
    assert not (folder / ".safescale").exists()
    assert not (folder / "runs").exists()


def test_a_check_that_is_stopped_leaves_no_rows_behind(folder):
    config = workload(folder)
    command = [sys.executable, "-m", "pipelines", "constitution", "check"]
    # So many draws that it is still at work when it is stopped.
    with subprocess.Popen(
        [*command, "--config", config, "--draws", "2000000"],
        env={
            **os.environ,
            "TMPDIR": str(folder / "scratch"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        # Its rows are prepared once it says how many there are.
        assert any(line.startswith("rows: ") for line in child.stdout)
        assert list((folder / "scratch").iterdir())
        child.terminate()
        _, said = child.communicate()
    assert child.returncode == 1
    assert "was stopped by SIGTERM" in said
    assert list((folder / "scratch").iterdir()) == []


def test_a_constitution_may_be_given_in_place_of_the_configs_own(folder, capsys):
    other = {"schema": 1, "principles": [{"id": "other", "constraint": FAIR}]}
    (folder / "c.yaml").write_text(yaml.safe_dump(other))
    assert checked("c.yaml", "--config", workload(folder)) == 0
    assert "other (tpr_gap" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["loans.parquet", "loans.csv.gz", "folder"])
def test_any_source_that_a_run_reads_is_checked(name, folder, capsys):
    config = workload(folder)
    assert checked("--config", config) == 0
    before = capsys.readouterr().out.splitlines()
    path = folder / name
    if name == "folder":
        path.mkdir()
        (path / "a.csv").write_text(csv_text(rows()))
    elif name.endswith("gz"):
        path.write_bytes(gzip.compress(csv_text(rows()).encode()))
    else:
        pq.write_table(pa.table(rows()), path)
    assert checked("--config", config, "--set", f"data.source={name}") == 0
    lines = capsys.readouterr().out.splitlines()
    # How a file is packed is said, and is the only difference.
    assert [line for line in lines if "packed by" not in line] == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": "outcom"}, "spelled nearly like 'outcom'"),
        ({"source": "gone.csv"}, "no file in"),
        ({"source": ""}, "data.source is empty"),
        ({"sensitive": ["place"]}, "which the data section does not declare"),
    ],
)
def test_what_a_run_would_refuse_is_refused_in_the_same_words(
    change, says, folder, capsys
):
    assert checked("--config", workload(folder, **change)) == 2
    assert says in capsys.readouterr().err


def test_strata_whose_rows_nobody_counts_are_refused_before_any_row_is_read(
    folder, capsys
):
    within = {**FAIR, "given": "sex"}
    config = workload(folder, within, sensitive=["district", "sex"])
    (folder / "loans.csv").unlink()
    assert checked("--config", config) == 2
    assert "data.crosses: {district_sex: [district, sex]}" in capsys.readouterr().err


def test_strata_are_counted_by_their_cross_and_answered(folder, capsys):
    table = rows()
    table["sex"] = ["f" if i % 3 else "m" for i in range(len(table["district"]))]
    (folder / "loans.csv").write_text(csv_text(table))
    within = {**FAIR, "metric": "dp_gap", "given": "sex", "threshold": 0.3}
    crosses = {"both": ["sex", "district"]}
    config = workload(folder, within, sensitive=["district", "sex"], crosses=crosses)
    assert checked("--config", config) == 0
    told = capsys.readouterr().out
    assert "dp_gap by district given sex <= 0.3" in told
    few = {**within, "given": "sex", "threshold": 0.3}
    table["sex"] = ["f" if i % 50 else "m" for i in range(len(table["district"]))]
    (folder / "loans.csv").write_text(csv_text(table))
    config = workload(folder, few, sensitive=["district", "sex"], crosses=crosses)
    assert checked("--config", config) == 2
    assert "north in m" in capsys.readouterr().err


def test_a_group_of_one_value_is_refused(folder, capsys):
    table = rows()
    table["district"] = ["north"] * len(table["district"])
    (folder / "loans.csv").write_text(csv_text(table))
    assert checked("--config", workload(folder)) == 2
    assert "'district'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["c.yaml"],
        ["--data", "d"],
        ["c.yaml", "--data", "d", "--config", "my.yaml"],
        ["c.yaml", "--data", "d", "--set", "data.seed=1"],
        ["c.yaml", "--data", "d", "--store", "s3://b"],
    ],
)
def test_rows_come_from_one_place_and_a_constitution_from_one(arguments, capsys):
    assert checked(*arguments) == 2
    assert "Error: " in capsys.readouterr().err


def test_draws_and_seed_are_the_configs_unless_given(folder, capsys):
    config = workload(folder)
    assert checked("--config", config, "--draws", "0") == 2
    assert "search.power_draws is 0, expected a value > 0" in capsys.readouterr().err
    said = []
    for seed in ([], ["--seed", "0"], ["--set", "search.seed=7"], ["--seed", "7"]):
        assert checked("--config", config, *seed) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2] == said[3]


def test_the_check_warns_of_promises_that_promise_nothing(folder, capsys) -> None:
    empty = {**FAIR, "metric": "fpr_gap", "threshold": 1}
    assert checked("--config", workload(folder, FAIR, empty)) == 0
    said = capsys.readouterr().out
    assert (
        "Warning: p1 cannot be violated by any model (fpr_gap by district <= 1): it "
        "promises nothing." in said
    )
    assert "(hard)): promises nothing, as no model can violate it" in said
    assert checked("--config", workload(folder, {**FAIR, "tier": "soft"})) == 0
    said = capsys.readouterr().out
    assert "so that no model passes by itself" in said
    # Neither odds of no promise, nor the warning a second time.
    assert "jointly" not in said
    assert said.count("No hard principle") == 1


def test_a_run_says_once_what_its_constitution_promises_in_vain(folder, capsys):
    config = workload(folder, {**FAIR, "threshold": 1}, source="absent.csv")
    store = ["--store", f"file://{folder}/store"]
    assert run_command(["run", "--config", config, *store]) == 2
    said = capsys.readouterr().err
    assert said.count("Warning: p0 cannot be violated by any model") == 1
    assert said.count("so that no model passes by itself") == 1
    raw = yaml.safe_load(Path(config).read_text())
    raw["constitution"]["gate"] = {"planned_submissions": 2}
    Path(config).write_text(yaml.safe_dump(raw))
    assert run_command(["run", "--config", config, *store]) == 2
    assert capsys.readouterr().err.count("gate.planned_submissions is 2") == 1
