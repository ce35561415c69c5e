"""The benchmark of exact bounds: what it asks, and that its goals can be missed."""

from __future__ import annotations

import math

from benchmarks.exact_tests import (
    BEFORE,
    ISSUE,
    NOW,
    ROOT,
    answered,
    both_ways,
    cases,
    enumerated,
    goals_of,
    least,
    rows_of,
)
from benchmarks.interval_sizes import cases as size_cases
from safescale_ammt.binomial.exact import WHOLE_UP_TO
from safescale_ammt.binomial.two_rates import difference_upper


def test_a_checkout_answers_bounds_and_power_checks_with_their_seconds() -> None:
    asked = [case for case in cases([40]) if case[-1] == 0.05]
    assert {case[1] for case in asked} == {
        *("difference", "ratio", "two models", "one rate")
    }
    answers, checks = answered(ROOT, (asked, [("dp_gap", "<=", 0.3)]))
    (spent, passes), first = checks[0], asked[0]
    assert spent > 0
    assert 0 <= passes <= 1
    assert answers[0][1] == difference_upper(*first[2:])
    assert all(seconds >= 0 and not math.isnan(upper) for seconds, upper in answers)
    rows = rows_of(asked, {NOW: answers, BEFORE: [None] * len(asked)})
    assert [row["cases"] for row in rows] == [18, 18, 3, 3]
    assert all(
        "now_most_cpu_s" in row and "b82994b_most_cpu_s" not in row for row in rows
    )


def test_goals_are_missed_by_slow_bounds_other_bounds_and_small_p_values() -> None:
    asked = [(5_000, "one rate", 1, 5_000, 0.05), (300, "one rate", 1, 300, 0.05)]
    now, before = [[0.3, 0.5], [0.05, 0.1]], [[0.2, 0.5], [0.05, 0.2]]
    checks = {NOW: [[2.0, 1]], BEFORE: [[1.0, 1]], ISSUE: [[4.0, 1]]}
    goals = goals_of(asked, {NOW: now, BEFORE: before}, checks, [0.9, 1.2])
    assert [g["value"] for g in goals] == [0.3, 0.3, 0.1, 2.0, 0.5, 0.9]
    alike = goals_of(asked[1:], {NOW: now[1:], BEFORE: now[1:]}, checks, [1.1])
    assert [g["value"] for g in alike] == [0.05, 0.0, 2.0, 0.5, 1.1]


def test_of_repeats_the_least_seconds_count() -> None:
    assert least([[[0.3, 1.0], None], [[0.2, 1.0], None]]) == [[0.2, 1.0], None]


def test_p_values_are_held_against_all_tables_of_small_samples() -> None:
    for kind, at in (("difference", 0.2), ("ratio", 0.8)):
        ratios = enumerated(6, 4, kind, at)
        assert 1 - 1e-9 <= min(ratios) <= max(ratios) < 1.2


def test_bounds_are_told_with_an_interval_of_the_rates_and_with_all() -> None:
    row = both_ways(30, 1_200)
    assert row["interval_upper"] < row["all_rates_upper"]


def test_the_small_form_of_the_sizes_measures_every_test_on_both_sides() -> None:
    small, every = list(size_cases(small=True)), list(size_cases())
    assert 0 < len(small) < len(every) / 8
    assert {case[0] for case in small} == {case[0] for case in every}
    two = [case for case in small if case[0] != "two models"]
    assert {n1 + n0 > WHOLE_UP_TO for _, n1, n0, _, _ in two} == {False, True}
