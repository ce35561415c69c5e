"""From raw rows to the power check: a small group spoils no promise about another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preparing import run
from promises import constitution

from safescale_ammt.data.dataset import Dataset
from safescale_ammt.files.canonical import read_json
from safescale_ammt.judging.power.check import power_check

SPLITS = {
    "train": 0.42,
    "validation": 0.07,
    "constraint": 0.07,
    "monitor": 0.07,
    "select": 0.07,
    "sealed": 0.3,
}


def prepared(folder: Path, **more: Any) -> tuple[Dataset, dict[str, Any]]:
    """10,000 rows, 17 of them without a gender."""
    rng = np.random.default_rng(0)
    lines = ["race,gender,x,y"]
    for i in range(10_000):
        race = rng.choice(["White", "Black", "Other"], p=[5 / 12, 4 / 12, 3 / 12])
        gender = "" if i % 600 == 0 else rng.choice(["F", "M"])
        x = rng.normal()
        says = "yes" if x + rng.normal() > 1.4 else "no"
        lines.append(f"{race},{gender},{x:.3f},{says}")
    folder.mkdir(exist_ok=True)
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    summary = run(
        {
            "source": f"file://{folder}/rows.csv",
            "format": "csv",
            "label": "y",
            "positive": "yes",
            "sensitive": ["race", "gender"],
            "splits": SPLITS,
            **more,
        },
        folder / "dataset",
        folder / "holdout",
    )
    return Dataset.load(folder / "dataset"), summary


def promise(group: str) -> dict[str, Any]:
    return {"metric": "fpr_gap", "group": group, "threshold": 0.15}


@pytest.mark.parametrize("crosses", [{}, {"both": ["race", "gender"]}])
def test_people_without_a_gender_hide_nothing_by_race(
    tmp_path: Path, crosses: dict[str, list[str]]
) -> None:
    dataset, summary = prepared(tmp_path, crosses=crosses)
    sealed = read_json(tmp_path / "dataset" / "counts.json")["splits"]["sealed"]
    cells = sealed["groups"]
    for cell in cells["race"].values():
        assert all(isinstance(n, int) for n in [cell["rows"], *cell["labels"].values()])
    assert cells["gender"]["(missing)"]["rows"] == "<10"
    told = {cells["gender"][v]["rows"] for v in "FM"}
    assert "hidden" in told
    assert "gender (missing)" in summary["withheld"]
    assert power_check(
        constitution(promise("race")), dataset.counts, draws=300
    ).certifiable


def test_a_promise_by_gender_is_refused_for_the_small_group_alone(
    tmp_path: Path,
) -> None:
    dataset, _ = prepared(tmp_path)
    found = power_check(constitution(promise("gender")), dataset.counts, draws=100)
    assert found.principles[0].too_small == ("(missing)",)
    assert "the sealed rows of gender (missing) are fewer" in found.sentence


def test_the_merge_that_the_refusal_proposes_does_certify(tmp_path: Path) -> None:
    merge = {"column": "gender", "values": {"F": "F", "(missing)": "M", "M": "M"}}
    dataset, _ = prepared(tmp_path, merges={"gender2": merge})
    found = power_check(constitution(promise("gender2")), dataset.counts, draws=300)
    assert found.certifiable


def test_without_small_groups_nothing_is_withheld(tmp_path: Path) -> None:
    dataset, summary = prepared(tmp_path, sensitive=["race"])
    assert "withheld" not in summary
    assert dataset.counts.to_dict()["schema"] == 1
