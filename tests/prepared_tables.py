"""Tables whose prepared artifacts are known: every kind of column, row and declaration.

`tests/golden/prepared.json` holds what the code before rows streamed made of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Columns = dict[str, list[str]]
Case = tuple[Columns, Columns | None, dict[str, Any]]
SPLITS = {
    "train": 0.4,
    "validation": 0.1,
    "constraint": 0.1,
    "monitor": 0.1,
    "select": 0.1,
}
SEALED = {**SPLITS, "sealed": 0.2}


def people(n: int, seed: int) -> Columns:
    """Generates columns that most cases have."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m"], n, p=[0.4, 0.6])
    origin = rng.choice(["north", "south", "west", "isle"], n, p=[0.6, 0.3, 0.08, 0.02])
    age = rng.integers(18, 80, n)
    gain = np.where(rng.random(n) < 0.8, 0, rng.choice([500, 900, 1234], n))
    city = rng.choice(["oslo", "rome", "bonn", "nice", "lund"], n)
    label = rng.random(n) < 0.2 + 0.2 * (sex == "m") + 0.3 * (gain > 0)
    return {
        "age": ["" if i % 23 == 0 else str(a) for i, a in enumerate(age)],
        "gain": [*map(str, gain)],
        "city": ["?" if i % 31 == 0 else str(c) for i, c in enumerate(city)],
        "sex": [*map(str, sex)],
        "origin": [*map(str, origin)],
        "approved": ["yes" if y else "no" for y in label],
    }


def section(**changes: Any) -> dict[str, Any]:
    """Returns the data section of such a table."""
    plain = {
        "label": "approved",
        "positive": "yes",
        "sensitive": ["sex", "origin"],
        "splits": SEALED,
    }
    return {**plain, **changes}


def german(x: float) -> str:
    """Spells an amount with points between thousands and a decimal comma."""
    return f"{x:,.2f} EUR".translate(str.maketrans(",.", ".,"))


def first(table: Columns, rows: int) -> Columns:
    """Returns the first rows of a table."""
    return {name: values[:rows] for name, values in table.items()}


def below(one: Columns, other: Columns) -> Columns:
    """Appends rows."""
    return {name: one[name] + other[name] for name in one}


def plain(n: int) -> Case:
    table = people(n, 1)
    return table | {"note": ["same"] * n}, None, section()


