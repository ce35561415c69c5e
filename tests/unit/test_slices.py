"""Slices: found where errors were put, confirmed by rows that proposed nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safety_world import constitution, evidence, submission

from safescale_ammt.binomial.two_rate_bets import beliefs, log_bets
from safescale_ammt.config.sections import DataConfig, SafetyConfig
from safescale_ammt.data.condition import Condition
from safescale_ammt.data.conditions import axes_of, holds
from safescale_ammt.data.groups import group_columns
from safescale_ammt.data.holdout import StoredRows
from safescale_ammt.errors import ConfigError, IntegrityError
from safescale_ammt.judging.assembly import assemble
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.slice_forms import Proposal, Slices
from safescale_ammt.judging.slice_search import (
    MOST_CONDITIONS,
    OVERLAP,
    counted_axes,
    discover,
    fitted,
)
from safescale_ammt.judging.slices import (
    confirmed,
    e_values,
    may_be_told,
    members,
    propose,
)
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.releasing.slice_rows import answered_errors
from safescale_ammt.reporting.report import render
from safescale_ammt.reporting.slices_section import slices_section

JOBS = ("clerk", "cook", "driver", "nurse")


def rows(number: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    hours = rng.integers(1, 80, number).astype(float)
    hours[rng.random(number) < 0.05] = np.nan
    gain = np.where(rng.random(number) < 0.9, 0.0, rng.uniform(1, 100, number))
    columns = {
        "age": rng.uniform(18, 90, number),
        "hours": pa.array(hours, from_pandas=True),
        "gain": gain,
        "job": np.array(JOBS)[rng.integers(4, size=number)],
        "town": np.array([f"t{i}" for i in range(30)])[rng.integers(30, size=number)],
    }
    return pa.table(
        {name: pa.chunked_array([column]) for name, column in columns.items()}
    )


def errors(features: pa.Table, planted: Sequence[Condition], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chance = np.where(members(planted, features), 0.4, 0.1)
    return np.asarray(rng.random(features.num_rows) < chance)


def judged(wrong: np.ndarray, **groups: Any) -> Evidence:
    label = np.zeros(len(wrong), np.int64)
    return Evidence(label, label + wrong, np.full(len(wrong), 0.5), groups)


PLANTED = {
    "a text": (Condition("job", "cook"),),
    "a range": (Condition("age", above=30.0, up_to=42.0),),
    "no value": (Condition("hours"),),
    "beyond a frequent value": (Condition("gain", above=0.0),),
    "two": (Condition("job", "nurse"), Condition("age", above=60.0)),
    "one of many texts": (Condition("town", "t7"),),
}


@pytest.mark.parametrize("name", PLANTED)
def test_errors_are_found_where_they_were_put_and_confirmed(name: str) -> None:
    planted, features, fresh = PLANTED[name], rows(9000, 1), rows(9000, 2)
    wrong, other = (errors(t, planted, 3 + i) for i, t in enumerate((features, fresh)))
    proposals = propose(features, wrong, most=20, conditions=2, least=150)
    about = Slices(0.1, len(wrong), int(wrong.sum()), len(proposals))
    inside = [members(p.conditions, fresh) for p in proposals]
    found, kept = confirmed(judged(other), inside, about, proposals, 150)
    best = found.confirmed[0]
    own = members(planted, fresh)
    assert (kept[0] & own).sum() / (kept[0] | own).sum() > 0.75
    assert best.inside[1] <= 0.4 <= best.inside[2]
    assert best.outside[1] <= 0.1 <= best.outside[2]
    assert best.e_value > 1e6
    # All of one cluster: two that overlap would be one finding told twice.
    for i, one in enumerate(kept):
        for other_one in kept[:i]:
            assert (one & other_one).sum() / (one | other_one).sum() < OVERLAP + 0.05


def test_one_condition_finds_no_slice_of_two() -> None:
    features = rows(9000, 1)
    wrong = errors(features, PLANTED["two"], 3)
    alone = discover(features, wrong, most=20, conditions=1, least=150)
    assert alone
    assert all(len(slice_) == 1 for slice_ in alone)
    both = discover(features, wrong, most=20, conditions=2, least=150)
    assert {c.column for c in both[0]} == {"job", "age"}


def test_a_second_condition_that_says_nothing_is_not_added() -> None:
    features = rows(9000, 1)
    wrong = errors(features, PLANTED["a text"], 3)
    assert discover(features, wrong, most=1, conditions=2, least=150) == [
        (Condition("job", "cook"),)
    ]


def test_two_slices_are_found_one_after_the_other() -> None:
    features = rows(9000, 1)
    first, second = PLANTED["a text"], PLANTED["a range"]
    wrong = errors(features, first, 3) | errors(features, second, 4)
    found = discover(features, wrong, most=2, conditions=2, least=150)
    assert first in found
    assert {slice_[0].column for slice_ in found} == {"job", "age"}


def test_a_search_of_no_errors_of_errors_alone_or_of_nothing_finds_nothing() -> None:
    features = rows(500, 1)
    for wrong in (np.zeros(500, bool), np.ones(500, bool)):
        assert discover(features, wrong, most=5, conditions=2, least=20) == []
    some = np.arange(500) % 7 == 0
    assert discover(features, some, most=0, conditions=2, least=20) == []
    assert discover(features.select([]), some, most=5, conditions=2, least=20) == []
    assert discover(features, some, most=5, conditions=2, least=400) == []


def test_a_table_of_very_many_columns_keeps_those_that_tell_most() -> None:
    rng = np.random.default_rng(0)
    many = {f"x{i}": rng.standard_normal(1000) for i in range(200)}
    wrong = (many["x137"] > 1) & (rng.random(1000) < 0.7)
    features = pa.table({n: pa.chunked_array([x]) for n, x in many.items()})
    axes = counted_axes(features, wrong, 50)
    assert sum(len(axis.conditions) for axis in axes) <= MOST_CONDITIONS
    assert "x137" in {axis.conditions[0].column for axis in axes}
    found = discover(features, wrong, most=1, conditions=2, least=50)
    assert found[0][0].column == "x137"


def test_the_order_of_rows_changes_no_proposal() -> None:
    features = rows(4000, 1)
    wrong = errors(features, PLANTED["two"], 3)
    order = np.random.default_rng(0).permutation(4000)
    there = propose(features, wrong, most=9, conditions=2, least=60)
    again = propose(
        features.take(pa.array(order)), wrong[order], most=9, conditions=2, least=60
    )
    assert there == again


def test_the_expected_errors_of_slices_are_those_that_they_have() -> None:
    rng = np.random.default_rng(0)
    inside = [rng.random(4000) < share for share in (0.3, 0.1)]
    wrong = rng.random(4000) < np.where(inside[0], 0.5, 0.1)
    chance = fitted(wrong, inside)
    for mask in inside:
        assert chance[mask].sum() == pytest.approx(wrong[mask].sum(), rel=0.01)
    assert chance.sum() == pytest.approx(wrong.sum(), abs=1e-6)


def test_slices_that_hold_every_error_are_fitted_and_the_search_goes_on() -> None:
    rng = np.random.default_rng(0)
    job, shift = rng.integers(4, size=3000), rng.integers(3, size=3000)
    wrong = (job == 1) & (shift == 1)
    chance = fitted(wrong, [wrong])
    assert chance[wrong].min() > 0.9
    assert chance[~wrong].max() < 0.01
    features = pa.table(
        {
            "job": pa.chunked_array([np.array(JOBS)[job]]),
            "shift": pa.chunked_array([np.array(["early", "late", "night"])[shift]]),
            "age": pa.chunked_array([rng.uniform(18, 90, 3000)]),
        }
    )
    found = discover(features, wrong, most=20, conditions=2, least=30)
    assert [c.words for c in found[0]] == ["job = cook", "shift = late"]


class Stored:
    """Rows of a split in one file, as `StoredRows` yields them."""

    files = ("split.parquet",)

    def __init__(self, size: int) -> None:
        self.features, self.label = rows(size, 1), np.zeros(size, np.int64)

    def __len__(self) -> int:
        return len(self.label)

    def batches(self) -> list[Stored]:
        return [self]

    def take(self, at: np.ndarray) -> Stored:
        found = Stored(0)
        found.features, found.label = self.features.take(at), self.label[at]
        return found


def test_a_split_without_rows_proposes_nothing_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrong:
        def predict_table(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
            return np.ones(len(table)), np.ones(len(table), np.int64)

    splits = {"validation": Stored(40), "monitor": Stored(20), "select": Stored(0)}
    monkeypatch.setattr(Predictor, "load", lambda _: Wrong())
    monkeypatch.setattr(StoredRows, "of_split", lambda _, name: splits[name])
    features, wrong = answered_errors(Path(), cast("Any", None), tuple(splits))
    assert features.num_rows == len(wrong) == 60
    assert wrong.all()


@settings(deadline=None, max_examples=10)
@given(st.floats(0.02, 0.9), st.floats(0.0, 0.2), st.integers(5, 40), st.data())
def test_an_e_value_is_at_most_one_on_average_where_the_model_errs_no_more(
    rate: float, less: float, size: int, data: st.DataObject
) -> None:
    # All counts that can occur, so that the mean is exact.
    other = data.draw(st.integers(5, 60))
    own = data.draw(st.integers(0, 30))
    believed = beliefs(np.array([own, 10.0]), np.array([30.0, 100.0]), np.array(0.0))
    inside, outside = max(0.0, rate - less), rate
    mean = 0.0
    for x in range(size + 1):
        for y in range(other + 1):
            chance = math.comb(size, x) * inside**x * (1 - inside) ** (size - x)
            chance *= math.comb(other, y) * outside**y * (1 - outside) ** (other - y)
            logs = log_bets(
                np.array([x, y], float),
                np.array([size, other], float),
                np.array(0.0),
                believed,
            )
            mean += chance * float(np.exp(logs).mean())
    assert mean <= 1 + 1e-9


def test_false_discoveries_are_few_where_there_is_nothing_to_find() -> None:
    features, any_found = rows(3000, 1), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        wrong, other = rng.random((2, 3000)) < 0.2
        proposals = propose(features, wrong, most=20, conditions=2, least=100)
        about = Slices(0.1, 3000, int(wrong.sum()), len(proposals))
        fresh = rows(3000, 100 + seed)
        inside = [members(p.conditions, fresh) for p in proposals]
        found, _ = confirmed(judged(other), inside, about, proposals, 100)
        any_found += bool(found.confirmed)
    assert any_found <= 2


def test_e_bh_confirms_by_the_number_that_was_tested() -> None:
    wrong = np.zeros(4000, bool)
    wrong[:70], wrong[400:720] = True, True
    inside = [np.arange(4000) < 400, (np.arange(4000) // 400) == 4]
    own = [Proposal((Condition("a", str(i)),), 400, 70) for i in range(2)]
    about = Slices(0.1, 4000, 390, 2)
    value = e_values(judged(wrong), inside, about, own)
    few, _ = confirmed(judged(wrong), inside, about, own, 200)
    assert [found.proposal for found in few.confirmed] == own[:1]
    assert few.confirmed[0].e_value == value[0] > 20
    enough = math.floor(value[0] * 0.1)
    for tested, shown in ((enough, 1), (enough + 1, 0)):
        told, kept = confirmed(
            judged(wrong), inside, replace(about, tested=tested), own, 200
        )
        assert len(told.confirmed) == len(kept) == shown


def test_a_slice_is_not_told_that_is_small_or_tells_of_few() -> None:
    wrong = np.arange(2000) % 5 == 0
    inside = np.arange(2000) < 300
    assert may_be_told(judged(wrong), inside, 200)
    assert not may_be_told(judged(wrong), inside, 301)
    # Each of the four cells with ten rows, and with nine.
    rest = np.arange(2000) % 5 == 0
    for own, other in ((True, False), (False, True)):
        for few, shown in ((10, True), (9, False)):
            for side in (inside, ~inside):
                cell = wrong.copy()
                place = np.flatnonzero(side)
                cell[place], cell[place[:few]] = other, own
                cell[~side] = rest[~side]
                assert may_be_told(judged(cell), inside, 200) is shown
    # A named group's rates are told: with them go those of the rest of the slice.
    near = (np.arange(2000) < 295).astype(int)
    assert not may_be_told(judged(wrong, g=(("a", "b"), near)), inside, 200)
    same = inside.astype(int)
    assert may_be_told(judged(wrong, g=(("a", "b"), same)), inside, 200)


def test_a_condition_says_what_it_asks_in_plain_words() -> None:
    day = 86_400_000_000.0
    said = {
        Condition("work", "Private"): "work = Private",
        Condition("age", above=45.0, up_to=60.0): "age above 45 up to 60",
        Condition("age", up_to=60.5): "age up to 60.5",
        Condition("job"): "job is missing",
        Condition("since", above=day, date=True): "since above 1970-01-02",
        Condition("since", up_to=1.5 * day, date=True): "since up to 1970-01-02 12:00",
        Condition("a\nb", "c\x1bd"): "a\\nb = c\\x1bd",
    }
    assert {c.words: words for c, words in said.items()} == {
        words: words for words in said.values()
    }


def test_dates_and_missing_texts_can_be_asked_for() -> None:
    when = [datetime(2020, 1, 1 + i % 28, tzinfo=UTC) for i in range(400)]
    texts = ["x" if i % 2 else None for i in range(400)]
    table = pa.table(
        {
            "when": pa.chunked_array([pa.array(when, pa.timestamp("us"))]),
            "text": pa.chunked_array([pa.array(texts, pa.string())]),
        }
    )
    asked = [c for axis in axes_of(table, 5, 20) for c in axis.conditions]
    assert Condition("text") in asked
    assert Condition("text", "x") in asked
    for axis in axes_of(table, 5, 20):
        for condition, span in zip(axis.conditions, axis.spans, strict=True):
            np.testing.assert_array_equal(holds(condition, table), span[axis.codes])
    assert any("2020-01-" in c.words for c in asked)


def test_every_code_of_a_search_is_the_condition_on_the_rows() -> None:
    features = rows(2000, 5)
    for axis in axes_of(features, 20, 40):
        for condition, span in zip(axis.conditions, axis.spans, strict=True):
            np.testing.assert_array_equal(holds(condition, features), span[axis.codes])
    columns = {axis.conditions[0].column for axis in axes_of(features, 20, 40)}
    assert columns == {"age", "hours", "gain", "job", "town"}


def test_a_text_that_few_have_is_never_asked_for() -> None:
    texts = pa.chunked_array([["common"] * 200 + ["rare"] * 9])
    (axis,) = axes_of(pa.table({"name": texts}), 5, 1)
    assert [c.value for c in axis.conditions] == ["common"]


def test_a_condition_on_other_rows_is_one_sentence() -> None:
    with pytest.raises(IntegrityError, match="'age', which the rows do not have"):
        holds(Condition("age", up_to=1.0), pa.table({"job": ["x"]}))
    texts = pa.table({"age": pa.chunked_array([["x"]])})
    with pytest.raises(IntegrityError, match="a range of column 'age', which is text"):
        holds(Condition("age", up_to=1.0), texts)


@pytest.mark.parametrize(
    "asked",
    [
        {"most": -1},
        {"most": 101},
        {"conditions": 0},
        {"conditions": 3},
        {"fdr": 0.0},
        {"fdr": 1.0},
        {"size": 3},
    ],
)
def test_a_search_that_cannot_be_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="slices"):
        SafetyConfig.from_params({"slices": asked})


def test_a_config_without_slices_keeps_its_digest_and_a_search_can_be_left_out() -> (
    None
):
    plain = SafetyConfig()
    assert plain.searched == {"most": 20, "conditions": 2, "fdr": 0.1}
    assert SafetyConfig.from_params({"slices": {"most": 0.0}}).searched["most"] == 0
    assert SafetyConfig.from_params({}).digest == plain.digest
    assert SafetyConfig.from_params({"slices": {"most": 5}}).digest != plain.digest


def test_the_page_says_how_a_slice_becomes_a_group_that_can_be_promised() -> None:
    page = (Path(__file__).parents[2] / "docs" / "constitution.md").read_text("utf-8")
    block = page.split("## Groups that nobody named")[1].split("```")[1]
    data = yaml.safe_load(block.removeprefix("yaml"))["data"]
    columns = {
        "sex": ["F", "M", "F", "M"],
        "workclass": ["Private", "State", "Private", "Local"],
        "marital_status": ["married", "married", "single", "single"],
    }
    texts = {n: Column.of(pa.chunked_array([c])) for n, c in columns.items()}
    table = RawTable(texts, 4, "here", {}, names_are_safe=True)
    groups = group_columns(DataConfig.from_params(data), table)
    cross = groups["employer_marital"]
    assert "private" in cross.values.to_pylist()[cross.codes[0]]
    assert "other" in cross.values.to_pylist()[cross.codes[1]]


def told(most: int = 2) -> tuple[Verdict, str]:
    rule, known = constitution(0.2), evidence()
    wrong = known.prediction != known.label
    order = np.random.default_rng(0).permutation(len(wrong))
    inside = [np.zeros(len(wrong), bool) for _ in range(most)]
    bad, good = (order[wrong[order] == side] for side in (True, False))
    for i, mask in enumerate(inside):
        mask[bad[i * 30 : i * 30 + 30]] = mask[good[i * 40 : i * 40 + 40]] = True
    rule = replace(rule, groups=replace(rule.groups, min_n=50))
    own = [
        Proposal((Condition("<b>", str(i)), Condition("age", up_to=30.0)), 100, 35)
        for i in range(most)
    ]
    about = Slices(0.1, 1000, 130, 4)
    found, kept = confirmed(known, inside, about, own, 50)
    verdict = assemble(
        rule,
        replace(known, slices=kept),
        replace(submission("sha256:" + "m" * 64), slices=found),
        "sha256:" + "e" * 64,
    )
    return verdict, render(verdict, rule, drawn=False)


def test_a_verdict_holds_its_slices_and_the_page_shows_them() -> None:
    verdict, page = told()
    assert verdict.slices is not None
    assert verdict.slices.confirmed
    assert Verdict.from_dict(verdict.to_dict()) == verdict
    assert "Groups that nobody named" in page
    assert "&lt;b&gt; = 0 and age up to 30" in page
    assert "<b> = 0" not in page
    assert "the decision does not depend on them" in page
    assert page.count("measure slice") == len(verdict.slices.confirmed)


def test_a_search_without_a_confirmed_slice_is_told_and_none_by_no_word() -> None:
    assert slices_section(None) == ""
    assert "confirm none" in slices_section(Slices(0.1, 900, 90, 4))
    assert "No slice of the rows was tested" in slices_section(Slices(0.1, 0, 0, 0))
    old = assemble(constitution(0.2), evidence(), submission("sha256:" + "m" * 64), "")
    assert "slices" not in old.to_dict()
    rates = old.figures["model"]["groups"]["sex"]["rates"]
    assert "precision" not in rates[0]


def test_each_group_has_its_precision_beside_its_other_rates() -> None:
    verdict, page = told()
    known = evidence()
    for rate in verdict.figures["model"]["groups"]["sex"]["rates"]:
        values, codes = known.groups["sex"]
        own = codes == values.index(rate["value"])
        chosen = own & (known.prediction == 1)
        assert rate["precision"]["n"] == chosen.sum()
        assert rate["precision"]["value"] == pytest.approx(known.label[chosen].mean())
    assert ">Precision</th>" in page
