"""Conditional parity: gaps within the strata of another column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from promises import constitution, promise
from small_tables import HEADER, spell
from training_world import GENOME, brief, prepare, promises

from safescale_ammt.binomial.two_rates import difference_upper
from safescale_ammt.constitution.constitution import Constitution, GroupRule
from safescale_ammt.data.counts import Counts, tally
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConstitutionError, InputError
from safescale_ammt.judging.certify import GroupHits, inside
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import FAILS, HOLDS, UNDECIDED, Finding
from safescale_ammt.judging.gate import FAIL, PASS, decide
from safescale_ammt.judging.group_rates import Rates, point_value
from safescale_ammt.judging.judge import judge
from safescale_ammt.judging.power.check import power_check
from safescale_ammt.model.network import predicted
from safescale_ammt.modules.rows import ModuleRows
from safescale_ammt.modules.task import Task
from safescale_ammt.stages.search_architecture import check_groups
from safescale_ammt.training.dual_update import cell_hits
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.enforcement import enforce
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.multipliers import targets
from safescale_ammt.training.trainer import train
from safescale_ammt.training.training_log import discard

RULE = GroupRule(min_n=20, min_pos=10)
SEX, SCHOOL = ("f", "m"), ("high", "low")
# (group, stratum) -> rows answered yes, rows. Over all rows men are chosen twice as
# often; within a school as often as women (Bickel et al. 1975).
SIMPSON = {
    ("f", "high"): (120, 200),
    ("f", "low"): (160, 800),
    ("m", "high"): (480, 800),
    ("m", "low"): (40, 200),
}


def evidence_of(cells: dict[tuple[str, str], tuple[int, int]]) -> Evidence:
    """Rows half of which are positive in each cell; the first ones are answered yes."""
    answer, label, sex, school = [], [], [], []
    for (group, stratum), (yes, rows) in cells.items():
        answer += [1] * yes + [0] * (rows - yes)
        label += [i % 2 for i in range(rows)]
        sex += [SEX.index(group)] * rows
        school += [SCHOOL.index(stratum)] * rows
    found = np.array(answer)
    groups = {"sex": (SEX, np.array(sex)), "school": (SCHOOL, np.array(school))}
    return Evidence(np.array(label), found, found.astype(float), groups)


def given(metric: str = "dp_gap", line: float = 0.15, **rest: Any) -> Any:
    return promise(metric, line, group="sex", given="school", **rest)


# --- judging ---


def test_who_applies_where_is_no_gap_within_the_strata() -> None:
    rows = evidence_of(SIMPSON)
    assert point_value("dp_gap", rows, "sex") == pytest.approx(0.24)
    assert point_value("dp_gap", rows, "sex", "school") == 0
    over_all = judge(promise("dp_gap", 0.15, group="sex"), rows, RULE, 0.05)
    within = judge(given(), rows, RULE, 0.05)
    assert (over_all.outcome, within.outcome) == (FAILS, HOLDS)
    assert "dp_gap by sex given school is at most" in within.reason


def test_the_bound_is_the_largest_of_the_strata_s_each_at_alpha() -> None:
    finding = judge(given(), evidence_of(SIMPSON), RULE, 0.05)
    uppers = [
        difference_upper(*SIMPSON[a, s], *SIMPSON[b, s], 0.05)
        for s in SCHOOL
        for a, b in (("f", "m"), ("m", "f"))
    ]
    # Intersection-union: every stratum must show it, so that none needs a correction.
    assert finding.upper == pytest.approx(max(uppers), abs=1e-9)


def test_one_broken_stratum_breaks_the_promise_at_its_share_of_the_level() -> None:
    broken = {**SIMPSON, ("f", "low"): (400, 800)}
    finding = judge(given(), evidence_of(broken), RULE, 0.05)
    assert finding.outcome == FAILS
    assert finding.value == pytest.approx(0.3)
    assert {r.stratum for r in finding.by_group} == set(SCHOOL)
    alone = {k: v for k, v in broken.items() if k[1] == "low"}
    one = judge(promise("dp_gap", 0.15, group="sex"), evidence_of(alone), RULE, 0.05)
    # Two strata, two ordered pairs each: four tests in place of two.
    assert finding.p_violated == pytest.approx(2 * one.p_violated, rel=1e-6)


def test_a_stratum_with_too_few_rows_leaves_it_open() -> None:
    few = {**SIMPSON, ("m", "low"): (3, 15)}
    finding = judge(given(), evidence_of(few), RULE, 0.05)
    assert finding.outcome == UNDECIDED
    assert finding.too_small == ("m in low",)
    assert "too few rows or positives in m in low" in finding.reason
    # What is large enough still shows a violation.
    broken = {**few, ("f", "high"): (20, 200)}
    finding = judge(given(), evidence_of(broken), RULE, 0.05)
    assert finding.outcome == FAILS
    none = {k: v for k, v in SIMPSON.items() if k != ("m", "low")}
    finding = judge(given(), evidence_of(none), RULE, 0.05)
    assert (finding.outcome, finding.value) == (UNDECIDED, None)
    assert "there is no row of m in low" in finding.reason


def test_ratios_are_compared_within_strata_too() -> None:
    assert judge(given("dp_ratio", 0.6), evidence_of(SIMPSON), RULE, 0.05).outcome == (
        HOLDS
    )
    nobody = {**SIMPSON, ("f", "low"): (0, 800), ("m", "low"): (0, 200)}
    finding = judge(given("dp_ratio", 0.6), evidence_of(nobody), RULE, 0.05)
    assert (finding.outcome, finding.value) == (UNDECIDED, None)
    assert "no row of any group in low is answered positive" in finding.reason


def test_false_passes_stay_below_alpha_where_one_stratum_is_on_the_line() -> None:
    rng, alpha, draws, rows = np.random.default_rng(0), 0.1, 4_000, 150
    large, trials = np.zeros(2, bool), np.array([rows, rows])
    # True rates of women and men: equal in one school, on the line in the other.
    rates = tuple(
        Rates("selection", rng.binomial(rows, p, (draws, 2)), trials, school, large)
        for school, p in (("high", (0.4, 0.4)), ("low", (0.3, 0.45)))
    )
    passes = inside(given().constraint, GroupHits(rates, large), alpha).mean()
    # Two standard errors above what is promised, and far from never.
    assert 0.02 < passes <= alpha + 2 * (alpha * (1 - alpha) / draws) ** 0.5


def test_a_finding_says_its_strata_and_comes_back_from_json() -> None:
    rows = evidence_of(SIMPSON)
    finding = judge(given(), rows, RULE, 0.05)
    raw = finding.to_dict()
    assert raw["given"] == "school"
    assert Finding.from_dict(raw) == finding
    plain = judge(promise("dp_gap", 0.5, group="sex"), rows, RULE, 0.05).to_dict()
    assert "given" not in plain
    assert all("stratum" not in rate for rate in plain["by_group"])
    line = {"metric": "dp_gap", "group": "sex", "threshold": 0.15}
    allowed = {"allow_constant": True}
    law = constitution({**line, "given": "school"}, **allowed)
    own = [judge(law.principles[0], rows, RULE, 0.05)]
    assert decide(law, own, guarantee="holds").decision == PASS
    # A finding over all rows is about another promise.
    other = judge(constitution(line).principles[0], rows, RULE, 0.05)
    decision = decide(law, [other], guarantee="holds")
    assert decision.decision == FAIL
    assert "given None, the constitution says 'school'" in decision.reasons[0]


# --- the constitution ---


def refused(**line: Any) -> str:
    with pytest.raises(ConstitutionError) as caught:
        constitution({"metric": "dp_gap", "group": "sex", "threshold": 0.1, **line})
    return str(caught.value)


def test_strata_of_what_compares_no_groups_are_refused() -> None:
    said = refused(metric="worst_group_error", given="school")
    assert "worst_group_error compares no groups within strata" in said
    assert "a cross of both" in said
    assert "are both 'sex'" in refused(given="sex")
    assert "given must name a group, found 3" in refused(given=3)
    assert "given must name a group, found ' '" in refused(given=" ")
    with pytest.raises(ConstitutionError, match="compares no groups within strata"):
        constitution({"metric": "recall", "given": "sex", "threshold": 0.1})


def test_within_strata_and_over_all_rows_are_two_promises() -> None:
    line = {"metric": "dp_gap", "group": "sex", "threshold": 0.1}
    law = constitution(line, {**line, "given": "school"})
    assert law.group_columns == ("school", "sex")
    assert law.principles[1].promise == "dp_gap by sex given school <= 0.1"
    assert "given" not in law.principles[0].to_dict()["constraint"]
    assert Constitution.from_dict(law.to_dict()) == law
    with pytest.raises(ConstitutionError, match="hard line for dp_gap by sex given"):
        constitution(*[{**line, "given": "school", "threshold": t} for t in (0.1, 0.2)])


# --- counts and power ---


def counts(times: int, *, crossed: bool = True) -> Counts:
    rows = evidence_of({k: (a * times, n * times) for k, (a, n) in SIMPSON.items()})
    sex, school = rows.groups["sex"][1], rows.groups["school"][1]
    groups: dict[str, tuple[Sequence[str], Any]] = dict(rows.groups)
    if crossed:
        texts = tuple(f"{s} & {g}" for s in SCHOOL for g in SEX)
        groups["both"] = (texts, school * 2 + sex)
    splits = {
        name: tally(rows.label, groups, 2, masked=name == "sealed")
        for name in ("train", "constraint", "sealed")
    }
    return Counts(("no", "yes"), "yes", splits)


def test_counts_of_both_columns_are_those_of_their_cross() -> None:
    values, strata, rows, labels = counts(1).crossed("sealed", "sex", "school")
    assert (values, strata) == (SEX, SCHOOL)
    assert rows.tolist() == [[200, 800], [800, 200]]
    assert labels.tolist() == [[[100, 100], [400, 400]], [[400, 400], [100, 100]]]
    with pytest.raises(InputError, match="no cross of 'sex' and 'school'"):
        counts(1, crossed=False).crossed("sealed", "sex", "school")


def test_the_power_check_counts_by_stratum() -> None:
    line = {"metric": "dp_gap", "group": "sex", "threshold": 0.1}
    sizes = {"min_n": 100, "min_pos": 20}
    whole = power_check(constitution(line, groups=sizes), counts(2), draws=500)
    law = constitution({**line, "given": "school"}, groups=sizes)
    within = power_check(law, counts(2), draws=500)
    # Each stratum is a promise of its own on a half of the rows.
    assert within.spread.passes < whole.spread.passes - 0.1
    more = power_check(law, counts(20), draws=500)
    assert more.certifiable
    assert "given" not in whole.to_dict()["principles"][0]
    assert within.to_dict()["principles"][0]["given"] == "school"
    (culprit,) = within.principles
    assert "dp_gap by sex given school <= 0.1" in within.sentence
    assert culprit.least is not None
    assert culprit.rows is not None


def test_a_small_stratum_is_named_by_the_power_check() -> None:
    line = {"metric": "dp_gap", "group": "sex", "given": "school", "threshold": 0.1}
    law = constitution(line, groups={"min_n": 300, "min_pos": 20})
    report = power_check(law, counts(1), draws=200)
    assert report.principles[0].too_small == ("f in high", "m in low")
    assert not report.certifiable
    assert "can never pass" in report.sentence


# --- training ---


def admissions(rows: int, seed: int = 0) -> bytes:
    """In the south women are granted less; the north treats all alike."""
    rng, cells = np.random.default_rng(seed), []
    for i in range(rows):
        woman, south, z = rng.random() < 0.5, rng.random() < 0.5, rng.normal()
        granted = z + 0.5 * rng.normal() > 0.8 * (woman and south)
        texts = {"age": f"{45 + 12 * z:.2f}", "gain": "0", "city": "oslo"}
        texts |= {"gender": "f" if woman else "m", "id": str(i)}
        texts |= {"origin": "south" if south else "north"}
        texts["approved"] = "yes" if granted else "no"
        cells.append([texts[name] for name in HEADER])
    return spell(cells)


WITHIN = {"metric": "dp_gap", "group": "gender", "given": "origin", "threshold": 0.1}


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> GenomeNets:
    table = admissions(5000)
    folder = tmp_path_factory.mktemp("admissions")
    crosses = {"gender_origin": ["gender", "origin"]}
    found = prepare(folder, table, sensitive_in_model=True, crosses=crosses)
    return GenomeNets(EncodedDataset(Dataset.load(found)), GENOME)


def test_training_closes_the_gap_in_each_stratum(nets: GenomeNets) -> None:
    law = Constitution.from_dict(promises(WITHIN))
    settings = brief(steps=400, trunk_steps=100, seed=2)
    found = train(nets, settings, law, log=discard)
    assert {p.name for p in found.constraints.pairs} == {
        f"rate given {s}: {a} - {b}"
        for s in ("north", "south")
        for a, b in (("f", "m"), ("m", "f"))
    }
    rows = nets.rows("validation", "monitor", "select")
    inside = found.constraints.membership(rows.groups, rows.y)

    def shown(theta: torch.Tensor) -> tuple[float, float]:
        hits = cell_hits(nets, found.constraints, theta, rows, inside)
        (gap,) = found.constraints.values(hits / inside.sum(1)).values()
        right = 0
        for block in rows.blocks():
            answer = predicted(nets.logits(theta[None], rows, block[None]))[0]
            right += int((answer == rows.y[block]).sum())
        return gap, right / len(rows)

    gap, accuracy = shown(found.agents.mean(0))
    assert gap <= 0.1
    assert shown(found.twin[0])[0] > 0.15
    assert accuracy > 0.7  # a constant is right for about .55


def test_margins_rest_on_the_sealed_rows_of_each_stratum(nets: GenomeNets) -> None:
    law = Constitution.from_dict(promises({**WITHIN, "threshold": 0.5}))
    rows = nets.rows("train", "constraint")
    found = enforce(law, nets.groups, rows.groups, rows.y, nets.outcomes)
    half = torch.full((len(found.cells),), 0.5)
    aims = targets(found, law, nets.counts, half, torch.full_like(half, 1e12))
    values, strata, sealed, _ = nets.counts.crossed("sealed", "gender", "origin")
    for pair, aim in zip(found.pairs, aims.tolist(), strict=True):
        one, other = (found.cells[t.cells[0]] for t in pair.terms)
        sizes = [
            int(sealed[values.index(c.value), strata.index(c.at)]) for c in (one, other)
        ]
        error = sum(0.25 / (n + 2) for n in sizes) ** 0.5
        assert aim == pytest.approx(0.5 - (1.6449 + 1.2816) * error, abs=1e-3)


def test_a_small_group_of_a_stratum_is_left_out_there_alone(nets: GenomeNets) -> None:
    law = Constitution.from_dict(promises(WITHIN, min_n=200))
    rows = nets.rows("train", "constraint")
    women, south = (
        nets.groups[column].index(value)
        for column, value in (("gender", "f"), ("origin", "south"))
    )
    few = (rows.groups["gender"] == women) & (rows.groups["origin"] == south)
    rows = rows.where(~few | (torch.arange(len(rows)) < 300))
    found = enforce(law, nets.groups, rows.groups, rows.y, nets.outcomes)
    assert {c.at for c in found.cells if c.value == "f"} == {"north"}
    assert all("north" in p.name for p in found.pairs)
    assert "gender = 'f' given origin = 'south'" in found.left_out[0]
    assert "not enforced given origin = 'south': only one value" in found.left_out[1]


def test_the_cross_must_be_declared_and_the_strata_be_there(nets: GenomeNets) -> None:
    law = Constitution.from_dict(promises(WITHIN))
    schema = nets.encoded.schema
    check_groups(law, schema)
    with pytest.raises(ConstitutionError, match=r"data.crosses: \{gender_origin:"):
        law.require_crosses({"other": ("gender", "city")})
    elsewhere = Constitution.from_dict(promises({**WITHIN, "given": "city"}))
    with pytest.raises(ConstitutionError, match="speaks of the group 'city'"):
        check_groups(elsewhere, schema)


def test_modules_count_both_columns_of_the_rows_that_they_are_judged_on() -> None:
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(40)
    codes = {n: torch.randint(2, (40,), generator=generator) for n in ("sex", "school")}
    y = torch.randint(2, (40,), generator=generator)
    held = ModuleRows(lambda rows: rows, index, y, codes)
    task = Task(("no", "yes"), 1, {"sex": SEX, "school": SCHOOL}, {"held": held})
    values, strata, rows, labels = task.crossed("sealed", "sex", "school")
    assert (values, strata, task.total("sealed")) == (SEX, SCHOOL, 40)
    for i, j, k in np.ndindex(2, 2, 2):
        own = (codes["sex"] == i) & (codes["school"] == j) & (y == k)
        assert labels[i, j, k] == int(own.sum())
    assert (rows == labels.sum(2)).all()
    assert (rows.sum(1) == task.table("sealed", "sex")[1]).all()
