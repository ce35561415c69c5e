"""Counts: what the development side may know of the sealed split."""

from __future__ import annotations

import json

import numpy as np
import pytest

from safescale_ammt.data.counts import (
    Counts,
    LabelCounts,
    SplitCounts,
    Withheld,
    tally,
)
from safescale_ammt.errors import InputError

LABEL = np.array([1] * 30 + [0] * 70 + [1] * 4 + [0] * 40)
SEX = np.array([0] * 100 + [1] * 44)
GROUPS = {"sex": (("F", "M", "X"), SEX)}


def counts(*, masked: bool = False) -> Counts:
    split = tally(LABEL, GROUPS, 2, masked=masked)
    return Counts(("no", "yes"), "yes", {"sealed": split})


def test_tally_counts_rows_and_labels_of_every_value() -> None:
    assert counts().group("sealed", "sex") == [
        ("F", 100, 30),
        ("M", 44, 4),
        ("X", 0, 0),
    ]


def test_masked_cells_under_ten_are_written_as_such_and_read_as_their_least() -> None:
    shown = counts(masked=True)
    cells = shown.to_dict()["splits"]["sealed"]["groups"]["sex"]
    assert cells["M"] == {"rows": 44, "labels": {"no": 40, "yes": "<10"}}
    assert cells["X"]["rows"] == "<10"
    # All rows are 144: what the others leave for M's positives and for X.
    assert shown.group("sealed", "sex")[1:] == [("M", 44, 4), ("X", 0, 0)]


def test_counts_survive_json_and_the_floats_of_kfp(tmp_path) -> None:
    shown = counts(masked=True)
    (tmp_path / "counts.json").write_text(json.dumps(shown.to_dict()))
    assert Counts.load(tmp_path) == shown
    assert Counts.load(tmp_path / "counts.json") == shown
    floats = json.loads(json.dumps(shown.to_dict()), parse_int=float)
    floats["schema"] = 1
    assert Counts.from_dict(floats) == shown


def test_the_table_holds_every_class() -> None:
    label = np.array([0, 1, 2, 2])
    split = tally(label, {"g": (("a", "b"), np.array([0, 0, 1, 1]))}, 3)
    values, rows, labels = Counts(("x", "y", "z"), "", {"train": split}).table(
        "train", "g"
    )
    assert values == ("a", "b")
    assert rows.tolist() == [2, 2]
    assert labels.tolist() == [[1, 1, 0], [0, 0, 2]]


def test_an_unknown_split_or_group_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="no split 'select', expected one of sealed"):
        counts().group("select", "sex")
    with pytest.raises(InputError, match="no group 'race', expected one of sex"):
        counts().group("sealed", "race")


def _form() -> dict:
    return counts().to_dict()


def test_other_forms_are_one_clear_sentence() -> None:
    with pytest.raises(InputError, match="schema 3, this version reads 1 and 2"):
        Counts.from_dict({**_form(), "schema": 3})
    with pytest.raises(InputError, match=r"do not have the form of counts\.json"):
        Counts.from_dict([])
    with pytest.raises(InputError, match="name 'maybe' as positive"):
        Counts.from_dict({**_form(), "positive": "maybe"})
    for strange in (-1, 2.5, True, "many"):
        form = _form()
        form["splits"]["sealed"]["groups"]["sex"]["F"]["rows"] = strange
        with pytest.raises(InputError, match=r"do not have the form of counts\.json"):
            Counts.from_dict(form)


SMALL, HIDDEN = Withheld.SMALL, Withheld.HIDDEN


def split_of(rows: int, **groups: dict[str, tuple]) -> SplitCounts:
    """Spells out {value: (rows, labels ...)} by group."""
    return SplitCounts(
        rows,
        {
            name: {
                v: LabelCounts(n, tuple(labels)) for v, (n, *labels) in cells.items()
            }
            for name, cells in groups.items()
        },
    )


def sealed_of(split: SplitCounts) -> Counts:
    return Counts(("no", "yes"), "yes", {"sealed": split})


def test_a_hidden_count_is_written_apart_from_a_small_one_and_read_back() -> None:
    found = sealed_of(split_of(30, g={"a": (HIDDEN, 10, HIDDEN), "b": (SMALL,) * 3}))
    form = json.loads(json.dumps(found.to_dict()))
    assert form["schema"] == 2
    cells = form["splits"]["sealed"]["groups"]["g"]
    assert cells["a"] == {"rows": "hidden", "labels": {"no": 10, "yes": "hidden"}}
    assert cells["b"]["rows"] == "<10"
    assert Counts.from_dict(form) == found


def test_without_a_hidden_count_the_schema_stays_the_first() -> None:
    assert counts(masked=True).to_dict()["schema"] == 1
    assert Counts.from_dict(counts(masked=True).to_dict()) == counts(masked=True)


def test_a_hidden_count_reads_as_the_least_that_the_others_leave() -> None:
    # 100 rows; F has 60 of them and X under 10: M has at least 31.
    cells = {"F": (60, 40, 20), "M": (HIDDEN,) * 3, "X": (SMALL,) * 3}
    assert sealed_of(split_of(100, g=cells)).group("sealed", "g")[1:] == [
        ("M", 31, 0),
        ("X", 0, 0),
    ]
    # Another column tells the rows of each class, 65 and 35.
    other = {"a": (50, 35, 15), "b": (50, 30, 20)}
    found = sealed_of(split_of(100, g=cells, h=other))
    values, rows, labels = found.table("sealed", "g")
    assert values == ("F", "M", "X")
    assert rows.tolist() == [60, 31, 0]
    assert labels.tolist() == [[40, 20], [16, 6], [0, 0]]


def test_counts_of_schema_one_never_read_larger_than_they_did() -> None:
    # There "<10" stood for hidden ones too, here for 31 rows and more.
    cells = {"F": (60, 40, 20), "M": (SMALL,) * 3, "X": (SMALL,) * 3}
    found = Counts.from_dict(sealed_of(split_of(100, g=cells)).to_dict())
    _, rows, labels = found.table("sealed", "g")
    assert rows.tolist()[1:] == [9, 9]
    assert labels[1:].max() <= 9


def test_an_unknown_mark_is_no_count() -> None:
    form = sealed_of(split_of(100, g={"F": (60, 40, "secret")})).to_dict()
    with pytest.raises(InputError, match=r"do not have the form of counts\.json"):
        Counts.from_dict(form)
