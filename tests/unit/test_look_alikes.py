"""Levels that look like one value are counted, and named only where many share them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from safescale_ammt.data.look_alikes import alike_pairs, look_alikes
from safescale_ammt.reading.columns import Column


@pytest.mark.parametrize(
    ("levels", "pairs"),
    [
        (["F", "f", "female", "M", "m", "male"], 6),
        (["Female", "female ", "FEMALE"], 3),
        (["São Paulo", "Sao Paulo"], 1),
        (["self-emp", "self emp", "Self_Emp"], 3),
        (["yes", "yes.", "no"], 1),
        (["Y", "Yes", "N", "No"], 2),
        (["CA", "California", "Nevada"], 1),
        (["new  york", "New York"], 1),
        (["30%", "30 %", "40%"], 1),
        (["<50", "< 50", "50"], 1),
        (["18-30", "18 \u2013 30", "18\u201330"], 3),
        (["F", "F\u200b", "\ufeffF"], 3),
        (["M", "\u041c"], 1),
        (["O'Neill", "O\u2019Neill"], 1),
        (["5 - 3", "5", "53", "-53"], 0),
        # `m` may be either of two words, and so is neither's.
        (["m", "male", "married"], 0),
        (["<=50K", ">50K"], 0),
        (["A", "A-", "A+", "B", "AB"], 0),
        (["C", "C#", "C++"], 0),
        (["1-5", "15", "1.5", "-1", "1"], 0),
        (["north", "northwest"], 0),
        (["a", "b", "c"], 0),
        (["", "F", "M"], 0),
    ],
)
def test_pairs_are_counted(levels: list[str], pairs: int) -> None:
    assert alike_pairs(levels)[0] == pairs


def column(counts: dict[str, int]) -> Column:
    texts = [text for text, rows in counts.items() for _ in range(rows)]
    return Column.of(pa.chunked_array([pa.array(texts, pa.string())]))


def test_only_levels_that_ten_rows_share_are_named() -> None:
    columns = {"sex": column({"F": 20, "f": 20, "female": 3, "M": 20})}
    assert look_alikes(columns, ["sex"]) == {"sex": {"pairs": 3, "levels": ["F", "f"]}}
    assert look_alikes(columns, []) == {"sex": {"pairs": 3}}
    many = {"sex": column({"F": 20, "f": 20} | {f"v{i}": 20 for i in range(10)})}
    assert look_alikes(many, ["sex"]) == {"sex": {"pairs": 1}}
    assert look_alikes({"sex": column({"F": 20, "M": 20})}, ["sex"]) == {}
