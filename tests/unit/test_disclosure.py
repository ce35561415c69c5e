"""Counts of the sealed split: a small cell cannot be computed from the others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from safescale_ammt.data.associations import joint
from safescale_ammt.data.counts import SplitCounts, tally
from safescale_ammt.data.disclosure import shown_counts

Table = dict[tuple[str, str, int], int]


def rows_of(table: Table):  # type: ignore[no-untyped-def]
    """Spells out rows of (sex, race, label) counts; sealed only."""
    sex = np.concatenate([np.full(n, "fm".index(s)) for (s, _, _), n in table.items()])
    race = np.concatenate(
        [np.full(n, "abc".index(r)) for (_, r, _), n in table.items()]
    )
    label = np.concatenate([np.full(n, c) for (_, _, c), n in table.items()])
    codes, (s, r) = joint([sex, race])
    names = tuple(f"{'fm'[i]}{'abc'[j]}" for i, j in zip(s, r, strict=True))
    groups = {
        "sex": (("f", "m"), sex),
        "race": (("a", "b", "c"), race),
        "both": (names, codes),
    }
    return label.astype(np.int64), groups


def hidden(counts: SplitCounts) -> set[tuple[str, str, int]]:
    return {
        (name, value, code)
        for name, cells in counts.groups.items()
        for value, cell in cells.items()
        for code, n in [(-1, cell.rows), *enumerate(cell.labels)]
        if n is None
    }


TABLE: Table = {
    ("f", "a", 0): 300,
    ("f", "a", 1): 80,
    ("f", "b", 0): 41,
    ("f", "b", 1): 5,
    ("m", "a", 0): 500,
    ("m", "a", 1): 200,
    ("m", "b", 0): 69,
    ("m", "b", 1): 20,
    ("m", "c", 0): 60,
    ("m", "c", 1): 30,
}


def test_nothing_is_hidden_where_every_cell_is_large() -> None:
    label, groups = rows_of({key: n + 100 for key, n in TABLE.items()})
    told = shown_counts(label, groups, 2, np.ones(len(label), bool))
    assert told == tally(label, groups, 2)


def test_without_groups_only_the_rows_are_told() -> None:
    told = shown_counts(np.zeros(5, np.int64), {}, 2, np.ones(5, bool))
    assert told.rows == 5
    assert told.groups == {}


def test_development_rows_are_not_counted() -> None:
    label, groups = rows_of(TABLE)
    sealed = np.arange(len(label)) % 2 == 0
    told = shown_counts(label, groups, 2, sealed)
    assert told.rows == sealed.sum()


def test_a_small_cell_takes_neighbours_with_it() -> None:
    label, groups = rows_of(TABLE)
    gone = hidden(shown_counts(label, groups, 2, np.ones(len(label), bool)))
    assert ("both", "fb", 1) in gone
    assert len(gone) > 1


@pytest.mark.parametrize("seed", range(6))
def test_two_tables_tell_the_same_figures_and_differ_in_the_small_cell(
    seed: int,
) -> None:
    """What is shown fits at least two whole tables with other small cells."""
    rng = np.random.default_rng(seed)
    table = {key: int(rng.integers(12, 60)) for key in TABLE}
    table["f", "b", 1] = int(rng.integers(0, 10))
    label, groups = rows_of(table)
    told = shown_counts(label, groups, 2, np.ones(len(label), bool))
    assert told.groups["both"]["fb"].labels[1] is None
    assert another_world(table, told)


def another_world(table: Table, told: SplitCounts) -> bool:
    """Looks for whole-number tables that show the same and differ in (f, b, 1).

    Moves along one-unit exchanges between up to six cells.
    """
    keys = list(table)
    target = keys.index(("f", "b", 1))
    members = []
    for name, cells in told.groups.items():
        for value, cell in cells.items():
            for code, n in [(-1, cell.rows), *enumerate(cell.labels)]:
                if n is not None:
                    members.append([_inside(k, name, value, code) for k in keys])
    shown = np.array([*members, [1] * len(keys)], dtype=int)
    for change in itertools.product((-1, 0, 1), repeat=len(keys)):
        if change[target] and not (shown @ np.array(change)).any():
            world = np.array(list(table.values())) + change
            if world.min() >= 0:
                return True
    return False


def _inside(key: tuple[str, str, int], name: str, value: str, code: int) -> int:
    spelled = {"sex": key[0], "race": key[1], "both": key[0] + key[1]}[name]
    return int(spelled == value and code in (-1, key[2]))
