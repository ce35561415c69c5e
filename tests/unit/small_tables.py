"""Small generated tables of loan applications, for the tests of raw data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HEADER = ("age", "gain", "city", "gender", "origin", "id", "approved")
CONFIG: Mapping[str, Any] = {
    "label": "approved",
    "positive": "yes",
    "sensitive": ["gender", "origin"],
    "drop": ["id"],
    "splits": {
        "train": 0.4,
        "validation": 0.1,
        "constraint": 0.1,
        "monitor": 0.1,
        "select": 0.1,
        "sealed": 0.2,
    },
}
GROUPS: Mapping[str, Any] = {
    "merges": {
        "north": {"column": "origin", "values": {"north": "north"}, "other": "else"}
    },
    "crosses": {"both": ["gender", "north"]},
}
"""A merge and a cross, for those who ask: more groups cost more time."""


def loans(rows: int = 600, seed: int = 0, first_id: int = 0) -> list[list[str]]:
    """Generates rows: missing ages, a zero-inflated gain, rare cities, two groups."""
    rng = np.random.default_rng(seed)
    table = []
    for i in range(rows):
        gender = "f" if rng.random() < 0.4 else "m"
        origin = rng.choice(["north", "south", "west"], p=[0.6, 0.3, 0.1])
        age = "" if rng.random() < 0.05 else str(int(rng.integers(18, 80)))
        gain = "0" if rng.random() < 0.8 else str(rng.choice([500, 900, 1234]))
        city = str(rng.choice(["oslo", "rome", "bonn"], p=[0.6, 0.35, 0.05]))
        odds = 0.3 + 0.3 * (gender == "m") + 0.2 * (gain != "0")
        label = "yes" if rng.random() < odds else "no"
        table.append([age, gain, city, gender, str(origin), str(first_id + i), label])
    return table


def spell(
    rows: Sequence[Sequence[str]], header: Sequence[str] | None = HEADER
) -> bytes:
    """Spells rows as CSV; None leaves the header out."""
    lines = [",".join(row) for row in ([header] if header else []) + list(rows)]
    return ("\n".join(lines) + "\n").encode()


def save(path: Path, data: bytes) -> str:
    """Writes bytes and returns the file's URI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path.as_uri()


def config(**changes: Any) -> dict[str, Any]:
    """Returns the data section of these tables, with changes."""
    return {**CONFIG, **changes}


def officially_sealed(**changes: Any) -> dict[str, Any]:
    """Returns the data section for a source with an official test file."""
    splits = {
        "train": 0.6,
        "validation": 0.1,
        "constraint": 0.1,
        "monitor": 0.1,
        "select": 0.1,
    }
    return config(splits=splits, **changes)
