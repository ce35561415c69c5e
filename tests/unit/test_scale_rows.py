"""The benchmark of many rows: its datasets are whole, its goals are what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import scale_rows
from benchmarks.scale_rows import result, searched, write_dataset
from safescale_ammt.data.coding import width
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.files.artifacts import read_manifest


def test_a_written_dataset_is_one_of_the_library_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale_rows, "GROUP_ROWS", 100)
    write_dataset(tmp_path / "d", 500)
    dataset = Dataset.load(tmp_path / "d")
    assert {name: dataset.rows(name) for name in dataset.splits} == {
        **dict.fromkeys(dataset.splits, 50),
        "train": 300,
    }
    assert pq.read_metadata(tmp_path / "d" / "train.parquet").num_row_groups == 3
    train = dataset.splits["train"]
    counted = dataset.counts.table("train", "sex")[1]
    np.testing.assert_array_equal(counted, np.bincount(train.groups["sex"]))
    assert width(dataset.schema) > 100
    parents = read_manifest(searched(tmp_path, tmp_path / "d")).parents
    assert parents["dataset"] == dataset.identity


@pytest.mark.parametrize(("rss", "ratio"), [(100, 0.1), (400, 0.4)])
def test_the_goals_are_the_greatest_memory_and_its_share_of_before(
    rss: int, ratio: float
) -> None:
    at: dict[str, Any] = {"rows": 5_000_000, "stage": "train", "cpu_s": 1.0}
    found = [
        {**at, "code": "before", "rss": 1000},
        {**at, "code": "now", "rss": rss},
        {**at, "stage": "search", "code": "now", "rss": 50},
        {**at, "stage": "search", "code": "before", "exit": -9, "said": "killed"},
    ]
    most, share = result(found, "python -m benchmarks scale-rows", "b82994b")["goals"]
    assert (most["value"], share["value"]) == (rss, ratio)


def test_a_stage_that_died_meets_no_goal() -> None:
    died = {"rows": 50, "stage": "train", "code": "now", "exit": 1, "said": "no room"}
    (most,) = result([died], "", "b82994b")["goals"]
    assert most["value"] > most["goal"]
