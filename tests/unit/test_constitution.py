"""The constitution: what is accepted, what is refused in which sentence, identity."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import (
    GAPS,
    JUDGED,
    LOSS_GAP,
    Principle,
)
from safescale_ammt.errors import ConstitutionError

KEY = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
FULL = """
schema: 1
constitution: {id: adult-income, version: 1.0.0, owner: risk-team}
principles:
  - id: equal-opportunity
    text: Qualified people get the positive outcome at similar rates.
    why: EU AI Act Art. 10 and 15
    constraint: {metric: tpr_gap, group: sex, op: "<=", threshold: 0.08, tier: hard}
    train: {enforce: true}
  - id: useful
    constraint: {metric: accuracy, op: ">=", reference: unconstrained_twin,
                 delta: -0.01, floor: 0.84, tier: hard}
  - id: calibrated
    constraint: {metric: calibration_error, threshold: 0.1, tier: soft}
gate: {alpha: 0.05, planned_submissions: 2, on_uncertifiable: human}
groups: {min_n: 100, min_pos: 20}
human:
  approvers: {alice: "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}
  quorum: 1
  expires_days: 7
"""

TPR = {"metric": "tpr_gap", "group": "sex", "threshold": 0.08}
ACCURACY = {"metric": "accuracy", "threshold": 0.8}


def full() -> dict[str, Any]:
    return copy.deepcopy(yaml.safe_load(FULL))


def of(*constraints: dict[str, Any], **top: Any) -> dict[str, Any]:
    """The shortest constitution file with these constraints."""
    listed = [{"id": f"p{i}", "constraint": c} for i, c in enumerate(constraints)]
    return {"schema": 1, "principles": listed, **top}


def refused(raw: Any) -> str:
    with pytest.raises(ConstitutionError) as caught:
        Constitution.from_dict(raw)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "false."))
    return sentence


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(FULL)
    found = Constitution.load(tmp_path / "c.yaml")
    assert (found.id, found.version, found.owner) == (
        "adult-income",
        "1.0.0",
        "risk-team",
    )
    assert [p.id for p in found.hard] == ["equal-opportunity", "useful"]
    assert [p.id for p in found.enforced] == ["equal-opportunity"]
    assert found.group_columns == ("sex",)
    assert found.gate.alpha_k == pytest.approx(0.025)
    assert found.groups.min_n == 100
    assert found.human.approvers == {"alice": KEY}
    assert found.principle("useful").constraint.floor == 0.84


def test_what_is_left_out_has_the_documented_defaults() -> None:
    found = Constitution.from_dict(of(TPR, ACCURACY))
    gap, accuracy = found.principles
    assert (gap.constraint.op, gap.constraint.tier, gap.enforce) == ("<=", "hard", True)
    assert (accuracy.constraint.op, accuracy.enforce) == (">=", False)
    assert (found.gate.alpha, found.gate.planned_submissions) == (0.05, 1)
    assert found.gate.on_uncertifiable == "refuse"
    assert (found.groups.min_n, found.groups.min_pos) == (200, 50)
    assert (found.human.quorum, found.human.expires_days) == (1, 30)
    assert found.human.never == ("failed_hard", "inviolable")


def test_feedback_is_in_the_digest_only_where_it_is_one_bit() -> None:
    plain = Constitution.from_dict(of(TPR))
    assert plain.gate.feedback == "figures"
    assert "feedback" not in plain.to_dict()["gate"]
    same = Constitution.from_dict({**of(TPR), "gate": {"feedback": "figures"}})
    assert same.digest == plain.digest
    bit = Constitution.from_dict({**of(TPR), "gate": {"feedback": "bit"}})
    assert bit.digest != plain.digest
    assert Constitution.from_dict(bit.to_dict()) == bit


def test_a_reference_without_delta_means_no_worse_than_the_twin() -> None:
    found = Constitution.from_dict(
        of({"metric": "accuracy", "reference": "unconstrained_twin"})
    )
    assert found.principles[0].constraint.delta == 0.0


def test_each_promise_is_said_in_one_line() -> None:
    gap, useful, soft = Constitution.from_dict(full()).principles
    assert gap.sentence() == "tpr_gap by sex <= 0.08 (hard)"
    assert (
        useful.sentence() == "accuracy >= unconstrained_twin -0.01 and >= 0.84 (hard)"
    )
    assert soft.sentence() == "calibration_error <= 0.1 (soft)"


def test_the_canonical_form_reads_back_as_itself() -> None:
    found = Constitution.from_dict(full())
    again = Constitution.from_dict(found.to_dict())
    assert again == found
    assert again.digest == found.digest


def test_defaults_spelled_out_do_not_change_the_digest() -> None:
    short = Constitution.from_dict(of(TPR))
    long = of({**TPR, "op": "<=", "tier": "hard"}, gate={"alpha": 0.05})
    assert Constitution.from_dict(long).digest == short.digest


def test_comments_and_key_order_do_not_change_the_digest(tmp_path: Path) -> None:
    reordered = dict(reversed(full().items()))
    (tmp_path / "c.yaml").write_text(
        "# a comment\n" + yaml.safe_dump(reordered, sort_keys=False)
    )
    expected = Constitution.from_dict(full()).digest
    assert Constitution.load(tmp_path / "c.yaml").digest == expected


def floats_for_ints(value: Any) -> Any:
    """What KFP makes of a dict parameter."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return float(value)
    if isinstance(value, dict):
        return {k: floats_for_ints(v) for k, v in value.items()}
    if isinstance(value, list):
        return [floats_for_ints(v) for v in value]
    return value


def test_the_digest_survives_what_kfp_does_to_numbers() -> None:
    found = Constitution.from_dict(full())
    carried = json.loads(json.dumps(floats_for_ints(found.to_dict())))
    assert Constitution.from_dict(carried).digest == found.digest


@given(
    st.sampled_from(GAPS),
    st.floats(0, 1, allow_nan=False),
    st.floats(0.001, 0.499),
    st.integers(1, 20),
)
def test_any_line_in_range_reads_back_with_its_digest(
    metric: str, threshold: float, alpha: float, planned: int
) -> None:
    raw = of(
        {"metric": metric, "group": "sex", "threshold": threshold},
        gate={"alpha": alpha, "planned_submissions": planned},
    )
    found = Constitution.from_dict(raw)
    again = Constitution.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.digest == found.digest
    assert again.gate.alpha_k == alpha / planned


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threshold", 0.081),
        ("group", "race"),
        ("metric", "fpr_gap"),
        ("tier", "inviolable"),
    ],
)
def test_each_part_of_a_promise_is_part_of_the_digest(key: str, value: Any) -> None:
    changed = Constitution.from_dict(of({**TPR, key: value}))
    assert changed.digest != Constitution.from_dict(of(TPR)).digest


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (None, "constitution file must be a mapping, found NoneType"),
        ([], "constitution file must be a mapping, found list"),
        ({"schema": 2}, "schema is 2, this version reads schema: 1"),
        ({}, "schema is None"),
        ({"schema": 1}, "needs a list of principles"),
        ({"schema": 1, "principles": []}, "needs a list of principles"),
        ({"schema": 1, "principles": "all"}, "needs a list of principles"),
        (of(TPR, tests={}), "Unknown key 'tests' in constitution file"),
        (of(TPR, constitution={"name": "x"}), "Unknown key 'name' in constitution"),
        (of(TPR, constitution={"version": 1.0}), "constitution.version must be text"),
        (of(TPR, constitution={"version": 1.0}), "found 1.0; put it in quotes"),
        (of(TPR, constitution={"id": True}), "found True; put it in quotes"),
        (of(TPR, constitution={"id": " "}), "constitution.id must be text"),
        (
            {"schema": 1, "principles": [{"id": "a"}]},
            "needs both id and constraint",
        ),
        ({"schema": 1, "principles": [3]}, r"principles[0] must be a mapping"),
        (
            {"schema": 1, "principles": [{"id": 4, "constraint": TPR}]},
            "principles[0].id must be text, found 4",
        ),
    ],
)
def test_a_malformed_file_is_one_clear_sentence(raw: Any, says: str) -> None:
    assert says in refused(raw)


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        ({"metric": "tpr"}, "metric is 'tpr', unknown; expected one of accuracy"),
        ({"metric": None}, "metric is None, unknown"),
        ({**TPR, "treshold": 1}, "Unknown key 'treshold' in p0.constraint"),
        ({**TPR, "op": ">="}, "a promise about tpr_gap reads '<='"),
        ({**ACCURACY, "op": "<="}, "a promise about accuracy reads '>='"),
        ({**TPR, "tier": "firm"}, "tier is 'firm', expected one of hard"),
        ({**TPR, "group": None}, "group must name a group for tpr_gap"),
        ({**TPR, "group": ""}, "group must name a group for tpr_gap"),
        ({**TPR, "group": ["sex"]}, "group must name a group for tpr_gap"),
        ({**ACCURACY, "group": "sex"}, "accuracy is judged over all rows"),
        ({"metric": "tpr_gap", "group": "sex"}, "needs a threshold"),
        ({**TPR, "threshold": "8 %"}, "threshold must be a number, found '8 %'"),
        ({**TPR, "threshold": True}, "threshold must be a number, found True"),
        ({**TPR, "threshold": float("nan")}, "threshold must be finite"),
        ({**TPR, "threshold": 8}, "threshold is 8, outside [0, 1]"),
        ({**TPR, "threshold": -0.1}, "threshold is -0.1, outside [0, 1]"),
        ({**TPR, "delta": -0.1}, "delta and floor need a reference"),
        ({**ACCURACY, "floor": 0.8}, "delta and floor need a reference"),
        ({**TPR, "reference": "unconstrained_twin"}, "only accuracy has a reference"),
        (
            {"metric": "accuracy", "reference": "champion"},
            "reference is 'champion' for accuracy",
        ),
        (
            {**ACCURACY, "reference": "unconstrained_twin"},
            "has both a threshold and a reference",
        ),
        (
            {"metric": "accuracy", "reference": "unconstrained_twin", "delta": 0.01},
            "delta is 0.01, outside [-1, 0]",
        ),
        (
            {"metric": "accuracy", "reference": "unconstrained_twin", "floor": 84},
            "floor is 84, outside [0, 1]",
        ),
        (
            {"metric": "calibration_error", "threshold": 0.1},
            "has no certified bound and can only be soft",
        ),
        ("tpr_gap <= 0.08", "p0.constraint must be a mapping, found str"),
    ],
)
def test_a_bad_constraint_is_one_clear_sentence(
    constraint: dict[str, Any], says: str
) -> None:
    assert says in refused(of(constraint))


