"""Tables of Adult's shape, and wide ones, for benchmarks of sizes.

Hardly two rows of a table are equal. The label depends on two columns, the groups are
drawn by themselves: a model can be better than one answer for all, and is fair.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

NARROW = 15
"""Columns of Adult, label and groups among them."""
DRAWN = 1 << 17
"""Rows that are drawn at once."""
SPLITS = dict.fromkeys(("validation", "constraint", "monitor", "select"), 0.1)
DATA = {
    "label": "income",
    "positive": ">50K",
    "sensitive": ["race", "sex"],
    "splits": {"train": 0.4, **SPLITS, "sealed": 0.2},
}
# Levels of Adult's columns of texts, and how unequal they are.
LEVELS = {
    "workclass": 9,
    "education": 16,
    "marital-status": 7,
    "occupation": 15,
    "relationship": 6,
    "race": 5,
    "sex": 2,
    "native-country": 42,
}


def promises(opportunity: float) -> dict[str, Any]:
    """Returns a constitution's rules for such a table.

    Args:
        opportunity: the most that true-positive rates by sex may differ.
    """
    by_sex = {"metric": "tpr_gap", "group": "sex", "threshold": opportunity}
    by_race = {"metric": "dp_gap", "group": "race", "threshold": 0.4}
    return {
        "schema": 1,
        "constitution": {"id": "scale"},
        "principles": [
            {"id": "equal-opportunity", "constraint": by_sex},
            {"id": "parity", "constraint": by_race},
        ],
    }


def drawn(rows: int, columns: int, seed: int = 0) -> Iterator[pa.Table]:
    """Yields a table by parts: of Adult's shape with 15 columns, else a wide one."""
    rng = np.random.default_rng(seed)
    for start in range(0, rows, DRAWN):
        n = min(DRAWN, rows - start)
        yield adult_like(rng, n) if columns == NARROW else wide(rng, n, columns)


def adult_like(rng: np.random.Generator, n: int) -> pa.Table:
    """Draws rows with the columns, levels and gaps of Adult."""
    texts = {}
    for name, count in LEVELS.items():
        share = 1 / np.arange(1, count + 1) ** 1.2
        codes = rng.choice(count, n, p=share / share.sum())
        levels = pa.array([f"{name} {i}" if i else "?" for i in range(count)])
        texts[name] = levels.take(pa.array(codes))
    gain = np.where(rng.random(n) < 0.92, 0, rng.integers(100, 99_999, n) // 37)
    education = rng.integers(1, 17, n)
    odds = 0.1 + 0.02 * education + 0.3 * (gain > 100)
    label = np.where(rng.random(n) < odds, ">50K", "<=50K")
    return pa.table(
        {
            "age": rng.integers(17, 91, n),
            "fnlwgt": rng.integers(12_285, 1_490_400, n),
            "education-num": education,
            "capital-gain": gain,
            "capital-loss": np.where(
                rng.random(n) < 0.95, 0, rng.integers(155, 4356, n)
            ),
            "hours-per-week": np.minimum(rng.poisson(40, n), 99),
            **texts,
            "income": label,
        }
    )


def wide(rng: np.random.Generator, n: int, columns: int) -> pa.Table:
    """Draws rows of numbers, whole numbers and levels, with a label and two groups."""
    found: dict[str, Any] = {}
    for i in range(columns - 3):
        if i % 5 < 3:
            found[f"x{i}"] = rng.normal(size=n)
        elif i % 5 == 3:
            found[f"n{i}"] = rng.integers(0, 50, n)
        else:
            found[f"c{i}"] = pa.array([f"v{v}" for v in rng.integers(0, 12, n)])
    for name, levels in {"race": "abcde", "sex": "fm"}.items():
        found[name] = pa.array(rng.choice([*levels], n))
    found["income"] = np.where(rng.random(n) < 0.3, ">50K", "<=50K")
    return pa.table(found)


def put(folder: Path, rows: int, columns: int) -> None:
    """Writes a table and the data section that describes it."""
    file = folder / "rows.csv"
    parts = drawn(rows, columns)
    first = next(parts)
    with pa_csv.CSVWriter(file, first.schema) as writer:
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)
    section = {**DATA, "source": file.as_uri()}
    (folder / "data.json").write_text(json.dumps(section))
