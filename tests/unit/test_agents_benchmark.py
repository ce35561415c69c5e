"""The benchmark of agents: its sums, its re-splits, and a few steps of every method."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import agents, agents_promises, agents_rows
from benchmarks.agents_figures import (
    MERGED,
    corrected,
    goals,
    paired,
    said,
    summaries,
    tables,
    with_merges,
)
from benchmarks.agents_methods import compared, shards, skewed, swept
from benchmarks.agents_rows import HELD_OUT, Resplit, Table, bumps, table

BRIEF = replace(agents.config_of("wine", 0), steps=12, trunk_steps=4, warmup_steps=1)


def row(
    method: str, split: int, accuracy: float, held: float = 1.0, data: str = "wine"
) -> dict[str, Any]:
    head = {"part": "cost", "data": data, "split": split, "bayes": 0.1}
    spent = {"steps": 8, "cpu_s": 2.0, "test_to_train": 0.5, "members": 1}
    own = {"method": method, "accuracy": accuracy, "loss": 0.3, "held_loss": held}
    return {**head, **spent, **own}


def test_the_corrected_error_counts_what_re_splits_share() -> None:
    # Of two differences s = .02 / sqrt(2), t of one degree at 95 % is tan(.45 pi).
    mean, lower, upper = corrected([0.0, 0.02], test_to_train=0.5)
    reach = np.tan(0.45 * np.pi) * 0.02 / np.sqrt(2) * np.sqrt(1 / 2 + 0.5)
    assert mean == pytest.approx(0.01)
    assert (lower, upper) == pytest.approx((0.01 - reach, 0.01 + reach))
    assert corrected([0.01], 0.5)[1:] == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("lower", "upper", "word"),
    [
        (0.001, 0.01, "better"),
        (-0.002, 0.01, "no worse"),
        (-0.004, 0.01, "undecided"),
        (-0.01, -0.004, "worse"),
        (-0.002, -0.001, "worse, within the margin"),
    ],
)
def test_bounds_speak_at_the_margin(lower: float, upper: float, word: str) -> None:
    assert said(lower, upper) == word


def test_the_best_merge_is_what_the_held_rows_chose_and_not_the_tested_ones() -> None:
    raw = [row("soup", 0, 0.9, held=0.5), row("student", 0, 0.8, held=0.4)]
    raw.append(row("ensemble", 0, 0.99, held=0.1))
    best = with_merges(raw)[-1]
    assert (best["method"], best["chosen"], best["accuracy"]) == (
        MERGED,
        "student",
        0.8,
    )


def test_differences_are_of_the_same_re_split() -> None:
    raw = [row("single", s, 0.8 + s / 10) for s in range(3)]
    raw += [row("student", s, 0.81 + s / 10) for s in range(3)]
    found = {(r["one"], r["other"], r["data"]): r for r in paired(raw)}
    of_wine = found["student", "single", "wine"]
    assert of_wine["mean"] == pytest.approx(0.01)
    assert of_wine["lower"] == pytest.approx(0.01)
    assert of_wine["said"] == "better"
    # One data set is no mean of several.
    assert ("student", "single", "all") not in found
    raw += [row("single", s, 0.7 + s / 10, data="digits") for s in range(2)]
    raw += [row("student", s, 0.73 + s / 10, data="digits") for s in range(2)]
    found = {(r["one"], r["other"], r["data"]): r for r in paired(raw)}
    # Of the two re-splits that both data sets have.
    assert found["student", "single", "all"]["splits"] == 2
    held = [g for g in goals(raw) if "student minus single" in g["what"]]
    assert held[0]["value"] == pytest.approx(0.02)
    of_single = next(r for r in summaries(raw) if r["method"] == "single")
    assert of_single["excess_error"] == pytest.approx(0.0)
    assert "| student - single | wine | +1.00 " in tables(raw)


def test_no_row_is_both_trained_on_and_tested() -> None:
    split, data = Resplit.of("wine", 3), table("wine")
    names = ("train", "constraint", *HELD_OUT, "test")
    assert sum(len(split.splits[name]) for name in names) == len(data.y)
    rows = torch.cat([split.splits[name].x for name in names])  # type: ignore[misc]
    assert len(rows.unique(dim=0)) == len(data.y)
    shares = [
        float((split.splits[name].y == 1).double().mean()) for name in ("train", "test")
    ]
    assert shares[0] == pytest.approx(shares[1], abs=0.06)


def test_inputs_are_scaled_by_rows_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (200, 3)).astype(np.float32), np.arange(200) % 2
    monkeypatch.setattr(agents_rows, "table", lambda _: Table(x, y))
    split = Resplit.of("plain", 1)
    train = split.joined(("train", "constraint"), "").x
    assert isinstance(train, torch.Tensor)
    assert float(train.mean(0).abs().max()) < 1e-5
    test = split.test.x
    assert isinstance(test, torch.Tensor)
    assert float(test.mean(0).abs().max()) > 1e-3


def test_the_bayes_error_of_the_bumps_is_that_of_the_best_answer() -> None:
    made = bumps()
    assert made.bayes is not None
    again = bumps()
    assert (made.y == again.y).all()
    assert 0.05 < made.bayes < 0.3
    # No answer to these labels can be expected to err less; a constant errs more.
    assert min(made.y.mean(), 1 - made.y.mean()) > made.bayes


def test_shards_are_of_other_classes_and_of_all_rows() -> None:
    y = torch.arange(1200) % 6
    found = shards(y, 4, seed=1)
    assert sorted(torch.cat(found).tolist()) == list(range(1200))
    assert min(len(each) for each in found) >= 8
    counts = torch.stack(
        [torch.bincount(y[each.long()], minlength=6) for each in found]
    )
    shares = counts / counts.sum(1, keepdim=True)
    assert float(shares.max()) > 2 / 6


def test_agents_under_promises_are_held_against_one() -> None:
    def judged(k: int, split: str, decision: str) -> dict[str, Any]:
        row = {"agents": k, "merge": "auto", "split": split, "decision": decision}
        return row | {"accuracy": 0.8, "gap": -0.02, "upper": 0.07, "cpu_s": 3.0}

    raw = [judged(8, "0", "pass"), judged(8, "1", "pass")]
    raw += [judged(1, "0", "pass"), judged(1, "1", "needs_human")]
    rows = agents_promises.summary(raw)
    assert [row["pass"] for row in rows] == [1.0, 0.5]
    assert rows[0]["mean_abs_gap"] == pytest.approx(0.02)
    (goal,) = agents_promises.goals(rows)
    assert (goal["value"], goal["spread"]) == (0.5, [0.5, 1.0])
    assert "| 8 | auto | 2 | 1.00 |" in agents_promises.table(rows)


def test_every_method_takes_a_few_steps() -> None:
    split = Resplit.of("wine", 0)
    rows = {r["method"]: r for r in compared(split, BRIEF)}
    assert {"single", "best of k", "ensemble", "plain soup", "soup"} <= set(rows)
    assert {"student", "graduate", "relearnt", "heads"} <= set(rows)
    assert rows["student"]["accuracy"] != rows["single"]["accuracy"]
    # At each of two rates: a trunk of four steps and eight of each agent; its student.
    assert rows["soup"]["steps"] == 2 * (4 + 4 * 8)
    assert rows["student"]["steps"] == rows["soup"]["steps"] + 2 * 12
    assert rows["single"]["steps"] <= 2 * 4 * 12
    members = {name: r["members"] for name, r in rows.items()}
    assert members["ensemble"] == members["heads"] == 4
    assert members["student"] == members["best of k"] == 1


@pytest.mark.parametrize("run", [swept, skewed])
def test_agents_that_share_all_they_have_are_one(run: Any) -> None:
    split = Resplit.of("wine", 1)
    longer = replace(BRIEF, steps=40, learning_rate=0.02, ema=0.5)
    apart, one = (run(split, longer, alpha, 4) for alpha in (1.0, 0.0))
    del apart["cpu_s"], one["cpu_s"]
    assert apart != one
    # The last share is a few steps ago, and averages of weights lag behind.
    assert one["soup"] == pytest.approx(one["together"], abs=0.1)


def test_a_command_that_was_stopped_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agents, "KEPT", tmp_path / "agents.jsonl")
    monkeypatch.setattr(agents, "config_of", lambda _, seed: replace(BRIEF, seed=seed))
    words = ["--parts", "cost", "--data", "wine", "--splits"]
    agents.main([*words, "1"])
    first = (tmp_path / "agents.jsonl").read_text().splitlines()
    agents.main([*words, "2"])
    both = (tmp_path / "agents.jsonl").read_text().splitlines()
    assert both[: len(first)] == first
    assert len(both) == 2 * len(first)
    assert capsys.readouterr().err.count("cost wine 0") == 1
    altered = json.loads(first[0]) | {"of_code": "of another day"}
    (tmp_path / "agents.jsonl").write_text(json.dumps(altered) + "\n")
    with pytest.raises(SystemExit, match="rows of other code"):
        agents.main([*words, "1"])
