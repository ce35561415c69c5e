"""A useless model is no champion: what a constant answer is told by."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from promises import constitution, evidence_of
from safety_world import constitution as promises
from safety_world import evidence, submission, write_verdict
from sklearn.metrics import log_loss

from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.errors import ConstitutionError
from safescale_ammt.judging.assembly import assemble, rederive
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.gate import decide
from safescale_ammt.judging.judge import judge
from safescale_ammt.judging.usefulness import (
    collapses,
    doubts,
    headline,
    headlines,
    nearly_one_class,
    no_skill,
    worse_than_constant,
)
from safescale_ammt.judging.verdict import REHEARSAL, Verdict
from safescale_ammt.releasing.card import summary, usefulness
from safescale_ammt.reporting.headline_table import headline_metrics, headline_rows
from safescale_ammt.reporting.report import render
from safescale_ammt.reporting.wording import decided

ACCURATE = {"metric": "accuracy", "threshold": 0.5}
GAP = {"metric": "fpr_gap", "group": "g", "threshold": 0.1}
NAMES = ("no", "yes")
RULES = constitution(ACCURATE)


def said(found: int, missed: int, alarms: int, rest: int) -> tuple[str, ...]:
    """Doubts about a model with these counts, where accuracy is promised."""
    return doubts(evidence_of([(found, missed, alarms, rest)]), RULES, NAMES)


@pytest.mark.parametrize("yes", [0, 1])
@pytest.mark.parametrize("positives", [30, 100, 500, 890])
def test_one_answer_for_every_row_is_doubted_whatever_the_base_rate(
    yes: int, positives: int
) -> None:
    n0 = 1_000 - positives
    cells = (positives, 0, n0, 0) if yes else (0, positives, 0, n0)
    first = said(*cells)[0]
    assert (
        first == f"The model answers {NAMES[yes]!r} to every row, as a constant does."
    )


def test_balanced_noise_is_doubted() -> None:
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        a, b = rng.binomial(200, 0.5, 2)
        wrong += not said(a, 200 - a, b, 200 - b)
    # At level .05 one in twenty is let through.
    assert wrong <= 20
    assert "balanced accuracy is 0.5000" in said(100, 100, 100, 100)[0]


def test_a_small_table_is_no_reason_to_doubt_a_good_model() -> None:
    assert said(18, 2, 3, 17) == ()
    assert said(6, 1, 1, 12) == ()
    # But so small a one shows nothing of a weak model.
    assert "not shown" in said(6, 4, 5, 5)[0]


def test_a_rare_class_is_judged_by_skill_where_accuracy_cannot_beat_the_constant() -> (
    None
):
    # 3 % positives of which 40 % are found: accuracy is that of "no", to a row.
    assert said(72, 108, 72, 5_748) == ()
    # Found in one of twenty: nearly one class, skill or not.
    nearly = said(9, 171, 3, 5_817)
    assert nearly[0].startswith("The model answers nearly one class: 'no' to 99.8%")
    assert "5.0% get another answer" in nearly[0]
    assert "right for 0.9700 of the rows" in nearly[1]


def test_accuracy_below_the_constant_counts_unless_another_use_is_promised() -> None:
    # A threshold for a rare class: accuracy .80, always "no" has .97.
    cells = (150, 30, 1_170, 4_650)
    assert "shown to be right more often" in said(*cells)[0]
    for other in ("balanced_accuracy", "recall", "precision", "auc"):
        rule = constitution(ACCURATE, {"metric": other, "threshold": 0.1})
        assert doubts(evidence_of([cells]), rule, NAMES) == ()
    soft = constitution({"metric": "auc", "threshold": 0.1, "tier": "soft"})
    assert doubts(evidence_of([cells]), soft, NAMES)


def test_a_group_without_positives_leaves_the_others_to_show_skill() -> None:
    rows = evidence_of([(60, 20, 30, 290), (0, 0, 20, 280)])
    assert doubts(rows, RULES, NAMES) == ()
    alone = evidence_of([(0, 0, 20, 280)])
    assert "all or none of the rows are" in doubts(alone, RULES, NAMES)[0]


def test_several_classes_show_skill_by_any_of_them() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 600)
    score = np.full(600, 0.5)
    names = ("a", "b", "c")
    # Knows class 2 and cannot tell 0 from 1.
    answer = np.where(label == 2, 2, rng.integers(0, 2, 600))
    rows = Evidence(label, answer, score, {}, classes=3, positive=None)
    assert doubts(rows, RULES, names) == ()
    blind = replace(rows, prediction=rng.integers(0, 3, 600))
    assert list(no_skill(blind, 0.05, names))
    always = replace(rows, prediction=np.full(600, 1))
    assert "'b' to every row" in doubts(always, RULES, names)[0]


def test_what_is_decided_is_said_as_it_is_where_every_promise_is_kept() -> None:
    rule = promises()
    kept = assemble(rule, evidence(700, 0.0), submission("sha256:m"), "sha256:e")
    assert decided(kept) == ("Pass", "Every hard promise is shown to be kept.")
    doubtful = replace(kept, decision="needs_human")
    short, sentence = decided(doubtful)
    assert short == "Needs a person"
    assert sentence.startswith("The figures keep every hard promise, but that alone")
    assert "not every one" not in render(doubtful, rule)
    findings = (replace(kept.findings[0], outcome="undecided"), *kept.findings[1:])
    assert "not every one" in decided(replace(doubtful, findings=findings))[1]
    # Nothing of a rehearsal stays pending, and nothing would have been registered.
    for decision in ("needs_human", "fail"):
        said = decided(replace(doubtful, decision=decision, mode=REHEARSAL))[1]
        assert "pending" not in said
        assert "registered" not in said


def test_of_several_classes_the_declared_one_is_named_where_it_shows_no_skill() -> None:
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 3, 600), np.full(600, 0.5)
    names = ("a", "b", "c")
    # Tells a from b, and answers c by a coin: balanced accuracy is far above 1/3.
    answer = np.where(rng.random(600) < 0.3, 2, np.minimum(label, 1))
    rows = Evidence(label, answer, score, {}, classes=3, positive=2)
    (said, _) = doubts(rows, RULES, names)
    assert "balanced accuracy" not in said
    assert re.search(r"'c' is its answer to \d+\.\d% of the rows of that class", said)
    # Two classes have rows, but not the one that counts.
    absent = replace(rows, label=np.minimum(label, 1))
    assert "all or none of the rows are 'c'" in doubts(absent, RULES, names)[0]


def collapsed() -> Evidence:
    """89 % positives; the twin's gap is .21, the model's .008 by nearly one answer."""
    rows = evidence_of([(443, 2, 53, 2), (444, 1, 53, 2)])
    twin = evidence_of([(430, 15, 20, 35), (430, 15, 32, 23)])
    return replace(
        rows, twin_prediction=twin.prediction, twin_score=twin.prediction.astype(float)
    )


def test_a_gap_that_is_closed_by_one_answer_is_told_in_those_words() -> None:
    rule = constitution(GAP, ACCURATE)
    enforced = replace(
        rule, principles=(replace(rule.principles[0], enforce=True), rule.principles[1])
    )
    told = doubts(collapsed(), enforced, NAMES)
    assert told[-1] == (
        "The gap of p0 is closed by giving nearly everybody the same answer: fpr_gap "
        "by g is 0.0000, the unconstrained twin's 0.2182, but other answers fell from "
        "8.8% to 0.7% of the rows."
    )
    # A gap that training did not work on was not closed by it.
    assert not list(collapses(collapsed(), rule))
    # A model as varied as its twin has not collapsed.
    twin = collapsed().twin_prediction
    assert twin is not None
    assert not list(collapses(replace(collapsed(), prediction=twin), enforced))


def test_the_gate_lets_no_constant_pass_unless_the_constitution_allows_it() -> None:
    told = ("It answers one class.",)
    decision = decide(RULES, [], guarantee="holds", doubts=told)
    assert decision.decision == "fail"  # findings are missing
    rule = constitution(ACCURATE)
    found = [judge(rule.principles[0], evidence(), GroupRule(), 0.05)]
    assert decide(rule, found, guarantee="holds").decision == "pass"
    held = decide(rule, found, guarantee="holds", doubts=told)
    assert (held.decision, held.reasons) == ("needs_human", told)
    allowing = constitution(ACCURATE, allow_constant=True)
    passed = decide(allowing, found, guarantee="holds", doubts=told)
    assert passed.decision == "pass"
    assert passed.reasons[-1] == f"Allowed by gate.allow_constant: {told[0]}"


def test_allow_constant_is_in_the_digest_only_where_it_is_used() -> None:
    plain = constitution(ACCURATE)
    assert "allow_constant" not in plain.to_dict()["gate"]
    assert constitution(ACCURATE, allow_constant=False).digest == plain.digest
    assert constitution(ACCURATE, allow_constant=True).digest != plain.digest
    with pytest.raises(ConstitutionError, match="allow_constant must be true or false"):
        constitution(ACCURATE, allow_constant="perhaps")


def test_the_constant_is_described_beside_model_and_twin() -> None:
    rows = evidence()
    figures = headlines(rows, (0.6, 0.4))
    constant = figures["constant"]
    negatives = float((rows.label == 0).mean())
    assert figures["answer"] == 0
    assert constant["accuracy"]["value"] == pytest.approx(negatives)
    assert (constant["auc"], constant["balanced_accuracy"]) == (0.5, 0.5)
    assert constant["predicted_positive"]["value"] == 0
    expected = log_loss(rows.label, np.full(len(rows.label), 0.4))
    assert constant["log_loss"] == pytest.approx(expected)
    model = figures["model"]
    assert model["log_loss"] == pytest.approx(log_loss(rows.label, rows.score))
    assert model["auc"] > 0.5


def test_figures_that_several_classes_do_not_have_are_absent() -> None:
    label = np.array([0, 1, 2] * 10)
    rows = Evidence(label, label, np.ones(30), {}, classes=3, positive=None)
    assert headline(rows)["auc"] is None
    assert headline(rows)["balanced_accuracy"] == 1


def test_a_verdict_holds_the_figures_and_they_are_derived_again(tmp_path: Any) -> None:
    rule = promises()
    verdict = write_verdict(tmp_path / "v", rule, evidence(), submission("m"))
    assert verdict.figures["headlines"]["constant"]["auc"] == 0.5
    assert rederive(tmp_path / "v", rule) == Verdict.load(tmp_path / "v")
    for page in (usefulness(verdict), summary(verdict, rule)):
        assert "balanced accuracy" in page
        assert "always *no*" in page
    assert headline_metrics(verdict)["constant_auc"] == 0.5
    # A verdict of before there were base rates has no such table.
    old = replace(submission("m"), base_rates=())
    before = write_verdict(tmp_path / "old", rule, evidence(), old)
    assert "base_rates" not in before.to_dict()
    assert usefulness(before) == ""
    assert headline_rows(before) == []
    assert rederive(tmp_path / "old", rule).decision == before.decision


def test_report_and_card_say_what_the_lines_are_drawn_from(tmp_path: Any) -> None:
    lines = [
        {"metric": "accuracy", "reference": "majority", "delta": 0.05, "floor": 0.6},
        {"metric": "auc", "threshold": 0.7},
        {"metric": "balanced_accuracy", "threshold": 0.7},
        {"metric": "precision", "threshold": 0.6},
        {"metric": "recall", "threshold": 0.6},
    ]
    rule = constitution(*lines)
    about = submission("m")
    verdict = write_verdict(tmp_path / "v", rule, evidence(), about, page=True)
    assert verdict.decision == "pass"
    page = (tmp_path / "v" / "report.html").read_text()
    for text in (page, summary(verdict, rule)):
        assert "≥ the best constant's + 0.05 and ≥ 0.6" in text.replace("&#x27;", "'")
        assert "AUC" in text
        assert "recall" in text
    assert "accuracy minus the best constant's" in page.replace("&#x27;", "'")
    # Model and constant stand side by side in the finding too.
    first = verdict.findings[0]
    assert [rate.value for rate in first.by_group] == ["model", "constant"]
    assert rederive(tmp_path / "v", rule) == Verdict.load(tmp_path / "v")


def test_evidence_that_is_broken_fails_and_is_not_likened_to_a_constant() -> None:
    rows = evidence()
    strange = np.where(np.arange(len(rows.label)) < 600, 7, rows.prediction)
    rows = replace(rows, prediction=strange)
    verdict = assemble(promises(), rows, submission("m"), "sha256:0")
    assert verdict.decision == "fail"
    assert "a class that does not exist" in verdict.reasons[0]


def test_a_verdict_about_one_answer_needs_a_person(tmp_path: Any) -> None:
    rule = promises(0.2)
    rows = evidence()
    no = np.zeros(len(rows.label), np.int64)
    rows = replace(rows, prediction=no, twin_prediction=no)
    verdict = write_verdict(tmp_path / "v", rule, rows, submission("m"))
    assert verdict.decision != "pass"
    assert any("as a constant does" in reason for reason in verdict.reasons)


def test_each_doubt_is_a_test_at_its_level() -> None:
    rows = evidence_of([(9, 171, 3, 5_817)])
    assert list(nearly_one_class(rows, 0.05, NAMES))
    assert not list(nearly_one_class(rows, 0.005, NAMES))
    close = evidence_of([(40, 60, 75, 825)])
    assert list(worse_than_constant(close, 0.2))
    assert not list(worse_than_constant(close, 0.001))
    assert list(no_skill(evidence_of([(12, 88, 70, 830)]), 0.05, NAMES))
