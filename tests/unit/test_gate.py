"""The gate: every road to pass, needs_human and fail."""

from __future__ import annotations

from dataclasses import replace

import pytest
from promises import TWIN, constitution

from safescale_ammt.errors import InputError
from safescale_ammt.judging.findings import Finding
from safescale_ammt.judging.gate import decide

GAP = {"metric": "tpr_gap", "group": "sex", "threshold": 0.08}
USEFUL = {"metric": "accuracy", **TWIN, "floor": 0.84}
SOFT = {"metric": "dp_gap", "group": "sex", "threshold": 0.1, "tier": "soft"}
RULES = constitution(GAP, USEFUL, SOFT)


def finding(rules, index: int, outcome: str, p: float = 1.0, value=None) -> Finding:
    """A finding that matches principle `index` of these rules."""
    principle = rules.principles[index]
    c = principle.constraint
    line = c.threshold if c.reference is None else c.delta
    return Finding(
        principle=principle.id,
        metric=c.metric,
        group=c.group,
        tier=c.tier,
        op=c.op,
        threshold=line,
        value=line if value is None else value,
        lower=0.0,
        upper=1.0,
        alpha=rules.gate.alpha_k,
        outcome=outcome,
        p_violated=p,
        method="none",
        reason=f"it {outcome}.",
        reference=c.reference,
        floor=None if c.reference is None else c.floor,
    )


def findings(*outcomes: str) -> list[Finding]:
    chance = {"holds": 1.0, "fails": 1e-6, "undecided": 0.5}
    return [finding(RULES, i, o, chance[o]) for i, o in enumerate(outcomes)]


def test_all_hard_principles_held_is_a_pass() -> None:
    decision = decide(RULES, findings("holds", "holds", "holds"), guarantee="holds")
    assert decision.decision == "pass"
    assert decision.reasons == ("Every hard principle is shown to hold.",)


def test_one_undecided_hard_principle_needs_a_person() -> None:
    found = findings("undecided", "holds", "holds")
    decision = decide(RULES, found, guarantee="holds")
    assert decision.decision == "needs_human"
    assert decision.undecided == ("p0",)
    assert decision.reasons == ("p0 is undecided: it undecided.",)


def test_a_violation_that_survives_holm_fails() -> None:
    decision = decide(RULES, findings("holds", "fails", "holds"), guarantee="holds")
    assert decision.decision == "fail"
    assert decision.failed == ("p1",)
    assert decision.p_violated == {"p0": 1.0, "p1": pytest.approx(2e-6)}


def test_a_violation_that_does_not_survive_holm_needs_a_person() -> None:
    found = findings("holds", "holds", "holds")
    found[0] = finding(RULES, 0, "fails", 0.04)
    decision = decide(RULES, found, guarantee="holds")
    assert decision.decision == "needs_human"
    assert "not after Holm's correction" in decision.reasons[0]


def test_holm_lets_a_second_violation_follow_a_certain_first_one() -> None:
    found = findings("holds", "holds", "holds")
    found[0], found[1] = (
        finding(RULES, 0, "fails", 0.001),
        finding(RULES, 1, "fails", 0.04),
    )
    assert decide(RULES, found, guarantee="holds").failed == ("p0", "p1")


def test_soft_principles_are_listed_and_never_decide() -> None:
    for outcome in ("fails", "undecided"):
        found = findings("holds", "holds", outcome)
        decision = decide(RULES, found, guarantee="holds")
        assert decision.decision == "pass"
        assert decision.soft == ("p2",)
        assert f"p2 (soft, {outcome}): it {outcome}." in decision.reasons


def test_a_spent_guarantee_is_at_best_a_persons_to_decide() -> None:
    held = decide(RULES, findings("holds", "holds", "holds"), guarantee="spent")
    assert held.decision == "needs_human"
    assert "readable before" in held.reasons[0]
    broken = decide(RULES, findings("fails", "holds", "holds"), guarantee="spent")
    assert broken.decision == "fail"


def test_a_rehearsal_says_that_it_binds_nobody() -> None:
    decision = decide(RULES, findings("holds", "holds", "holds"), guarantee="none")
    assert decision.decision == "pass"
    assert "rehearsal" in decision.reasons[1]


def test_any_problem_with_the_evidence_fails() -> None:
    decision = decide(
        RULES,
        findings("holds", "holds", "holds"),
        guarantee="holds",
        problems=["evidence.parquet is missing."],
    )
    assert decision.decision == "fail"
    assert decision.reasons[0] == "evidence.parquet is missing."


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"threshold": 0.2}, "has threshold 0.2, the constitution says 0.08"),
        ({"tier": "soft"}, "has tier 'soft', the constitution says 'hard'"),
        ({"alpha": 0.2}, "judged at level 0.2, the constitution allows 0.05"),
        ({"principle": "p9"}, "'p9', no principle of constitution"),
        ({"principle": "p1"}, "2 findings on p1, expected one"),
    ],
)
def test_a_finding_about_another_promise_fails(change, sentence) -> None:
    found = findings("holds", "holds", "holds")
    found[0] = replace(found[0], **change)
    decision = decide(RULES, found, guarantee="holds")
    assert decision.decision == "fail"
    assert any(sentence in reason for reason in decision.reasons)


def test_a_missing_hard_finding_fails_and_a_missing_soft_one_does_not() -> None:
    found = findings("holds", "holds", "holds")
    decision = decide(RULES, found[1:], guarantee="holds")
    assert decision.decision == "fail"
    assert "no finding on p0: evidence is missing" in decision.reasons[0]
    assert decide(RULES, found[:2], guarantee="holds").decision == "pass"


def test_an_inviolable_principle_allows_no_breach_however_uncertain() -> None:
    rules = constitution({**GAP, "tier": "inviolable"})
    breach = finding(rules, 0, "undecided", 0.4, value=0.0801)
    decision = decide(rules, [breach], guarantee="holds")
    assert decision.decision == "fail"
    assert "inviolable and breached" in decision.reasons[0]
    open_ = finding(rules, 0, "undecided", 0.6, value=0.07)
    assert decide(rules, [open_], guarantee="holds").decision == "needs_human"


def test_planned_submissions_divide_the_level() -> None:
    rules = constitution(GAP, planned_submissions=5)
    assert finding(rules, 0, "holds").alpha == pytest.approx(0.01)
    broken = finding(rules, 0, "undecided", 0.02)
    assert decide(rules, [broken], guarantee="holds").decision == "needs_human"


def test_soft_principles_cannot_stop_a_model() -> None:
    found = findings("holds", "holds", "fails")
    assert decide(RULES, found, guarantee="holds").decision == "pass"


def test_an_unknown_guarantee_is_refused() -> None:
    with pytest.raises(InputError, match="Unknown guarantee 'maybe', expected one of"):
        decide(RULES, [], guarantee="maybe")


def test_a_decision_has_a_json_form() -> None:
    form = decide(RULES, findings("fails", "holds", "fails"), guarantee="holds")
    assert form.to_dict() == {
        "decision": "fail",
        "reasons": ["p0 is violated: it fails.", "p2 (soft, fails): it fails."],
        "failed": ["p0"],
        "undecided": [],
        "soft": ["p2"],
        "p_violated": {"p0": 2e-6, "p1": 1.0},
    }
