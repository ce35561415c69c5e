"""What do changes of two columns cost a model of Adult, and its judge in seconds?

    python -m benchmarks rows-under-attack [--seeds 2] [--write]

The canonical 16,281 sealed rows; the age moves by up to 2 years, the hours of work by
up to 5, the class of work becomes any other: up to one, two or three of them at once.
Nets and boosted trees after a short training (what is measured is the judge). One and
two changes are enumerated; for three the search stands beside every one of the three,
so that one sees which rows it fails to break. Sealed rows are read and no use of them
is counted: no model here is ever registered.

About two minutes of CPU a seed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.constraint_first import architecture, constitution_of, prepared
from benchmarks.provenance import ROOT, figure, in_form, store, told
from safescale_ammt.constitution.table_threats import TableThreat, read_table_threat
from safescale_ammt.data.holdout import Holdout
from safescale_ammt.data.row_changes import ChangeableRows
from safescale_ammt.data.unseen import UnseenTally
from safescale_ammt.files.artifacts import read_manifest, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.table_attack import SURVIVED, TableAttack
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.releasing.attacking import under_attack
from safescale_ammt.releasing.rescoring import answered
from safescale_ammt.stages import train_agents
from safescale_ammt.store.protected import made_whole
from safescale_ammt.store.uri import open_store

RESULT = ROOT / "benchmarks" / "results" / "rows-under-attack.json"
COLUMNS: dict[str, Any] = {
    "age": {"by": 2, "step": 1, "range": [17, 90]},
    "hours_per_week": {"by": 5, "step": 1, "range": [1, 99]},
    "workclass": "any",
}
BRIEF = {"steps": 200, "trunk_steps": 40, "num_agents": 2}
SECONDS = 60.0
"""CPU seconds that judging Adult under two changes may take."""


def threat(changes: int) -> TableThreat:
    """Returns the threat of this benchmark."""
    return read_table_threat({"changes": changes, "columns": COLUMNS}, "threat")


def trained(folder: Path, dataset: Path, learner: str, seed: int) -> Path:
    """Trains shortly, and returns the model's folder."""
    rule = constitution_of(0.1)
    place = folder / learner
    place.mkdir()
    genome = architecture(place, dataset, rule)
    if learner == "trees":
        parents = read_manifest(genome).parents
        genome = place / "trees"
        with writing(
            genome, kind="architecture", stage="benchmark", parents=parents
        ) as draft:
            write_json(draft.folder / "genome.json", TreeGenome().to_dict())
    section = {**BRIEF, "seed": seed, "learner": learner}
    train_agents.run(dataset, genome, rule.to_dict(), section, place / "model")
    return place / "model"


def every_three(model: Path, sealed: Holdout, rows: Evidence) -> int:
    """Counts the rows that survive every change of three columns, and of fewer."""
    features, label = sealed.split.features, rows.label
    answer, asked = Predictor.load(model).predict_table, threat(3)
    changeable = ChangeableRows(features, asked, sealed.schema)
    stands = np.asarray(rows.prediction == label)
    for size in (1, 2, 3):
        for choice in changeable.choices(size):
            at = np.flatnonzero(stands)
            at = at[changeable.may_take(at, choice)]
            if len(at):
                changed = changeable.changed(at, np.tile(choice, (len(at), 1)))
                stands[at] = answer(changed).prediction == label[at]
    return int(stands.sum())


def attacks(model: Path, sealed: Holdout) -> Iterator[dict[str, Any]]:
    """Yields what one, two and three changes leave, with CPU seconds."""
    plain = answered(model, sealed.stored, UnseenTally(sealed.schema))
    right = int((plain.prediction == plain.label).sum())
    for changes in (1, 2, 3):
        asked = threat(changes)
        attack = TableAttack(asked, sealed.schema, sealed.identity, 1)
        start = time.process_time()
        found = under_attack(model, sealed.stored, plain, [asked], sealed.identity)
        took = time.process_time() - start
        words, codes = found.attacks[asked.key]
        yield {
            "changes": changes,
            "rows": len(plain.label),
            "right": right,
            "survived": int((codes == words.index(SURVIVED)).sum()),
            "permitted": attack.permitted(sealed.split.features),
            "cpu_s": round(took, 2),
            **({"exact": every_three(model, sealed, plain)} if changes == 3 else {}),
        }


def measured(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Returns one raw row per seed, learner and number of changes."""
    raw = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            dataset, holdout = prepared(folder, seed)
            models = {w: trained(folder, dataset, w, seed) for w in ("nets", "trees")}
            rows = open_store((folder / "store").as_uri())
            with made_whole(rows, holdout, "holdout", folder / "whole") as whole:
                sealed = Holdout.load(whole)
                for learner, model in models.items():
                    for row in attacks(model, sealed):
                        raw.append({"seed": seed, "learner": learner, **row})
                        print(raw[-1], flush=True)
    return raw


def figures(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the figures and goals of raw rows."""

    def mean(what: str, values: list[float], **asked: Any) -> dict[str, Any]:
        spread = (min(values), max(values))
        return figure(what, statistics.fmean(values), spread, **asked)

    found = []
    for learner in dict.fromkeys(row["learner"] for row in raw):
        own = [row for row in raw if row["learner"] == learner]
        found.append(
            mean(f"{learner}: accuracy", [r["right"] / r["rows"] for r in own])
        )
        for changes in (1, 2, 3):
            rows = [row for row in own if row["changes"] == changes]
            name = f"{learner}, changes of up to {changes}"
            shares = [r["survived"] / r["rows"] for r in rows]
            found.append(mean(f"{name}: robust accuracy", shares))
            asked: Any = {"op": "<=", "goal": SECONDS} if changes == 2 else {}
            found.append(
                mean(f"{name}: CPU seconds", [r["cpu_s"] for r in rows], **asked)
            )
        missed = [(r["survived"] - r["exact"]) / r["rows"] for r in rows]
        found.append(mean(f"{learner}: share of rows that the search misses", missed))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints figures and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    seeds = range(options.seeds)
    raw = measured(seeds)
    rows = figures(raw)
    goals = told(rows)
    if options.write:
        found = in_form(
            "rows-under-attack",
            f"python -m benchmarks rows-under-attack --seeds {options.seeds} --write",
            packages=("torch", "numpy", "lightgbm", "pyarrow"),
            cores=", one thread",
            seeds=list(seeds),
            rows=rows,
            goals=goals,
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