def test_a_metric_without_an_evaluator_is_refused_by_name() -> None:
    sentence = refused(of({"metric": LOSS_GAP, "threshold": 0.7}))
    assert f"{LOSS_GAP} has no evaluator in this version" in sentence
    assert all(known in sentence for known in JUDGED)


def test_a_principle_without_surrogate_cannot_be_enforced() -> None:
    raw = of({"metric": "auc", "threshold": 0.8})
    raw["principles"][0]["train"] = {"enforce": True}
    assert "auc has no differentiable surrogate" in refused(raw)
    raw["principles"][0]["train"] = {"enforce": "maybe"}
    assert "train.enforce must be true or false, found 'maybe'" in refused(raw)
    raw["principles"][0]["train"] = {"weight": 3}
    assert "Unknown key 'weight' in p0.train" in refused(raw)


def test_a_gap_that_is_not_enforced_is_judged_only() -> None:
    raw = of(TPR)
    raw["principles"][0]["train"] = {"enforce": False}
    found = Constitution.from_dict(raw)
    assert found.enforced == ()
    assert len(found.hard) == 1


def test_two_principles_with_one_id_are_refused() -> None:
    raw = of(TPR, ACCURACY)
    raw["principles"][1]["id"] = "p0"
    assert "Two principles have the id 'p0'" in refused(raw)


