"""Counts: what the development side may know of the sealed split."""

from __future__ import annotations

import json

import numpy as np
import pytest

from safescale_ammt.data.counts import Counts, LabelCounts, SplitCounts, tally
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


def test_masked_cells_under_ten_are_written_as_such_and_read_as_nine() -> None:
    shown = counts(masked=True)
    cells = shown.to_dict()["splits"]["sealed"]["groups"]["sex"]
    assert cells["M"] == {"rows": 44, "labels": {"no": 40, "yes": "<10"}}
    assert cells["X"]["rows"] == "<10"
    assert shown.group("sealed", "sex")[1:] == [("M", 44, 9), ("X", 9, 9)]


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
    with pytest.raises(InputError, match="schema 2, this version reads schema 1"):
        Counts.from_dict({**_form(), "schema": 2})
    with pytest.raises(InputError, match=r"do not have the form of counts\.json"):
        Counts.from_dict([])
    with pytest.raises(InputError, match="name 'maybe' as positive"):
        Counts.from_dict({**_form(), "positive": "maybe"})
    for strange in (-1, 2.5, True, "many"):
        form = _form()
        form["splits"]["sealed"]["groups"]["sex"]["F"]["rows"] = strange
        with pytest.raises(InputError, match=r"do not have the form of counts\.json"):
            Counts.from_dict(form)


def test_cells_know_what_is_hidden() -> None:
    split = SplitCounts(20, {"g": {"a": LabelCounts(20, (None, 15))}})
    found = Counts(("no", "yes"), "yes", {"sealed": split})
    assert found.group("sealed", "g") == [("a", 20, 15)]
