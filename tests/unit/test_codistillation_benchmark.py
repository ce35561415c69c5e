"""The benchmark of codistillation: nets are compared with their like, by held loss."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import codistillation as bench

NETS = ("linear soup", "mlp soup", "linear student", "mlp student")


def rows(split: int, taught: float) -> list[dict[str, Any]]:
    """Returns rows of one re-split; what was taught is better by so much."""
    found = []
    for way, (names, how) in bench.ways(["linear", "mlp"]).items():
        for net in (n for n in NETS if n.split()[0] in names):
            gain = taught if how.weight else 0.0
            accuracy = 0.8 + 0.01 * split + gain + 0.02 * net.startswith("mlp")
            found.append(
                {
                    "data": "breast_cancer",
                    "split": split,
                    "way": way,
                    "net": net,
                    "rate": 0.002,
                    "held_loss": 1 - accuracy,
                    "accuracy": accuracy,
                    "loss": 2 - accuracy,
                    "test_to_train": 0.25,
                    "cpu_s": 1.0,
                }
            )
    return found


def test_what_was_taught_is_held_against_its_like_and_the_best_against_the_best() -> (
    None
):
    raw = rows(0, 0.05) + rows(1, 0.07)
    found = {(row["one"], row["other"]): row for row in bench.paired(raw)}
    assert len(found) == 10
    for row in found.values():
        assert row["mean"] == pytest.approx(0.06)
        assert row["loss"] == pytest.approx(-0.06)
        assert row["lower"] < row["mean"] < row["upper"]
    assert ("mlp soup, both", "mlp soup, mlp alone") in found
    (goal,) = bench.goals(raw)
    assert goal["value"] < 0.06 < goal["spread"][1]
    assert bench.chosen(raw, "breast_cancer", 0, "alone")["net"].startswith("mlp")
    table = bench.tables(raw)
    assert "| breast_cancer | both | mlp soup | 0.8850 | 1.1150 | 1.0 |" in table


def test_each_way_is_trained_and_measured() -> None:
    found = list(bench.compared("breast_cancer", 0))
    assert len(found) == 4 + 2 * 4
    at = {(row["way"], row["net"]): row for row in found}
    assert {net for way, net in at if way == "both"} == set(NETS)
    assert all(0.8 < row["accuracy"] <= 1 for row in found)
    # Side by side without a word, each is what it is alone, but for its batches.
    silent, both = (at[way, "mlp soup"]["loss"] for way in ("both, silent", "both"))
    assert silent != both