def test_principles_that_contradict_each_other_are_refused_by_name() -> None:
    sentence = refused(of(TPR, {**TPR, "threshold": 0.05}))
    assert "'p0' and 'p1' contradict each other" in sentence
    assert "hard line for tpr_gap by sex" in sentence


def test_a_soft_line_beside_a_hard_one_is_no_contradiction() -> None:
    found = Constitution.from_dict(of(TPR, {**TPR, "threshold": 0.05, "tier": "soft"}))
    assert len(found.principles) == 2
    assert len(found.hard) == 1


def test_the_same_metric_over_two_groups_is_no_contradiction() -> None:
    found = Constitution.from_dict(of(TPR, {**TPR, "group": "race"}))
    assert found.group_columns == ("race", "sex")


@pytest.mark.parametrize(
    ("section", "value", "says"),
    [
        ("gate", {"alpha": 0}, "gate.alpha is 0.0, outside (0, 0.5)"),
        ("gate", {"alpha": 0.5}, "gate.alpha is 0.5, outside (0, 0.5)"),
        ("gate", {"alpha": "5 %"}, "gate.alpha must be a number"),
        ("gate", {"planned_submissions": 0}, "must be a whole number >= 1, found 0"),
        ("gate", {"planned_submissions": 1.5}, "must be a whole number >= 1"),
        ("gate", {"on_uncertifiable": "pass"}, "is 'pass', expected one of human"),
        ("gate", {"feedback": "bits"}, "is 'bits', expected one of bit"),
        ("gate", {"beta": 1}, "Unknown key 'beta' in gate"),
        ("gate", None, "gate must be a mapping, found NoneType"),
        ("groups", {"min_n": 0}, "groups.min_n must be a whole number >= 1"),
        ("groups", {"min_pos": 2.5}, "groups.min_pos must be a whole number >= 1"),
        ("human", {"approvers": ["alice"]}, "must map a name to 'ed25519:"),
        ("human", {"approvers": {"a": "rsa:x"}}, "is not 'ed25519:' and the base64"),
        ("human", {"approvers": {"a": KEY}, "quorum": 2}, "only 1 approvers"),
        ("human", {"approvers": {"a": KEY, "b": KEY}}, "one person is one vote"),
        ("human", {"may_override": ["all"]}, "expected one of soft"),
        ("human", {"never": "soft"}, "human.never is 'soft'"),
        ("human", {"expires_days": 0}, "human.expires_days must be a whole number"),
        ("human", {"expires_days": 36_501}, "human.expires_days is 36501, at most"),
    ],
)
def test_a_bad_rule_is_one_clear_sentence(section: str, value: Any, says: str) -> None:
    assert says in refused(of(TPR, **{section: value}))


def test_a_missing_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match=r"c\.yaml does not exist\."):
        Constitution.load(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    "content", [b"a: [1, 2", b"\xff\xfe\x00", b"a: !!python/object:os.system x"]
)
def test_a_file_that_is_not_plain_yaml_is_one_clear_sentence(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConstitutionError, match=r"c\.yaml is not YAML: ") as caught:
        Constitution.load(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)


def test_principles_are_immutable() -> None:
    principle = Constitution.from_dict(of(TPR)).principles[0]
    assert isinstance(principle, Principle)
    with pytest.raises(AttributeError):
        principle.id = "other"  # type: ignore[misc]
