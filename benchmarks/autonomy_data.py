"""Four data sets for `autonomy`: three of scikit-learn's, and rows of Adult."""

from __future__ import annotations

import csv
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn import datasets

from safescale_ammt.data.dataset import Dataset
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import fetch
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.uri import STORE
from safescale_ammt.training.encoded import EncodedDataset

CACHE = Path.home() / ".cache" / "safescale-ammt"
NAMES = ("breast_cancer", "digits", "wine", "adult")
SPLITS = {
    "train": 0.45,
    "constraint": 0.1,
    "validation": 0.15,
    "monitor": 0.1,
    "select": 0.15,
    "sealed": 0.05,
}
HELD = ("monitor", "select")
"""Splits that no method reads: without promises nothing is monitored."""
ADULT_ROWS = 4000
"""First rows of the official training file; the official test file is not read."""


def encoded(name: str, seed: int, cache: Path = CACHE) -> EncodedDataset:
    """Splits a data set by a seed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = folder / "table.csv"
        asked = adult(table, cache) if name == "adult" else bundled(name, table)
        data = {**asked, "source": table.as_uri(), "splits": SPLITS, "seed": seed}
        prepare_data.run(
            data,
            *(folder / "data", folder / "holdout"),
            environ={STORE: (folder / "store").as_uri()},
        )
        dataset = Dataset.load(folder / "data")
        # Read while the folder is there.
        return EncodedDataset(replace(dataset, splits=dict(dataset.splits)))


def adult(table: Path, cache: Path) -> dict[str, Any]:
    """Writes the first rows of Adult; returns the keys that describe them."""
    lines = fetch("adult", cache)["source"].read_text("utf-8").splitlines()
    rows = [line for line in lines if line.strip()][:ADULT_ROWS]
    table.write_text("\n".join([*rows, ""]), encoding="utf-8")
    return {key: v for key, v in ADULT.data.items() if key != "sealed_source"}


def bundled(name: str, table: Path) -> dict[str, Any]:
    """Writes a data set that scikit-learn brings along; returns its description."""
    found: Any = getattr(datasets, f"load_{name}")()
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"x{i}" for i in range(found.data.shape[1])), "label"])
        for inputs, label in zip(found.data.tolist(), found.target, strict=True):
            writer.writerow([*inputs, f"class {label}"])
    return {"label": "label"}
