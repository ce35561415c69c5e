"""The power check: known anchors, the gate's own code, and clear refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from promises import TWIN, adult_counts, constitution, counted, evidence_of

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.counts import Counts, LabelCounts, SplitCounts, Withheld
from safescale_ammt.errors import InputError, Uncertifiable
from safescale_ammt.judging.gate import decide
from safescale_ammt.judging.judge import judge
from safescale_ammt.judging.power.cases import Case, Goal, least_line, rows_needed
from safescale_ammt.judging.power.check import power_check, refuse_uncertifiable
from safescale_ammt.judging.power.laws import draw
from safescale_ammt.judging.power.sizes import principle_sizes

SMALL, HIDDEN = Withheld.SMALL, Withheld.HIDDEN
USEFUL = {"metric": "accuracy", **TWIN, "floor": 0.84}


def tpr(tau: float, **rest) -> dict:
    return {"metric": "tpr_gap", "group": "sex", "threshold": tau, **rest}


def small_counts(**sealed: tuple[int, int]) -> Counts:
    """Development rows 4 times the sealed ones."""
    four = {v: (4 * n, 4 * p) for v, (n, p) in sealed.items()}
    splits = {
        "train": counted(four, 0.8),
        "constraint": counted(four, 0.2),
        "sealed": counted(sealed),
    }
    return Counts(("no", "yes"), "yes", splits)


def case(rules: Constitution, counts: Counts, draws: int = 500) -> Case:
    first = rules.hard[0]
    return Case(
        first, principle_sizes(first.constraint, counts, rules.groups), 0, draws, 0
    )


@pytest.fixture(scope="module")
def adult():
    rules = constitution(tpr(0.08), USEFUL)
    return power_check(rules, adult_counts(), draws=1_000)


def test_the_adult_constitution_is_certifiable_as_measured(adult) -> None:
    fair, useful = adult.principles
    # Prototype on the same sizes: a perfect model passes .95, a cross-fitted one .91.
    assert fair.table[0].passes == pytest.approx(0.95, abs=0.02)
    assert adult.spread.passes == pytest.approx(0.88, abs=0.04)
    assert useful.table[0].passes > 0.99
    assert adult.certifiable
    assert adult.culprits == ()
    assert "the constitution is certifiable" in adult.sentence


def test_a_model_at_the_line_passes_with_probability_alpha(adult) -> None:
    at_line, above = adult.principles[0].table[3:]
    assert at_line.value == 0.08
    assert at_line.passes <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1_000)
    assert at_line.fails <= 0.05
    assert above.passes < 0.01
    assert above.fails > 0.2


def test_the_three_decisions_are_all_there_is(adult) -> None:
    for odds in (*adult.table, adult.spread):
        assert odds.passes + odds.human + odds.fails == pytest.approx(1)
    passes = [odds.passes for odds in adult.table]
    assert passes == sorted(passes, reverse=True)


def test_the_report_has_a_json_form_and_the_same_seed_the_same_figures(adult) -> None:
    form = json.loads(json.dumps(adult.to_dict(), allow_nan=False))
    assert form["schema"] == 1
    assert (
        form["principles"][0]["table"][0]["passes"]
        == adult.principles[0].table[0].passes
    )
    rules, counts = constitution(tpr(0.3)), small_counts(F=(400, 120), M=(500, 150))
    once = power_check(rules, counts, draws=300, seed=4)
    assert once == power_check(rules, counts, draws=300, seed=4)
    assert once != power_check(rules, counts, draws=300, seed=5)


def test_the_least_certifiable_gap_of_a_perfect_model_on_adult_is_as_measured() -> None:
    rules = constitution(tpr(0.08))
    perfect = Goal(0.8, 0.05, 0.0)
    found = least_line(case(rules, adult_counts(), draws=1_000), perfect)
    assert found == pytest.approx(0.063, abs=0.004)


def test_a_gap_of_two_points_is_refused_on_adult_with_both_numbers() -> None:
    rules = constitution(tpr(0.02), USEFUL)
    report = power_check(rules, adult_counts(), draws=500)
    assert not report.certifiable
    assert report.culprits == ("p0",)
    fair = report.principles[0]
    assert fair.least == pytest.approx(0.073, abs=0.004)
    assert fair.rows.everywhere
    assert 10 < fair.rows.factor < 17
    with pytest.raises(Uncertifiable) as refusal:
        refuse_uncertifiable(rules, report)
    sentence = str(refusal.value)
    assert (
        "p0 (tpr_gap by sex <= 0.02) alone would pass with probability 0.00" in sentence
    )
    assert f"the least certifiable line is {fair.least:g}" in sentence
    assert f"{fair.rows.factor:.1f} times the sealed rows (sex F: " in sentence
    assert "train and constraint growing alike" in sentence


def test_on_uncertifiable_human_goes_on() -> None:
    rules = constitution(tpr(0.01), on_uncertifiable="human")
    report = power_check(rules, small_counts(F=(400, 120), M=(500, 150)), draws=100)
    assert not report.certifiable
    refuse_uncertifiable(rules, report)


def test_the_remedies_do_certify() -> None:
    rules = constitution(tpr(0.1))
    one = case(rules, small_counts(F=(900, 150), M=(1_500, 400)))
    goal = Goal(0.8, 0.05)
    least = least_line(one, goal)
    loose = constitution(tpr(least)).hard[0].constraint
    tight = constitution(tpr(round(least - 0.01, 3))).hard[0].constraint
    assert one.enough(loose, one.sizes, goal, normal=False)
    assert not one.enough(tight, one.sizes, goal, normal=False)
    rows = rows_needed(one, goal)
    larger = one.sizes.larger(rows.factor, everywhere=rows.everywhere)
    assert one.enough(one.constraint, larger, goal, normal=False)
    assert rows.sealed["F"] == int(np.ceil(900 * rows.factor))
    impossible = constitution(tpr(0.0)).hard[0]
    nothing = Case(impossible, one.sizes, 0, 100, 0)
    assert rows_needed(nothing, goal) is None


def test_groups_too_small_are_named_and_merging_them_is_suggested() -> None:
    counts = small_counts(F=(900, 300), M=(1_500, 400), X=(60, 20), Y=(300, 8))
    rules = constitution(tpr(0.3))
    report = power_check(rules, counts, draws=200)
    assert report.principles[0].too_small == ("X", "Y")
    assert report.spread.passes == 0
    with pytest.raises(Uncertifiable, match=r"sex X, Y are fewer .* merge them"):
        refuse_uncertifiable(rules, report)


def test_hidden_cells_count_as_too_small() -> None:
    sealed = counted({"F": (900, 300), "M": (1_500, 400)})
    cells = dict(sealed.groups["sex"])
    cells["F"] = LabelCounts(900, (HIDDEN, HIDDEN))
    counts = small_counts(F=(900, 300), M=(1_500, 400))
    hidden = SplitCounts(sealed.rows, {"sex": cells})
    counts = Counts(
        counts.classes, counts.positive, {**counts.splits, "sealed": hidden}
    )
    assert power_check(constitution(tpr(0.3)), counts, draws=50).principles[
        0
    ].too_small == ("F",)


def hiding(cells: dict[str, tuple], **others: dict[str, tuple]) -> Counts:
    """Sealed counts {value: (rows, no, yes)}; development has plenty of each."""
    plenty = small_counts(**dict.fromkeys(cells, (2_000, 600)))
    groups = {
        name: {v: LabelCounts(n, (no, yes)) for v, (n, no, yes) in table.items()}
        for name, table in {"sex": cells, **others}.items()
    }
    sealed = SplitCounts(3_000, groups)
    return Counts(plenty.classes, plenty.positive, {**plenty.splits, "sealed": sealed})


def test_a_hidden_group_is_judged_by_the_least_that_it_can_be() -> None:
    cells = {"F": (1_500, 900, 600), "M": (HIDDEN,) * 3, "X": (SMALL,) * 3}
    race = {"a": (1_400, 900, 500), "b": (1_600, 890, 710)}
    rules = constitution({"metric": "fpr_gap", "group": "sex", "threshold": 0.3})
    sizes = principle_sizes(
        rules.hard[0].constraint, hiding(cells, race=race), rules.groups
    )
    # 1,790 negatives in all, 900 of F and at most 9 of X; never rows less positives.
    assert sizes.trials.tolist() == [[900, 881, 0]]
    assert sizes.group_rows.tolist() == [1_500, 1_491, 0]
    assert sizes.small.tolist() == [False, False, True]
    assert sizes.hidden == ()


def test_hidden_positives_do_not_count_as_negatives() -> None:
    cells = {"F": (1_500, 900, 600), "M": (1_500, HIDDEN, HIDDEN)}
    rules = constitution({"metric": "fpr_gap", "group": "sex", "threshold": 0.3})
    sizes = principle_sizes(rules.hard[0].constraint, hiding(cells), rules.groups)
    assert sizes.trials.tolist() == [[900, 0]]


def test_the_refusal_names_the_small_group_and_not_the_hidden_one_alone() -> None:
    cells = {"F": (HIDDEN,) * 3, "M": (HIDDEN,) * 3, "X": (SMALL,) * 3}
    report = power_check(constitution(tpr(0.3)), hiding(cells), draws=50)
    assert report.principles[0].too_small == ("F", "M", "X")
    assert report.principles[0].hidden == ("F", "M")
    assert "the sealed rows of sex X are fewer" in report.sentence
    assert (
        "the counts of F, M are hidden, so that the rows of sex X (under 10 in all or "
        "in a class) cannot be computed from them: merge these by data.merges"
    ) in report.sentence
    assert report.to_dict()["principles"][0]["beside"] == ("sex X",)


def test_a_group_of_few_rows_is_small_even_if_its_classes_are_hidden() -> None:
    cells = {"F": (2_900, 1_900, 1_000), "M": (93, HIDDEN, HIDDEN), "X": (SMALL,) * 3}
    report = power_check(constitution(tpr(0.3)), hiding(cells), draws=50)
    assert report.principles[0].hidden == ()
    assert "the sealed rows of sex M, X are fewer" in report.sentence
    assert "hidden" not in report.sentence


def test_the_refusal_names_the_column_whose_small_group_hides_another() -> None:
    cells = {"F": (1_500, HIDDEN, HIDDEN), "M": (1_500, 900, 600)}
    report = power_check(
        constitution(tpr(0.3)),
        hiding(cells, origin={"isle": (SMALL,) * 3, "land": (HIDDEN,) * 3}),
        draws=50,
    )
    assert "cannot be certified, because the counts of F are hidden" in report.sentence
    assert "the rows of origin isle (under 10" in report.sentence
    assert "take their column out of data.sensitive" in report.sentence
    assert "can never pass" not in report.sentence


def test_five_groups_and_many_principles_are_checked_together() -> None:
    sizes = dict.fromkeys("ABCDE", (1_200, 500))
    group = {"group": "sex"}
    rules = constitution(
        {"metric": "eo_difference", "threshold": 0.4, **group},
        {"metric": "dp_ratio", "threshold": 0.5, **group},
        {"metric": "dp_gap", "threshold": 0.3, "tier": "inviolable", **group},
        {"metric": "worst_group_error", "threshold": 0.3, **group},
        {"metric": "accuracy", "threshold": 0.8},
        {"metric": "fpr_gap", "threshold": 0.2, "tier": "soft", **group},
    )
    report = power_check(rules, small_counts(**sizes), draws=50)
    assert [p.principle for p in report.principles] == ["p0", "p1", "p2", "p3", "p4"]
    assert report.certifiable
    beyond = report.principles[2].table[4]
    assert beyond.fails > 0.95  # an inviolable principle fails by its point value
    assert report.principles[1].table[3].value == pytest.approx(0.5)


def test_several_classes_are_drawn_class_by_class() -> None:
    cells = {v: LabelCounts(3_000, (1_000, 1_200, 800)) for v in "FM"}
    split = SplitCounts(6_000, {"sex": cells})
    names = ("train", "constraint", "sealed")
    counts = Counts(("x", "y", "z"), "", dict.fromkeys(names, split))
    constraint = constitution(tpr(0.2)).hard[0].constraint
    sizes = principle_sizes(constraint, counts, RULE)
    assert sizes.kinds == tuple(f"tpr of class {c}" for c in range(3))
    assert sizes.trials.tolist() == [[1_000] * 2, [1_200] * 2, [800] * 2]
    hits = draw(constraint, sizes, 0.5, 20, np.random.default_rng(0))
    assert [r.hits.shape for r in hits.rates] == [(20, 2)] * 3
    assert power_check(constitution(tpr(0.2)), counts, draws=50).certifiable


RULE = constitution(tpr(0.2)).groups


def test_the_gate_decides_drawn_evidence_as_the_power_check_counts_it() -> None:
    rules = constitution(tpr(0.25), groups={"min_n": 20, "min_pos": 10})
    one = case(rules, small_counts(F=(150, 60), M=(400, 200)), draws=5)
    kept, broken = one.decisions(rules.gate.alpha_k, 1)
    for law, scale in ((2, 0.5), (4, 1.5)):
        hits = one.sample(one.constraint, one.sizes, scale).rates[0].hits
        for i, (f, m) in enumerate(hits):
            cells = [(int(f), 60 - int(f), 10, 80), (int(m), 200 - int(m), 20, 180)]
            evidence = evidence_of(cells)
            evidence = type(evidence)(
                evidence.label,
                evidence.prediction,
                evidence.score,
                {"sex": (("F", "M"), evidence.groups["g"][1])},
            )
            found = judge(rules.hard[0], evidence, rules.groups, rules.gate.alpha_k)
            decision = decide(rules, [found], guarantee="holds").decision
            assert (decision == "pass") == kept[law, i]
            assert (decision == "fail") == broken[law, i]


def test_accuracy_lines_are_checked_without_groups() -> None:
    counts = small_counts(F=(2_000, 500), M=(2_000, 500))
    twin = power_check(constitution({"metric": "accuracy", **TWIN}), counts, draws=300)
    assert twin.principles[0].table[3].value == pytest.approx(0.01)
    assert twin.principles[0].table[3].passes < 0.1
    narrow = constitution(
        {"metric": "accuracy", "reference": "unconstrained_twin", "delta": -0.001}
    )
    report = power_check(narrow, counts, draws=300)
    assert not report.certifiable
    assert report.principles[0].least < -0.004
    assert set(report.principles[0].rows.sealed) == {"all"}
    absolute = power_check(
        constitution({"metric": "accuracy", "threshold": 0.99}),
        small_counts(F=(300, 60), M=(300, 60)),
        draws=300,
    )
    assert absolute.principles[0].least < 0.99


def test_counts_without_the_promised_group_are_one_clear_sentence() -> None:
    rules = constitution({"metric": "tpr_gap", "group": "race", "threshold": 0.1})
    with pytest.raises(InputError, match="counts of sealed have no group 'race'"):
        power_check(rules, adult_counts())


def test_a_constitution_with_only_soft_principles_needs_no_power() -> None:
    report = power_check(constitution(tpr(0.01, tier="soft")), adult_counts(), draws=10)
    assert report.certifiable
    assert report.principles == ()
