"""A small training problem, and everything a training test needs around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import preparing
from small_tables import HEADER, config, loans, save, spell

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.files.artifacts import verify, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.tree_genome import AnyGenome

GENOME = Genome(widths=(8,), dropout=0.1)
BRIEF: Mapping[str, Any] = {
    "num_agents": 3,
    "steps": 60,
    "trunk_steps": 20,
    "branch": 0.0,
    "batch_size": 64,
    "learning_rate": 0.01,
    "warmup_steps": 5,
    "ema": 0.9,
    "sync_every": 10,
    "dual_every": 5,
    "folds": 4,
}
"""A training section that takes a fraction of a second."""
TPR: Mapping[str, Any] = {"metric": "tpr_gap", "group": "gender", "threshold": 0.3}
DP: Mapping[str, Any] = {"metric": "dp_gap", "group": "gender", "threshold": 0.05}
USEFUL: Mapping[str, Any] = {
    "metric": "accuracy",
    "reference": "unconstrained_twin",
    "delta": -0.3,
}


def promises(*constraints: Mapping[str, Any], **groups: int) -> dict[str, Any]:
    """Returns a constitution's mapping with one principle per constraint."""
    listed = [
        {"id": c["metric"].replace("_", "-"), "constraint": dict(c)}
        for c in constraints
    ]
    sizes = {"min_n": 20, "min_pos": 10, **groups}
    return {"schema": 1, "principles": listed, "groups": sizes}


def constitution(*constraints: Mapping[str, Any], **groups: int) -> Constitution:
    """Returns a parsed constitution."""
    return Constitution.from_dict(promises(*constraints, **groups))


def brief(**changes: Any) -> TrainingConfig:
    """Returns the brief training section, with changes."""
    return TrainingConfig.from_params({**BRIEF, **changes})


def prepared(folder: Path, rows: int = 1200, seed: int = 0, **changes: Any) -> Path:
    """Prepares a dataset of loans and returns its folder."""
    return prepare(folder, spell(loans(rows, seed)), **changes)


def prepared_three_classes(folder: Path, rows: int = 900, **changes: Any) -> Path:
    """Prepares loans that are granted, refused or deferred."""
    rng = np.random.default_rng(5)
    table = loans(rows, 3)
    for row in table:
        if rng.random() < 0.3 + 0.2 * (row[3] == "f"):
            row[-1] = "later"
    return prepare(folder, spell(table), **changes)


def prepare(folder: Path, table: bytes, **changes: Any) -> Path:
    """Prepares any table with the columns of the loans."""
    assert table.startswith(",".join(HEADER).encode())
    source = save(folder / "raw.csv", table)
    preparing.run(
        config(source=source, **changes), folder / "dataset", folder / "holdout"
    )
    return folder / "dataset"


def searched(
    folder: Path, dataset: Path, promises: Mapping[str, Any], genome: AnyGenome = GENOME
) -> Path:
    """Writes an architecture artifact as the search would."""
    out = folder / "architecture"
    parents = {
        "dataset": verify(dataset, "dataset").identity,
        "constitution": Constitution.from_dict(promises).digest,
    }
    with writing(out, kind="architecture", stage="test", parents=parents) as draft:
        write_json(draft.folder / "genome.json", genome.to_dict())
    return out
