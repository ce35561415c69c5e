"""A small workload of this suite's own: fresh rows, and a promise that can be kept.

Rows of a public table would be sealed rows that an earlier run on the same store has
spent, so that its next model is not champion but `pending`. These are drawn anew for
each call, by its own seed, so a verdict says something about the plane and nothing
about its past.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROWS = 12_000
COLUMNS = ("skill", "hours", "trade", "group", "hired")

# A third of a minute on two CPUs: long enough for a pod to be lost while it trains.
_TRAINING = {"num_agents": 4, "steps": 400, "trunk_steps": 100, "seed": 0}
_SEARCH = {"candidates": 3, "rung_steps": 20, "power_draws": 500, "seed": 0}


@dataclass(frozen=True)
class Table:
    """Rows to learn from.

    Attributes:
        name: file name, without its ending.
        seed: of the rows; another seed is other people.
        rows: how many.
    """

    name: str
    seed: int
    rows: int = ROWS

    def csv(self) -> bytes:
        """Returns the rows: skill decides, the group does not."""
        random = np.random.default_rng(self.seed)
        skill = random.normal(size=self.rows)
        hours = random.normal(40, 8, size=self.rows)
        trade = random.choice(["clay", "glass", "wood"], size=self.rows)
        group = random.choice(["a", "b"], size=self.rows)
        noise = random.logistic(scale=0.5, size=self.rows)
        hired = 2.0 * skill + (hours - 40) / 16 + noise > 0
        columns = (skill, hours, trade, group, hired)
        lines = [
            f"{s:.6f},{h:.4f},{t},{g},{'yes' if y else 'no'}"
            for s, h, t, g, y in zip(*columns, strict=True)
        ]
        return "\n".join([",".join(COLUMNS), *lines, ""]).encode()


def write_workload(
    folder: Path, source: str, registry: str, **sections: dict[str, object]
) -> Path:
    """Writes a workload file and its constitution; JSON is YAML too.

    Args:
        folder: where to.
        source: URI or path of the rows.
        registry: name of the registry that a model goes to.
        **sections: keys that replace those of a section.
    """
    data = {
        "source": source,
        "label": "hired",
        "positive": "yes",
        "sensitive": ["group"],
        "splits": {
            "train": 0.4,
            "validation": 0.1,
            "constraint": 0.1,
            "monitor": 0.05,
            "select": 0.05,
            "sealed": 0.3,
        },
        "seed": 0,
    }
    given = {
        "data": data,
        "search": dict(_SEARCH),
        "training": dict(_TRAINING),
        "registry": {"name": registry, "description": "Acceptance of a cluster."},
    }
    for name, keys in sections.items():
        given.setdefault(name, {}).update(keys)
    constitution = {
        "schema": 1,
        "constitution": {"id": registry, "version": "1.0.0", "owner": "acceptance"},
        "principles": [
            _promise("equal-chances", metric="tpr_gap", group="group", threshold=0.2),
            _promise("useful", metric="accuracy", op=">=", threshold=0.6),
        ],
        "gate": {"alpha": 0.05, "planned_submissions": 1},
    }
    folder.mkdir(parents=True, exist_ok=True)
    rules = folder / "constitution.yaml"
    rules.write_text(json.dumps(constitution), encoding="utf-8")
    workload = folder / "workload.yaml"
    text = {"schema": 1, "constitution_file": rules.name, **given}
    workload.write_text(json.dumps(text), encoding="utf-8")
    return workload


def _promise(name: str, **constraint: object) -> dict[str, object]:
    return {"id": name, "constraint": {"tier": "hard", **constraint}}
