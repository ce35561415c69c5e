"""From a table to a decision: which models are no better than one answer for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pytest
from laptop import WORKLOAD

from safescale_ammt.files.canonical import read_json
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.stages import (
    evaluate_safety,
    search_architecture,
    train_agents,
)

GAP = {"metric": "fpr_gap", "group": "sex", "threshold": 0.2}
ACCURATE = {"metric": "accuracy", "threshold": 0.4}


def write_table(path: Path, rows: int, base: float, signal: float, **rest: Any) -> None:
    """Writes a label of this base rate, two numbers, and a sex.

    Of a sex with `weaker` the first number says only that share of the signal, and the
    second says the sex; a sex that is `never` positive has no positive.
    """
    rng = np.random.default_rng(rest.get("seed", 11))
    sex, label = rng.choice(["F", "M"], rows), rng.random(rows) < base
    label &= sex != rest.get("never")
    share = np.where(sex == "F", rest.get("weaker", 1.0), 1.0)
    numbers = rng.normal(size=(2, rows))
    numbers[0] += signal * share * (label - 0.5)
    numbers[1] += 4 * (sex == "F") * ("weaker" in rest)
    lines = ["sex,a,b,granted"]
    for s, a, b, y in zip(sex, *numbers, label, strict=True):
        lines.append(f"{s},{a:.4f},{b:.4f},{'yes' if y else 'no'}")
    path.write_text("\n".join(lines) + "\n")


def judged(
    folder: Path, *constraints: dict[str, Any], gate: Any = None, **training: Any
) -> tuple[Verdict, dict[str, Any], dict[str, Any]]:
    """Takes the table in a folder to its verdict; returns what the stages show too."""
    listed = [{"id": c["metric"], "constraint": c} for c in constraints]
    rule = {
        "schema": 1,
        "principles": listed,
        "groups": {"min_n": 50, "min_pos": 20},
        "gate": {"on_uncertifiable": "human", **(gate or {})},
    }
    places = [folder / n for n in ("dataset", "holdout", "architecture", "model")]
    dataset, holdout, architecture, model = places
    splits = dict.fromkeys(("validation", "constraint", "monitor"), 0.07)
    data = {
        "source": (folder / "table.csv").as_uri(),
        "label": "granted",
        "positive": "yes",
        "sensitive": ["sex"],
        "splits": {"train": 0.39, **splits, "select": 0.1, "sealed": 0.3},
    }
    preparing.run(data, dataset, holdout)
    section = {**WORKLOAD["training"], "steps": 300, "learning_rate": 0.01, **training}
    search_architecture.run(dataset, rule, WORKLOAD["search"], section, architecture)
    trained = train_agents.run(dataset, architecture, rule, section, model)
    environ = {"SAFESCALE_STORE": (folder / "store").as_uri()}
    shown = evaluate_safety.run(*places, rule, {}, folder / "verdict", environ=environ)
    return Verdict.load(folder / "verdict"), shown, trained


@pytest.mark.parametrize(("base", "line"), [(0.1, 0.8), (0.5, 0.4), (0.9, 0.8)])
def test_noise_is_at_best_a_persons_to_decide_at_any_base_rate(
    tmp_path: Path, base: float, line: float
) -> None:
    write_table(tmp_path / "table.csv", 5_000, base, signal=0.0)
    verdict, shown, _ = judged(tmp_path, GAP, {**ACCURATE, "threshold": line})
    assert verdict.decision == "needs_human"
    assert any("constant" in reason for reason in verdict.reasons)
    constant = verdict.figures["headlines"]["constant"]
    assert constant["accuracy"]["value"] == pytest.approx(max(base, 1 - base), abs=0.03)
    assert shown["metrics"]["constant_auc"] == 0.5
    assert "always *" in shown["markdown"]


def test_the_constitution_may_allow_a_constant_and_it_is_said(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", 5_000, 0.1, signal=0.0)
    verdict, _, _ = judged(
        tmp_path, GAP, {**ACCURATE, "threshold": 0.8}, gate={"allow_constant": True}
    )
    assert verdict.decision == "pass"
    assert verdict.reasons[-1].startswith("Allowed by gate.allow_constant: ")


def test_a_rare_class_passes_by_its_own_measures_with_a_threshold_of_its_own(
    tmp_path: Path,
) -> None:
    write_table(tmp_path / "table.csv", 9_000, 0.04, signal=2.5)
    balanced = {"metric": "balanced_accuracy", "threshold": 0.65}
    ranks = {"metric": "auc", "threshold": 0.75}
    rule = {"objective": "balanced_accuracy"}
    verdict, _, _ = judged(tmp_path, GAP, balanced, ranks, threshold=rule)
    assert verdict.decision == "pass"
    # Less accurate than "no" for everybody, and far more useful.
    figures = verdict.figures["headlines"]
    model, constant = figures["model"], figures["constant"]
    assert model["accuracy"]["value"] < constant["accuracy"]["value"]
    assert model["balanced_accuracy"] > 0.7
    threshold = read_json(tmp_path / "model" / "decision.json")["threshold"]
    assert threshold < 0.3


def test_a_gap_closed_by_one_answer_is_told_by_training_and_by_the_verdict(
    tmp_path: Path,
) -> None:
    write_table(tmp_path / "table.csv", 9_000, 0.89, signal=2.6, weaker=0.0, seed=12)
    gap = {**GAP, "threshold": 0.1}
    verdict, _, trained = judged(
        tmp_path, gap, {**ACCURATE, "threshold": 0.8}, steps=600, dual_ki=3.0
    )
    assert verdict.decision == "needs_human"
    told = "The gap of fpr_gap is closed by giving nearly everybody the same answer"
    assert any(reason.startswith(told) for reason in verdict.reasons)
    assert any(doubt.startswith(told) for doubt in trained["doubts"])


def test_a_group_without_positives_does_not_make_a_good_model_useless(
    tmp_path: Path,
) -> None:
    write_table(tmp_path / "table.csv", 5_000, 0.4, signal=3.0, never="F")
    verdict, _, trained = judged(tmp_path, GAP, {**ACCURATE, "threshold": 0.7})
    assert trained["doubts"] == []
    assert not any("constant" in reason for reason in verdict.reasons)


def test_a_tiny_sealed_set_does_not_make_a_good_model_useless(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", 600, 0.4, signal=4.0)
    recall = {"metric": "recall", "threshold": 0.6}
    verdict, _, _ = judged(tmp_path, recall, batch_size=32)
    assert verdict.decision == "pass"
