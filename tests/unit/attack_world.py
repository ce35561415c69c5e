"""Small tables under attack, and models that a test can reckon by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.table_threats import TableThreat, read_table_threat
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    NumericFeature,
    Schema,
)
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.table_attack import SURVIVED, TableAttack

Score = Callable[[Mapping[str, np.ndarray]], np.ndarray]
JOBS = ("full", "none", "part")


def number(name: str) -> NumericFeature:
    return NumericFeature(name, True, 0.0, 0.0, 1.0, (0.0, 1.0), ())


def schema() -> Schema:
    """Two numbers, two categories, one of them sensitive, and a date."""
    return Schema(
        features=(
            number("age"),
            number("hours"),
            CategoricalFeature("job", True, JOBS, pooled=False, frequency={}),
            CategoricalFeature("sex", False, ("f", "m"), pooled=False, frequency={}),
            DateFeature("since", zoned=False, parts=(number("elapsed"),)),
        ),
        label="granted",
        classes=("no", "yes"),
        positive="yes",
        sensitive=("sex",),
        groups={"sex": ("f", "m")},
        merges={},
        crosses={},
        drop=(),
        entity="",
        columns=("age", "hours", "job", "sex", "since", "granted"),
        missing=(),
        label_map={},
        comment="",
    )


def rows(**columns: Any) -> pa.Table:
    """A table of the schema; columns that are not given are one value throughout."""
    size = len(next(iter(columns.values())))
    kinds = {
        "age": (pa.float64(), 0.0),
        "hours": (pa.float64(), 0.0),
        "job": (pa.string(), "none"),
        "sex": (pa.string(), "f"),
        "since": (pa.timestamp("us"), 0),
    }
    return pa.table(
        {
            name: pa.array(columns.get(name, [default] * size), kind)
            for name, (kind, default) in kinds.items()
        }
    )


def threat(changes: int = 1, **columns: Any) -> TableThreat:
    return read_table_threat({"changes": changes, "columns": columns}, "threat")


def model(score: Score) -> Callable[[pa.Table], tuple[np.ndarray, np.ndarray]]:
    """Answers yes from a score of one half on; texts are objects, gaps are NaN."""

    def answer(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        columns = {
            name: pc.cast(column, pa.string()).to_numpy().astype(object)
            if pa.types.is_dictionary(column.type)
            else column.to_numpy()
            for name, column in zip(table.column_names, table.columns, strict=True)
        }
        found = np.asarray(score(columns), dtype=float)
        return found, (found >= 0.5).astype(np.int64)

    return answer


def attacked(
    table: pa.Table, what: TableThreat, score: Score, label: Any = None
) -> list[str]:
    """Returns in words what becomes of rows; by default each is answered right."""
    answer = model(score)
    attack = TableAttack(what, schema(), "seed", 1)
    right = answer(table)[1]
    label = right if label is None else np.asarray(label)
    codes = np.where(right == label, attack.outcomes(table, label, answer), -2)
    words, places = attack.told(codes)
    return [words[i] for i in places]


def survivors(table: pa.Table, what: TableThreat, score: Score) -> int:
    return attacked(table, what, score).count(SURVIVED)


def promise(threshold: float = 0.7, **rest: Any) -> Constitution:
    """One promise of robust accuracy; the age may move by 2."""
    asked = {"changes": 1, "columns": {"age": {"by": 2, "step": 1}}}
    constraint = {"metric": "robust_accuracy", "threshold": threshold, "threat": asked}
    return Constitution.from_dict(
        {
            "schema": 1,
            "principles": [{"id": "steady", "constraint": {**constraint, **rest}}],
            "groups": {"min_n": 50, "min_pos": 20},
        }
    )


def outcomes(words: list[str], rule: Constitution) -> Evidence:
    """Evidence of rows of the sexes in turn; each answer agrees with the outcome."""
    (what,) = rule.table_threats
    values = ("survived", "wrong as it is", "not drawn", "broken by age")
    codes = np.array([values.index(word) for word in words])
    label = np.arange(len(words)) // 2 % 2
    prediction = np.where(codes == 1, 1 - label, label)
    sex = np.arange(len(words)) % 2
    return Evidence(
        label,
        prediction,
        prediction.astype(float),
        {"sex": (("f", "m"), sex)},
        twin_prediction=label,
        twin_score=label.astype(float),
        attacks={what.key: (values, codes)},
    )
