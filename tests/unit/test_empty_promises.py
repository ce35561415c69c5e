"""Promises that promise nothing are called so, from the check to the record."""

from __future__ import annotations

import numpy as np
import pytest
from promises import constitution, evidence_of
from safety_world import CLASSES, submission, write_model

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.corruptions import Corruptions
from safescale_ammt.constitution.image_threats import read_image_threat
from safescale_ammt.constitution.principles import (
    CERTIFIED,
    CORRUPTED,
    FLAGS,
    JUDGED,
    ROBUST,
)
from safescale_ammt.constitution.promise_warnings import (
    NOTHING,
    promise_warnings,
    shared_level,
)
from safescale_ammt.constitution.table_threats import read_table_threat
from safescale_ammt.data.counts import Counts
from safescale_ammt.judging.assembly import assemble
from safescale_ammt.judging.corrupting import words_of
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.power.check import power_check
from safescale_ammt.judging.usefulness import doubts
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing.card import write_card
from safescale_ammt.releasing.record import decision_statement, result_statement
from safescale_ammt.reporting.report import render
from safescale_ammt.reporting.shortfalls import shortfalls
from safescale_ammt.reporting.wording import MEANS, decided

REAL = {"metric": "accuracy", "threshold": 0.6}
AT_LEAST = (
    *("accuracy", "auc", "balanced_accuracy", "precision", "recall", "dp_ratio"),
    *(ROBUST, CERTIFIED, CORRUPTED),
)
# Raised checks are counted, and no line above 0 is accepted.
MEASURED = [metric for metric in JUDGED if metric != FLAGS]
BALL = {"norm": "linf", "eps": 0.1}
THREAT = {"changes": 1, "columns": {"age": {"by": 1, "step": 1}}}
GROUPED = (
    *("dp_gap", "tpr_gap", "fpr_gap", "eo_difference", "dp_ratio"),
    "worst_group_error",
)


def line(metric: str, threshold: float, tier: str = "hard") -> dict[str, object]:
    group = {"group": "g"} if metric in GROUPED else {}
    tier = "soft" if metric == "calibration_error" else tier
    threats = {ROBUST: {"threat": THREAT}, CERTIFIED: {"threat": BALL}}
    threat = threats.get(metric, {})
    return {"metric": metric, "threshold": threshold, "tier": tier, **group, **threat}


EMPTY = [line(m, 0.0 if m in AT_LEAST else 1.0) for m in MEASURED] + [
    {"metric": "accuracy", "reference": "unconstrained_twin", "delta": -1},
    {"metric": "accuracy", "reference": "unconstrained_twin", "delta": -1, "floor": 0},
    {"metric": "accuracy", "reference": "majority", "delta": -1},
]
FULL = [line(m, 0.001 if m in AT_LEAST else 0.999) for m in MEASURED] + [
    {"metric": "accuracy", "reference": "unconstrained_twin", "delta": -0.999},
    {
        "metric": "accuracy",
        "reference": "unconstrained_twin",
        "delta": -1,
        "floor": 0.1,
    },
    {"metric": "accuracy", "reference": "majority", "delta": -0.999},
]


def evidence() -> Evidence:
    rows = evidence_of([(90, 10, 10, 190), (180, 20, 10, 290)])
    score = np.where(rows.prediction == 1, 0.9, 0.1)
    # Under the attack, whose key is that of its changes, right answers stay so.
    outcomes = ("survived", "wrong as it is", "not drawn")
    proofs = ("certified", "wrong as it is", "not drawn", "not certified")
    wrong = (rows.prediction != rows.label).astype(int)
    return Evidence(
        *(rows.label, rows.prediction, score, rows.groups, rows.prediction, score),
        attacks={
            read_table_threat(THREAT, "threat").key: (outcomes, wrong),
            read_image_threat(BALL, "threat", proven=True).key: (proofs, wrong),
            Corruptions().key: (words_of(Corruptions()), wrong),
        },
    )


def judged(rules: Constitution, mode: str = "sealed") -> Verdict:
    guarantee = "holds" if mode == "sealed" else "none"
    about = submission("sha256:m", mode=mode, guarantee=guarantee)
    return assemble(rules, evidence(), about, "sha256:e")


@pytest.mark.parametrize("constraint", EMPTY)
def test_a_line_that_no_model_can_cross_promises_nothing(constraint) -> None:
    rules = constitution(constraint, groups={"min_n": 20, "min_pos": 10})
    verdict = judged(rules)
    (finding,) = verdict.findings
    assert (finding.outcome, finding.method) == ("holds", "none")
    assert finding.promises_nothing
    assert "nothing is promised" in finding.reason
    assert verdict.decision == "needs_human"
    assert NOTHING in verdict.reasons
    told = f"p0 cannot be violated by any model ({rules.principles[0].promise})"
    assert f"{told}: it promises nothing." in verdict.reasons
    assert promise_warnings(rules)[0].startswith(told)


