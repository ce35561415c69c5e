"""Counts of the sealed split: a small cell cannot be computed from the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, milp

from safescale_ammt.data.associations import joint
from safescale_ammt.data.attack import LEAST_RANGE
from safescale_ammt.data.counts import SplitCounts, Withheld, tally
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
        if isinstance(n, Withheld)
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
    assert told.groups["both"]["fb"].labels[1] is Withheld.SMALL
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
                if not isinstance(n, Withheld):
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


# --- the attacker of the tests, who sees no more than what is told ---

Cell = tuple[str, str, int]
Rows = tuple[np.ndarray, dict[str, tuple[tuple[str, ...], np.ndarray]]]


def cells_of(told: SplitCounts) -> Iterator[tuple[Cell, int | Withheld]]:
    for name, values in told.groups.items():
        for value, cell in values.items():
            for code, n in [(-1, cell.rows), *enumerate(cell.labels)]:
                yield (name, value, code), n


def widths(
    rows: Rows, classes: int, told: dict[Cell, int | Withheld]
) -> Iterator[float]:
    """Ranges of all cells under 10 in whole tables; he knows who may exist."""
    label, groups = rows
    every = [codes.tolist() for _, codes in groups.values()]
    kinds = sorted(set(zip(*every, strict=True)))
    finest = [(kind, c) for kind in kinds for c in range(classes)]
    names = list(groups)

    def inside(cell: Cell) -> np.ndarray:
        name, value, code = cell
        i, at = names.index(name), groups[name][0].index(value)
        return np.array(
            [kind[i] == at and code in (-1, c) for kind, c in finest], dtype=float
        )

    sums = [(np.ones(len(finest)), len(label), len(label))]
    for cell, n in told.items():
        least, most = {
            Withheld.SMALL: (0, 9),
            Withheld.HIDDEN: (10, len(label)),
        }.get(n, (n, n))  # type: ignore[arg-type]
        sums.append((inside(cell), least, most))
    a, low, high = map(np.array, zip(*sums, strict=True))
    for cell, n in told.items():
        target = inside(cell)
        if n is Withheld.SMALL and target.any():
            ends = [
                milp(
                    sign * target,
                    integrality=np.ones(len(finest)),
                    constraints=LinearConstraint(a, low, high),
                )
                for sign in (1, -1)
            ]
            assert all(end.status == 0 for end in ends)
            yield -ends[1].fun - ends[0].fun


def told_of(rows: Rows, classes: int) -> dict[Cell, int | Withheld]:
    label, groups = rows
    told = shown_counts(label, groups, classes, np.ones(len(label), bool))
    return dict(cells_of(told))


def marked(rows: Rows, classes: int, hidden: Iterable[Cell]) -> dict:
    """What would be told if these cells were hidden beside the small ones."""
    label, groups = rows
    told = dict(cells_of(tally(label, groups, classes, masked=True)))
    return {**told, **dict.fromkeys(hidden, Withheld.HIDDEN)}


def complementary(told: dict[Cell, int | Withheld]) -> set[Cell]:
    return {cell for cell, n in told.items() if n is Withheld.HIDDEN}


def nothing_told(told: dict[Cell, int | Withheld]) -> bool:
    return all(n is Withheld.HIDDEN for n in told.values())


def table_rows(
    counts: dict[tuple[int, ...], int], crosses: Iterable[tuple[int, int]] = ()
) -> Rows:
    """Rows of {(group codes ..., class): how many}, with crosses of the columns."""
    keys = np.array(list(counts))
    each = np.repeat(np.arange(len(counts)), list(counts.values()))
    codes = keys[each]
    groups = {
        f"g{i}": (tuple(f"v{j}" for j in range(int(keys[:, i].max()) + 1)), codes[:, i])
        for i in range(keys.shape[1] - 1)
    }
    for i, j in crosses:
        pair, parts = joint([codes[:, i], codes[:, j]])
        values = tuple(f"v{a} & v{b}" for a, b in zip(*parts, strict=True))
        groups[f"x{i}{j}"] = (values, pair)
    return codes[:, -1], groups


# Small cells are rare in real tables and frequent here.
SIZE = st.one_of(st.integers(0, 9), st.integers(10, 14), st.integers(10, 300))


@st.composite
def tables(draw: st.DrawFn) -> tuple[Rows, int]:
    """Two group columns of 1-3 values, 2-4 classes, and perhaps their cross."""
    a, b = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    classes = draw(st.integers(2, 4))
    keys = list(itertools.product(range(a), range(b), range(classes)))
    sizes = draw(st.lists(SIZE, min_size=len(keys), max_size=len(keys)))
    sizes[0] += 20
    crosses = [(0, 1)] if draw(st.booleans()) else []
    return table_rows(dict(zip(keys, sizes, strict=True)), crosses), classes


@settings(max_examples=25, deadline=None)
@given(tables())
def test_no_small_count_can_be_narrowed_to_fewer_than_three(drawn) -> None:
    rows, classes = drawn
    told = told_of(rows, classes)
    # Where not even which cells are small is told, all rows are all that is known.
    if not nothing_told(told):
        assert min(widths(rows, classes, told), default=2) >= LEAST_RANGE


@settings(max_examples=15, deadline=None)
@given(tables())
def test_none_of_the_hidden_counts_could_be_shown_as_well(drawn) -> None:
    rows, classes = drawn
    told = told_of(rows, classes)
    for cell in () if nothing_told(told) else complementary(told):
        fewer = marked(rows, classes, complementary(told) - {cell})
        assert any(width < LEAST_RANGE for width in widths(rows, classes, fewer))


@settings(max_examples=30, deadline=None)
@given(tables())
def test_a_withheld_count_never_reads_larger_than_it_is(drawn) -> None:
    (label, groups), classes = drawn
    everyone = np.ones(len(label), bool)
    told = shown_counts(label, groups, classes, everyone)
    full = tally(label, groups, classes)
    for name in groups:
        assert (told.least[name] <= full.least[name]).all()
        for i, cell in enumerate(told.groups[name].values()):
            if not isinstance(cell.rows, Withheld):
                assert told.least[name][i, -1] == cell.rows


@settings(max_examples=25, deadline=None)
@given(st.lists(SIZE, min_size=6, max_size=6))
def test_one_column_hides_the_fewest_groups_then_cells_then_rows(sizes) -> None:
    """Against every choice there is."""
    sizes[0] += 20
    keys = itertools.product(range(3), range(2))
    rows = table_rows(dict(zip(keys, sizes, strict=True)))
    true = dict(cells_of(tally(*rows, 2)))
    small = {cell[1] for cell, n in true.items() if n < 10}
    large = [cell for cell, n in true.items() if n >= 10]

    def cost(hidden: Iterable[Cell]) -> tuple[int, int, int]:
        hidden = list(hidden)
        groups = {cell[1] for cell in hidden} - small
        return len(groups), len(hidden), sum(true[cell] for cell in hidden)

    told = told_of(rows, 2)
    choices = itertools.chain.from_iterable(
        itertools.combinations(large, n) for n in range(len(large) + 1)
    )
    for hidden in sorted(choices, key=cost):
        told_so = marked(rows, 2, hidden)
        if all(width >= LEAST_RANGE for width in widths(rows, 2, told_so)):
            assert cost(complementary(told)) == cost(hidden)
            return
    assert nothing_told(told)


def test_a_small_group_hides_nothing_of_another_column() -> None:
    """Five rows without a sex among 3,000 by race."""
    sizes = {0: (300, 60), 1: (420, 75), 2: (500, 90)}
    counts = {
        (race, sex, c): sizes[race][c] + 7 * sex
        for race, sex, c in itertools.product(range(3), range(2), range(2))
    }
    counts |= {(0, 2, 0): 2, (1, 2, 0): 2, (2, 2, 1): 1}
    told = told_of(table_rows(counts), 2)
    assert all(isinstance(n, int) for cell, n in told.items() if cell[0] == "g0")
    # The smaller of the two others is hidden, and it alone.
    assert complementary(told) == {("g1", "v0", code) for code in (-1, 0, 1)}
    crossed = told_of(table_rows(counts, [(0, 1)]), 2)
    assert all(isinstance(n, int) for cell, n in crossed.items() if cell[0] == "g0")


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_a_group_of_three_people_takes_one_other_group_with_it(classes: int) -> None:
    counts = {(v, c): 100 * (v + 1) + 10 * c for v in range(3) for c in range(classes)}
    counts[3, 0], counts[3, 1] = 2, 1
    told = told_of(table_rows(counts), classes)
    assert {cell[1] for cell in complementary(told)} == {"v0"}
    assert told["g0", "v3", -1] is Withheld.SMALL


def test_two_small_groups_protect_each_other() -> None:
    counts = {(0, 0): 500, (0, 1): 300, (1, 0): 4, (1, 1): 3, (2, 0): 2, (2, 1): 5}
    assert complementary(told_of(table_rows(counts), 2)) == set()


def test_a_column_of_one_value_tells_its_rows() -> None:
    told = told_of(table_rows({(0, 0): 95, (0, 1): 5}), 2)
    assert told == {
        ("g0", "v0", -1): 100,
        ("g0", "v0", 0): Withheld.HIDDEN,
        ("g0", "v0", 1): Withheld.SMALL,
    }


def test_where_nothing_protects_not_even_which_is_small_is_told() -> None:
    # Of 11 rows at least 10 are of one class: hiding that one says what is left.
    assert nothing_told(told_of(table_rows({(0, 0): 10, (0, 1): 1}), 2))


def test_a_value_that_no_row_has_hides_nothing() -> None:
    label, groups = table_rows({(0, 0): 50, (0, 1): 40, (1, 0): 30, (1, 1): 20})
    groups = {"g0": (("v0", "v1", "v2"), groups["g0"][1])}
    assert complementary(told_of((label, groups), 2)) == set()
