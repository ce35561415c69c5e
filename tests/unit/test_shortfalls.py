"""Why a verdict is no pass: which promise, its bound, its line, and what would help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safety_world import constitution, evidence, submission, write_verdict

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.files.canonical import digest_bytes, write_json
from safescale_ammt.judging.assembly import assemble
from safescale_ammt.judging.findings import (
    REFERENCE_NAMES,
    Finding,
    GroupRate,
    reason,
)
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.reporting.shortfalls import (
    help_for,
    rows_factor,
    shortfalls,
    shortfalls_in,
    shown,
)

MODEL = digest_bytes(b"model")


def verdict_of(
    rule: Constitution, rows: int = 700, gap: float = 0.0, **about: Any
) -> Verdict:
    return assemble(rule, evidence(rows, gap), submission(MODEL, **about), "sha256:e")


def finding(**changes: Any) -> Finding:
    """A gap of .05 under a promise of .1 that its bound of .15 does not show."""
    facts: dict[str, Any] = {
        "principle": "equal-opportunity",
        "metric": "tpr_gap",
        "group": "sex",
        "tier": "hard",
        "op": "<=",
        "threshold": 0.1,
        "value": 0.05,
        "lower": 0.0,
        "upper": 0.15,
        "alpha": 0.05,
        "outcome": "undecided",
        "p_violated": 0.9,
        "method": "m",
        "reason": "r",
    }
    return Finding(**{**facts, **changes})


def accuracy(rate: float, lower: float, upper: float) -> GroupRate:
    return GroupRate("model", "accuracy", 100, 0, 0, 100, rate, lower, upper)


def test_a_pass_has_nothing_to_explain() -> None:
    rule = constitution()
    assert shortfalls(verdict_of(rule), rule) == []


def test_a_broken_promise_is_named_with_bound_limit_and_what_would_help() -> None:
    rule = constitution()
    verdict = verdict_of(rule, gap=0.5)
    assert verdict.decision == "fail"
    f = next(f for f in verdict.findings if f.principle == "equal-opportunity")
    (told,) = (s for s in shortfalls(verdict, rule) if s.startswith("equal-opp"))
    assert f"gap by sex is {f.value:.4f}, at least {f.lower:.4f} with 95 %" in told
    assert "breaks the promised ≤ 0.2." in told
    assert "What would help: " in told


def test_what_is_told_of_a_promise_is_not_told_again_by_the_gate() -> None:
    rule = constitution()
    sentences = shortfalls(verdict_of(rule, gap=0.5), rule)
    assert len({s.partition(":")[0] for s in sentences}) == len(sentences)
    assert not [s for s in sentences if "race-parity" in s]  # it is soft


def test_an_undecided_promise_says_how_many_rows_would_decide_it() -> None:
    # (.15 - .05) / (.1 - .05) = 2 times as near, so 4 times the rows.
    assert rows_factor(finding()) == pytest.approx(4)
    verdict = verdict_of(constitution())
    sentence = help_for(finding(), verdict, constitution())
    assert "The measured value keeps the promise" in sentence
    assert "about 4 times as many sealed rows" in sentence
    assert "does not show the promised ≤ 0.1." in shown(finding())


def test_a_promise_of_at_least_is_weighed_the_same_way() -> None:
    ratio = finding(metric="dp_ratio", op=">=", threshold=0.8, value=0.9, lower=0.75)
    assert rows_factor(replace(ratio, upper=1.0)) == pytest.approx(2.25)
    assert "at least 0.7500" in shown(ratio)


def test_of_two_lines_the_one_that_needs_more_rows_counts() -> None:
    both = {
        "metric": "accuracy",
        "group": None,
        "op": ">=",
        "threshold": -0.01,
        "reference": "unconstrained_twin",
        "value": 0.0,
        "lower": -0.02,
    }
    rates = (accuracy(0.9, 0.87, 0.93), accuracy(0.9, 0.87, 0.93))
    f = finding(**both, floor=0.89, by_group=rates)
    assert rows_factor(f) == pytest.approx(9)
    assert "model's own is at least 0.8700" in shown(f)
    assert rows_factor(replace(f, floor=0.91)) is None


def test_nobody_is_sent_for_rows_that_would_not_help() -> None:
    verdict, rule = verdict_of(constitution()), constitution()
    beyond = help_for(finding(value=0.12), verdict, rule)
    assert beyond.startswith("The model itself misses the line")
    assert "rows." not in beyond
    near = help_for(finding(value=0.0999), verdict, rule)
    assert "rather than more rows" in near


def test_a_promise_that_training_does_not_work_on_is_told_so() -> None:
    relaxed = constitution()
    principles = [replace(p, enforce=False) for p in relaxed.principles]
    relaxed = replace(relaxed, principles=tuple(principles))
    broken = finding(value=0.3, lower=0.2, upper=0.4, outcome="fails")
    told = help_for(broken, verdict_of(constitution()), relaxed)
    assert "train: {enforce: true}" in told


@pytest.mark.parametrize(
    ("metric", "missing", "help_"),
    [
        (
            "precision",
            "rows that are answered positive",
            "a rule for training.threshold",
        ),
        ("recall", "rows of the positive class", "sealed rows of the classes"),
        ("auc", "rows of the positive class and others", "sealed rows of the classes"),
        ("balanced_accuracy", "rows of every class", "sealed rows of the classes"),
    ],
)
def test_what_was_not_measured_is_given_no_figure_and_no_vain_advice(
    metric: str, missing: str, help_: str
) -> None:
    none = finding(
        metric=metric,
        group=None,
        op=">=",
        value=None,
        lower=None,
        upper=None,
        method="none",
    )
    for tier in ("hard", "inviolable"):
        said = shown(replace(none, tier=tier))
        assert said.endswith(
            f"is not defined, as there are no {missing}, which does not show the "
            "promised ≥ 0.1."
        )
    rule = constitution()
    assert help_ in help_for(none, verdict_of(rule), rule)


def test_a_reference_has_one_name_in_every_sentence() -> None:
    for name, words in REFERENCE_NAMES.items():
        against = finding(
            metric="accuracy",
            group=None,
            op=">=",
            reference=name,
            threshold=0.0,
            lower=-0.1,
        )
        assert f"accuracy minus that of the {words} is" in shown(against)
        assert f"accuracy minus that of the {words} is" in reason(against)
        assert "_" not in shown(against)


def test_small_groups_are_named_with_the_rows_that_they_need() -> None:
    rule = constitution()
    few = finding(too_small=("Female",))
    told = help_for(few, verdict_of(rule), rule)
    assert shown(few).endswith("too few rows of sex Female.")
    assert f"at least {rule.groups.min_n} of each" in told
    assert "data.merges" in told


def test_a_small_group_does_not_hide_that_the_others_break_the_promise() -> None:
    broken = finding(too_small=("X",), outcome="fails", value=0.4, lower=0.3, upper=0.5)
    assert "at least 0.3000" in shown(broken)
    assert "breaks" in shown(broken)


def test_a_rehearsal_speaks_of_select_and_not_of_sealed_rows() -> None:
    rule = constitution(0.1)
    verdict = verdict_of(rule, mode="rehearsal", number=0, guarantee="none")
    told = " ".join(shortfalls(verdict, rule))
    assert "*select*" in told
    assert "This is a rehearsal" in told


def test_rows_that_were_open_before_are_a_reason_and_new_ones_the_help() -> None:
    rule = constitution()
    verdict = verdict_of(rule, number=2, guarantee="spent")
    caveat, remedy = shortfalls(verdict, rule)
    assert "readable before" in caveat
    assert "no run has judged yet" in remedy


def test_an_artifact_tells_the_same_as_its_verdict(tmp_path: Path) -> None:
    rule = constitution()
    verdict = write_verdict(
        tmp_path / "v", rule, evidence(gap=0.5), submission(MODEL), page=False
    )
    write_json(tmp_path / "v" / "constitution.json", rule.to_dict())
    assert shortfalls_in(tmp_path / "v") == shortfalls(verdict, rule)


def test_what_training_cannot_work_on_gets_no_advice_to_enforce_it() -> None:
    # The safety world's utility is a line that moves with the twin.
    rule = constitution()
    useful = finding(
        principle="useful",
        metric="accuracy",
        group=None,
        op=">=",
        threshold=-0.02,
        value=-0.1,
        lower=-0.12,
        upper=-0.08,
        outcome="fails",
        reference="unconstrained_twin",
    )
    told = help_for(useful, verdict_of(rule), rule)
    assert told.startswith("The model itself misses the line")