def official(n: int) -> Case:
    source, sealed = people(n, 2), people(n // 3, 3)
    # Copies of sealed rows, labels of another spelling, and a value of one side alone.
    source = below(source, first(sealed, n // 20))
    sealed["approved"] = [f"{label}." for label in sealed["approved"]]
    sealed["city"] = [
        "paris" if i % 40 == 0 else c for i, c in enumerate(sealed["city"])
    ]
    maps = {"yes.": "yes", "no.": "no"}
    return source, sealed, section(splits=_official(), label_map=maps)


def _official() -> dict[str, float]:
    return {**SPLITS, "train": 0.6}


def entities(n: int) -> Case:
    rng = np.random.default_rng(4)
    table = people(n, 4)
    who = np.sort(rng.integers(0, n // 3, n))[rng.permutation(n)]
    return table | {"who": [f"person {i}" for i in who]}, None, section(entity="who")


def visits(n: int) -> Case:
    """Entities in two files, repeated rows among them."""
    rng = np.random.default_rng(5)
    source, sealed = people(n, 5), people(n // 4, 6)
    source["who"] = [f"P{i}" for i in rng.integers(0, n // 4, n)]
    sealed["who"] = [f"S{i}" for i in rng.integers(0, n // 8, n // 4)]
    source, sealed = below(source, first(source, 40)), below(sealed, first(sealed, 30))
    return source, sealed, section(entity="who", splits=_official())


def repeats(n: int) -> Case:
    source = people(n, 7)
    source = below(source, first(source, n // 5))
    sealed = below(first(source, 15), people(n // 3, 8))
    sealed = below(sealed, first(sealed, 60))
    return source, sealed, section(drop_duplicates=True, splits=_official())


def equals(n: int) -> Case:
    """Few columns: most rows equal another one, and stay."""
    table = people(n, 9)
    return (
        {k: table[k] for k in ("gain", "city", "sex", "approved")},
        None,
        section(sensitive=["sex"]),
    )


def dressed(n: int) -> Case:
    """Decimal commas, amounts, percent, dates of three kinds, words for booleans."""
    rng = np.random.default_rng(10)
    day = np.datetime64("2019-01-01") + rng.integers(0, 900, n)
    second = np.datetime64("2020-03-01T00:00:00") + rng.integers(0, 10**7, n)
    table = people(n, 10) | {
        "paid": [f"{x:.2f}".replace(".", ",") for x in rng.gamma(2.0, 300.0, n)],
        "debt": [german(x) for x in rng.gamma(2.0, 9e3, n)],
        "share": [f"{x} %" for x in rng.integers(0, 100, n)],
        "since": [f"{d.astype(object):%d/%m/%Y}" for d in day],
        "seen": [f"{s}Z".replace("T", " ") for s in second],
        "until": ["" if i % 9 == 0 else str(d) for i, d in enumerate(day[::-1])],
        "owns": [str(x) for x in rng.choice(["TRUE", "true", "False"], n)],
    }
    return table, None, section(delimiter=";", numbers={"paid": ","})


def unlabelled(n: int) -> Case:
    source, sealed = people(n, 11), people(n // 2, 12)
    for table, every in ((source, 7), (sealed, 11)):
        table["approved"] = [
            ["", "?"][i % 2] if i % every == 0 else y
            for i, y in enumerate(table["approved"])
        ]
    return source, sealed, section(unlabelled="drop", splits=_official())


def other(n: int) -> Case:
    rng = np.random.default_rng(13)
    table = people(n, 13)
    words = rng.choice(["late", "lost", "void"], n)
    table["approved"] = [
        str(w) if y == "no" else y
        for w, y in zip(words, table["approved"], strict=True)
    ]
    maps = {"yes": "yes", "never": "yes"}
    return table, None, section(label_map=maps, label_other="no")


def grouped(n: int) -> Case:
    merged = {"column": "origin", "values": {"north": "north"}, "other": "else"}
    crosses = {"both": ["sex", "north"], "three": ["sex", "origin", "north"]}
    return people(n, 14), None, section(merges={"north": merged}, crosses=crosses)


def names(n: int) -> Case:
    """Texts of their own in most rows, declared levels; others beyond `max_levels`."""
    rng = np.random.default_rng(15)
    table = people(n, 15)
    table["name"] = [f"n{i}" for i in rng.integers(0, 2 * n, n)]
    table["street"] = [f"s{i}" for i in (rng.zipf(1.5, n) % 300)]
    return table, None, section(categorical=["name"], max_levels=16)


def measured(n: int) -> Case:
    """Numbers that hardly any two rows share, in several spellings, and row numbers."""
    rng = np.random.default_rng(16)
    x = rng.normal(0, 1e3, n)
    table = people(n, 16) | {
        "exact": [*map(repr, x.tolist())],
        "fixed": [f"{v:.2f}" for v in x],
        "large": [str(v) for v in rng.integers(0, 10**12, n)],
        "power": [f"{v:.4e}" for v in rng.gamma(1.0, 1e9, n)],
        "holes": ["NaN" if i % 3 == 0 else f"{v:.6f}" for i, v in enumerate(x)],
        "row": [str(i + 1) for i in range(n)],
        "code": [f"A{i:06d}" for i in range(n)],
        "version": [["1.1", "1.10", "2.0"][i % 3] for i in range(n)],
    }
    return table, None, section(drop=["code"], ids=["row"])


def classes(n: int) -> Case:
    rng = np.random.default_rng(17)
    table = people(n, 17)
    table["approved"] = [str(v) for v in rng.choice(["3", "1.0", "2"], n)]
    return table, None, section(positive="", sensitive=[])


def small_groups(n: int) -> Case:
    table = people(n, 18)
    table["origin"] = [f"o{i % 37 if i % 5 == 0 else 0}" for i in range(n)]
    table["empty"] = ["" if i % 97 else "x" for i in range(n)]
    table["Sex "] = [s.upper() for s in table["sex"]]
    return table, None, section(sensitive_in_model=True)


CASES: Mapping[str, Callable[[int], Case]] = {
    made.__name__: made
    for made in (
        *(plain, official, entities, visits, repeats, equals, dressed, unlabelled),
        *(other, grouped, names, measured, classes, small_groups),
    )
}


def written(columns: Columns, delimiter: str = ",") -> bytes:
    """Spells columns as CSV."""
    file = io.StringIO()
    lines = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows(zip(*columns.values(), strict=True))
    return file.getvalue().encode()


def put(folder: Path, name: str, rows: int) -> dict[str, Any]:
    """Writes the files of a case; returns its data section."""
    source, sealed, given = CASES[name](rows)
    folder.mkdir(parents=True, exist_ok=True)
    for key, table in {"source": source, "sealed_source": sealed}.items():
        if table:
            file = folder / f"{key}.csv"
            file.write_bytes(written(table, given.get("delimiter", ",")))
            given[key] = file.as_uri()
    return given