@pytest.mark.parametrize("constraint", FULL)
def test_a_line_that_some_model_crosses_is_tested(constraint) -> None:
    rules = constitution(constraint, groups={"min_n": 20, "min_pos": 10})
    (finding,) = judged(rules).findings
    assert not finding.promises_nothing
    assert finding.method != "none"
    assert not [w for w in promise_warnings(rules) if "cannot be violated" in w]


@pytest.mark.parametrize("mode", ["sealed", "rehearsal"])
def test_soft_promises_alone_let_no_model_pass_by_itself(mode) -> None:
    rules = constitution({**REAL, "tier": "soft"})
    verdict = judged(rules, mode)
    assert verdict.decision == "needs_human"
    assert verdict.reasons[0] == NOTHING
    assert "nothing was tested" in decided(verdict)[1]
    page = render(verdict, rules)
    # The headline says it in its own words, and what no guarantee means is not listed.
    assert NOTHING not in page
    assert MEANS[0] not in page
    told = shortfalls(verdict, rules)
    assert "What would help: a hard promise that a model could break." in told
    assert "None: no hard promise is made that a model could break." in page


def test_a_pass_names_what_it_does_not_show(tmp_path) -> None:
    empty = line("tpr_gap", 1.0)
    rules = constitution(REAL, empty, groups={"min_n": 20, "min_pos": 10})
    verdict = judged(rules)
    said = (
        "p1 cannot be violated by any model (tpr_gap by g <= 1): it promises nothing."
    )
    assert verdict.decision == "pass"
    assert said in verdict.reasons
    assert "others promise nothing" in decided(verdict)[1]
    page = render(verdict, rules)
    assert "p1 cannot be violated by any model" in page
    schema = {"features": [], "label": "y", "classes": list(CLASSES)}
    card = write_card(verdict, "sha256:v", rules, schema, name="n", description="")
    assert "p1 cannot be violated by any model" in card
    model = write_model(tmp_path / "m", rules)
    stated = decision_statement(verdict, "sha256:v", rules, model)["predicate"]
    assert said in stated["reasons"]
    tests = result_statement(verdict, rules, model)["predicate"]
    assert (tests["passedTests"], tests["warnedTests"]) == (["p0"], ["p1"])


def test_planned_submissions_are_said_to_halve_the_level_for_nothing() -> None:
    (said,) = promise_warnings(constitution(REAL, planned_submissions=2))
    assert "gate.planned_submissions is 2" in said
    assert "at level 0.025 instead of 0.05" in said
    assert "buys nothing with gate.feedback: figures" in said
    assert promise_warnings(constitution(REAL)) == []


def test_with_one_bit_of_feedback_planned_submissions_are_worth_what_they_say() -> None:
    rules = constitution(REAL, planned_submissions=2, feedback="bit")
    assert promise_warnings(rules) == []
    said = shared_level(rules.gate)
    assert "at level 0.025 instead of 0.05" in said
    assert "all keep the guarantee, up to the first that passes" in said


def counts() -> Counts:
    split = {"rows": 4000, "groups": {}}
    names = ("train", "constraint", "sealed")
    return Counts.from_dict(
        {
            "schema": 1,
            "classes": ["no", "yes"],
            "positive": "yes",
            "splits": dict.fromkeys(names, split),
        }
    )


def test_the_power_check_says_the_level_that_planned_uses_share() -> None:
    report = power_check(constitution(REAL, planned_submissions=2), counts(), draws=200)
    assert report.alpha == 0.025
    assert "at level 0.025 (alpha 0.05 over 2 planned uses)" in report.sentence
    once = power_check(constitution(REAL), counts(), draws=200)
    assert "level" not in once.sentence


def test_the_power_check_calls_nothing_certified_where_nothing_is_promised() -> None:
    for constraint in ({**REAL, "tier": "soft"}, {**REAL, "threshold": 0}):
        report = power_check(constitution(constraint), counts(), draws=200)
        assert report.certifiable
        assert (report.spread.passes, report.spread.human) == (0.0, 1.0)
        assert report.sentence == NOTHING


def test_empty_promises_cost_the_others_no_power_and_lift_no_doubt() -> None:
    # 750 of 800 rows are right where .955 is promised: p is about .012.
    promise = {"metric": "accuracy", "threshold": 0.955}
    empty = [
        line(m, 0.0 if m in AT_LEAST else 1.0) for m in MEASURED if m != "accuracy"
    ]
    sizes = {"min_n": 20, "min_pos": 10}
    alone = judged(constitution(promise, groups=sizes))
    amid = judged(constitution(promise, *empty, groups=sizes))
    assert alone.findings[0].p_violated * 2 < 0.05 < alone.findings[0].p_violated * 11
    assert (alone.decision, amid.decision) == ("fail", "fail")
    odds = [
        power_check(constitution(promise, *more), counts(), draws=200).table[-1].fails
        for more in ([], [{"metric": "auc", "threshold": 0}])
    ]
    assert odds[0] == odds[1]
    # Nothing is asked of the AUC here, so that accuracy stays the measure of use.
    worse = evidence_of([(30, 60, 140, 570)])
    for rules in (constitution(REAL), constitution(REAL, line("auc", 0.0))):
        said = " ".join(doubts(worse, rules, CLASSES))
        assert "is shown to be right more often" in said
