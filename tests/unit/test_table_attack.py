"""A table under attack: every permitted change is tried, and no other."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from attack_world import attacked, model, rows, schema, survivors, threat
from hypothesis import given, settings
from hypothesis import strategies as st

from safescale_ammt.constitution.table_threats import NumberChange
from safescale_ammt.data.row_changes import check_threat, options_of
from safescale_ammt.errors import ConstitutionError
from safescale_ammt.judging.drawn_rows import drawn
from safescale_ammt.judging.table_attack import SURVIVED, TableAttack

AGE = {"by": 2, "step": 1}


def adult(columns: Any) -> np.ndarray:
    """Says yes from an age of 30 on."""
    return np.asarray(columns["age"] >= 30, float)


def test_of_a_threshold_those_survive_who_are_further_from_it_than_a_change() -> None:
    found = attacked(rows(age=[27, 28, 29, 30, 31, 32, 33]), threat(age=AGE), adult)
    broken = "broken by age"
    assert found == [SURVIVED, broken, broken, broken, broken, SURVIVED, SURVIVED]


def test_a_row_that_is_wrong_as_it_is_is_no_survivor() -> None:
    found = attacked(rows(age=[10, 50]), threat(age=AGE), adult, label=[0, 0])
    assert found == [SURVIVED, "wrong as it is"]


def test_a_range_and_a_step_bound_where_a_number_may_go() -> None:
    table = rows(age=[28, 29, 31])
    # 29 may not reach 30, and by steps of 2 alone 31 falls to 29.
    inside = threat(age={**AGE, "range": [0, 29]})
    assert attacked(table, inside, adult) == [SURVIVED, SURVIVED, "broken by age"]
    coarse = threat(age={"by": 3, "step": 2})
    assert survivors(rows(age=[27, 28, 32]), coarse, adult) == 2


def test_a_move_ends_on_a_bound_that_rounding_misses() -> None:
    def full(columns: Any) -> np.ndarray:
        return np.asarray(columns["age"] >= 1.0, float)

    # .7 + 3 times .1 is a hair above 1.
    tenth = threat(age={"by": 0.3, "step": 0.1, "range": [0, 1]})
    assert survivors(rows(age=[0.7]), tenth, full) == 0


def test_a_share_moves_a_number_by_its_own_size() -> None:
    tenth = threat(age={"share": 0.1, "step": 0.1})
    assert attacked(rows(age=[27, 28, 0, 33]), tenth, adult) == [
        SURVIVED,
        "broken by age",
        SURVIVED,
        "broken by age",
    ]


def test_a_category_goes_to_the_named_values_or_to_any_that_is_known() -> None:
    def paid(columns: Any) -> np.ndarray:
        return np.asarray(columns["job"] == "full", float)

    table = rows(job=["full", "none", "part", "strange"])
    assert survivors(table, threat(job=["none", "part"]), paid) == 3
    assert survivors(table, threat(job="any"), paid) == 0
    assert survivors(rows(job=["none"]), threat(job=["none"]), paid) == 1


def test_a_missing_cell_stays_missing() -> None:
    def known(columns: Any) -> np.ndarray:
        young = np.nan_to_num(columns["age"], nan=29.9) >= 30
        return np.asarray(young | (columns["job"] == "full"), float)

    table = rows(age=[None, 29.0], job=[None, None])
    found = attacked(table, threat(2, age=AGE, job="any"), known)
    assert found == [SURVIVED, "broken by age"]


def both(columns: Any) -> np.ndarray:
    """Says yes where age and hours are high together."""
    return np.asarray((columns["age"] >= 30) & (columns["hours"] >= 40), float)


def test_two_changes_break_what_one_does_not() -> None:
    table = rows(age=[29, 29, 20], hours=[39, 50, 39])
    what = {"age": AGE, "hours": AGE}
    assert attacked(table, threat(1, **what), both) == [
        SURVIVED,
        "broken by age",
        SURVIVED,
    ]
    assert attacked(table, threat(2, **what), both) == [
        "broken by age, hours",
        "broken by age",
        SURVIVED,
    ]


def naive(
    table: pa.Table, changes: int, what: dict[str, Any], score: Any
) -> list[bool]:
    """Tries every permitted change, row by row and change by change."""
    asked = threat(changes, **what)
    options = dict(zip(what, options_of(threat(**what), schema()), strict=True))
    found = []
    for record in table.to_pylist():
        own = model(score)(rows(**{k: [v] for k, v in record.items()}))[1][0]
        stands = True
        for size in range(1, changes + 1):
            for names in combinations(what, size):
                for picked in product(*(options[name] for name in names)):
                    other = dict(record)
                    for name, option in zip(names, picked, strict=True):
                        change = dict(asked.columns)[name]
                        if record[name] is None:
                            continue
                        moved = option
                        if isinstance(change, NumberChange):
                            moved = record[name] + option
                            low, high = change.range or (-np.inf, np.inf)
                            if not low <= moved <= high:
                                moved = record[name]
                        other[name] = moved
                    changed = rows(**{k: [v] for k, v in other.items()})
                    stands &= model(score)(changed)[1][0] == own
        found.append(bool(stands))
    return found


CELLS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(18, 40).map(float)),
        st.integers(30, 50).map(float),
        st.sampled_from(["full", "none", "part", "strange", None]),
    ),
    min_size=1,
    max_size=5,
)
WHAT = {
    "age": {"by": 4, "step": 2, "range": [20, 38]},
    "hours": {"by": 3, "step": 3},
    "job": "any",
}


def weighed(columns: Any, weights: Any) -> np.ndarray:
    age = np.nan_to_num(np.asarray(columns["age"], float), nan=25)
    job = np.array([{"full": 3, "part": -1}.get(j, 0) for j in columns["job"]])
    total = weights[0] * (age - 29) + weights[1] * (columns["hours"] - 40)
    return 1 / (1 + np.exp(-(total + weights[2] * job + 0.1)))


@settings(deadline=None, max_examples=15)
@given(CELLS, st.tuples(*[st.integers(-3, 3)] * 3), st.sampled_from([1, 2]))
def test_survivors_are_those_that_no_permitted_change_breaks(
    cells: list[Any], weights: tuple[int, ...], changes: int
) -> None:
    ages, hours, jobs = zip(*cells, strict=True)
    table = rows(age=list(ages), hours=list(hours), job=list(jobs))

    def score(columns: Any) -> np.ndarray:
        return weighed(columns, weights)

    found = attacked(table, threat(changes, **WHAT), score)
    assert [f == SURVIVED for f in found] == naive(table, changes, WHAT, score)


@settings(deadline=None, max_examples=10)
@given(CELLS, st.tuples(*[st.integers(-3, 3)] * 3), st.randoms())
def test_more_changes_leave_no_more_survivors_and_order_plays_no_part(
    cells: list[Any], weights: tuple[int, ...], chance: Any
) -> None:
    ages, hours, jobs = zip(*cells, strict=True)
    table = rows(age=list(ages), hours=list(hours), job=list(jobs))

    def score(columns: Any) -> np.ndarray:
        return weighed(columns, weights)

    each = [attacked(table, threat(k, **WHAT), score) for k in (1, 2, 3)]
    for fewer, more in pairwise(each):
        # What breaks with fewer changes breaks by the same ones.
        assert all(b == a for a, b in zip(fewer, more, strict=True) if a != SURVIVED)
    order = list(range(len(cells)))
    chance.shuffle(order)
    for k, found in enumerate(each, 1):
        again = attacked(table.take(order), threat(k, **WHAT), score)
        assert again == [found[i] for i in order]
        # Nor do the other rows.
        alone = [
            attacked(table.slice(i, 1), threat(k, **WHAT), score)[0] for i in order
        ]
        assert alone == again


def test_where_nothing_is_permitted_robust_accuracy_is_accuracy() -> None:
    table = rows(age=[20.0, 30.0, 40.0])
    nowhere = threat(age={**AGE, "range": [100, 101]})
    found = attacked(table, nowhere, adult, label=[0, 0, 1])
    assert found == [SURVIVED, "wrong as it is", SURVIVED]


def test_no_other_column_is_ever_changed() -> None:
    rng = np.random.default_rng(0)
    table = rows(
        age=rng.integers(20, 40, 40).astype(float),
        hours=rng.integers(30, 50, 40).astype(float),
        job=rng.choice(["full", "none"], 40),
        sex=rng.choice(["f", "m"], 40),
    )
    known = {(r["hours"], r["sex"], r["since"]) for r in table.to_pylist()}
    seen: list[dict[str, Any]] = []
    tried = []

    def answer(changed: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        seen.extend(changed.to_pylist())
        return np.zeros(len(changed)), np.zeros(len(changed), np.int64)

    for changes in (1, 2):
        attack = TableAttack(threat(changes, age=AGE, job="any"), schema(), "s", 1)
        before = len(seen)
        attack.outcomes(table, np.zeros(40), answer)
        tried.append(len(seen) - before)
        assert tried[-1] == attack.permitted(table)
    # Four moves of the age, and two other jobs; then both at once.
    assert tried == [40 * (4 + 2), 40 * (4 + 2 + 4 * 2)]
    assert all((r["hours"], r["sex"], r["since"]) in known for r in seen)


def test_the_search_finds_what_two_changes_do_not() -> None:
    three = {"age": AGE, "hours": AGE, "job": ["none"]}

    def strict(columns: Any) -> np.ndarray:
        """A chance that grows with each of three columns, and one half with all."""
        low = (columns["age"] < 30).astype(int) + (columns["hours"] < 40)
        return (low + (columns["job"] == "none")) / 6

    high = rows(age=[31, 50], hours=[41, 50], job=["full", "full"])
    assert attacked(high, threat(2, **three), strict) == [SURVIVED, SURVIVED]
    assert attacked(high, threat(3, **three), strict) == [
        "broken by age, hours, job",
        SURVIVED,
    ]


def refused(changes: int = 1, **columns: Any) -> str:
    with pytest.raises(ConstitutionError) as refusal:
        check_threat(threat(changes, **columns), schema(), "steady")
    return str(refusal.value)


def test_a_threat_that_a_table_does_not_fit_is_one_sentence_each() -> None:
    assert "'agee', which the model does not read" in refused(agee=AGE)
    assert "the nearest is 'age'" in refused(agee=AGE)
    assert "say threat.sensitive: [sex], else leave it out" in refused(sex="any")
    hidden = replace(schema(), features=schema().features[:3])
    with pytest.raises(ConstitutionError, match="leave it out, or prepare with"):
        check_threat(threat(sex="any"), hidden, "steady")
    assert "'job' as a number, but it is a column of text" in refused(job=AGE)
    assert "'age' to values, but it is a column of numbers" in refused(age="any")
    assert "'job' to 'ful', a value that no row of training has" in refused(job=["ful"])
    assert "'since', a column of dates" in refused(since=AGE)
    fine = {"by": 1000, "step": 1}
    assert "in up to 4,004,000 ways, at most 1,000,000" in refused(
        2, age=fine, hours=fine
    )


def test_a_column_of_rare_values_goes_to_named_ones_and_not_to_any() -> None:
    known = schema()
    rare = [
        replace(f, levels=(), pooled=True) if f.name == "job" else f
        for f in known.features
    ]
    pooled = replace(known, features=tuple(rare))
    with pytest.raises(ConstitutionError, match="knows none, as each is rare"):
        check_threat(threat(3, age=AGE, hours=AGE, job="any"), pooled, "steady")
    check_threat(threat(3, age=AGE, hours=AGE, job=["none"]), pooled, "steady")


def test_rows_are_drawn_by_a_digest_whatever_their_order() -> None:
    rng = np.random.default_rng(0)
    hashes = np.frombuffer(rng.bytes(16 * 50), "V16")
    hashes = np.concatenate([hashes, hashes[:30]])
    found = drawn("holdout", hashes, 20)
    assert found.sum() == 20
    order = rng.permutation(80)
    again = drawn("holdout", hashes[order], 20)
    assert sorted(hashes[order][again].tolist()) == sorted(hashes[found].tolist())
    assert (drawn("holdout", hashes.view(np.uint8).reshape(-1, 16), 20) == found).all()
    assert (drawn("another", hashes, 20) != found).any()
    # Equal rows are drawn one by one, not all or none.
    twins = found[:30].astype(int) + found[50:]
    assert 1 in twins


def test_an_answer_that_is_no_number_is_right_for_no_class() -> None:
    table = rows(age=[0.0, 5.0])
    lost = attacked(
        table,
        threat(age={"by": 1, "step": 1}),
        lambda c: np.where(c["age"] == 1, np.nan, 0.0),
    )
    assert lost == ["broken by age", SURVIVED]
