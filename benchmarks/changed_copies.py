"""What do changed copies of training rows buy under changes of two columns of Adult?

    python -m benchmarks changed-copies [--seeds 3] [--write]

Nets and boosted trees under a gap of true positive rates, with 0, 1, 2 and 4 changed
copies of each training row (`training.changed_copies`). The age moves by up to 3 years,
the hours of work by up to 5, the class of work becomes any other: up to two of them at
once, all of which are tried. Judged on the split *validation*, to which no weight is
fitted; no sealed row is read.

About four minutes of CPU at three seeds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.constraint_first import prepared
from benchmarks.provenance import ROOT, figure, in_form, store, told
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.judging.table_attack import SURVIVED, TableAttack
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import merge
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import discard
from safescale_ammt.trees.trainer import train_trees
from safescale_ammt.trees.tree_nets import TreeNets

RESULT = ROOT / "benchmarks" / "results" / "changed-copies.json"
COPIES = (0, 1, 2, 4)
COLUMNS: dict[str, Any] = {
    "age": {"by": 3, "step": 1, "range": [17, 90]},
    "hours_per_week": {"by": 5, "step": 1, "range": [1, 99]},
    "workclass": "any",
}
BRIEF: dict[str, dict[str, Any]] = {
    "nets": {"num_agents": 3, "steps": 800, "trunk_steps": 300},
    "trees": {"learner": "trees", "num_agents": 2},
}
GAINS = {"nets": 0.02, "trees": 0.01}
"""Points of robust accuracy that two copies should bring."""
COST = -0.003
"""Points of accuracy that they may cost."""


def rule() -> Constitution:
    """Returns a promise on changed rows, and a gap that is trained for."""
    threat = {"changes": 2, "columns": COLUMNS}
    steady = {"metric": "robust_accuracy", "threshold": 0.7, "threat": threat}
    gap = {"metric": "tpr_gap", "group": "sex", "threshold": 0.08}
    principles = [
        {"id": "steady", "constraint": steady},
        {"id": "fair", "constraint": gap},
    ]
    return Constitution.from_dict({"schema": 1, "principles": principles})


def trained(data: Dataset, learner: str, config: TrainingConfig) -> Trained:
    """Trains a learner's default form of model."""
    encoded = EncodedDataset(data)
    if learner == "trees":
        trees = TreeNets(encoded, TreeGenome(rounds=60))
        return train_trees(trees, config, rule(), log=discard)
    nets = GenomeNets(encoded, Genome(widths=(64,), dropout=0.1))
    return train(nets, config, rule(), log=discard)


def judged(data: Dataset, found: Trained, seed: int) -> dict[str, float]:
    """Returns accuracy, robust accuracy and gap of a merged model."""
    (threat,), rows = rule().table_threats, data.splits["validation"]
    with tempfile.TemporaryDirectory() as scratch:
        merge(found, rule(), form="auto", seed=seed, rule={}).save(
            Path(scratch), data.schema
        )
        answer = Predictor.load(Path(scratch)).predict_table
        prediction = answer(rows.features).prediction
        right = prediction == rows.label
        part = rows.take(right)
        attack = TableAttack(threat, data.schema, data.identity, 1)
        words, places = attack.told(attack.outcomes(part.features, part.label, answer))
    stood = sum(words[place] == SURVIVED for place in places)
    sexes = [rows.groups["sex"] == code for code in (0, 1)]
    hits = [float(np.mean(prediction[s & (rows.label == 1)])) for s in sexes]
    return {
        "rows": len(rows),
        "accuracy": float(right.mean()),
        "robust": stood / len(rows),
        "tpr_gap": abs(hits[0] - hits[1]),
    }


def measured(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Returns one raw row per seed, learner and number of copies."""
    raw = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            data = Dataset.load(prepared(Path(scratch), seed)[0])
            for learner, brief in BRIEF.items():
                for copies in COPIES:
                    section = {**brief, "seed": seed, "changed_copies": copies}
                    config = TrainingConfig.from_params(section)
                    start = time.process_time()
                    found = trained(data, learner, config)
                    took = round(time.process_time() - start, 2)
                    about = {"seed": seed, "learner": learner, "copies": copies}
                    raw.append({**about, **judged(data, found, seed), "cpu_s": took})
                    print(raw[-1], flush=True)
    return raw


def figures(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the figures and goals of raw rows, each beside the run without copies."""
    found = []
    for learner in dict.fromkeys(row["learner"] for row in raw):
        own = [row for row in raw if row["learner"] == learner]
        plain = {row["seed"]: row for row in own if not row["copies"]}
        for copies in dict.fromkeys(row["copies"] for row in own):
            rows = [row for row in own if row["copies"] == copies]
            for key in ("accuracy", "robust", "tpr_gap", "cpu_s"):
                values = [row[key] for row in rows]
                name = f"{learner}, {copies} copies: {key}"
                spread = (min(values), max(values))
                found.append(figure(name, statistics.fmean(values), spread))
            goals = (("robust", GAINS[learner]), ("accuracy", COST))
            for key, goal in goals if copies == 2 else ():
                values = [row[key] - plain[row["seed"]][key] for row in rows]
                asked: Any = {"op": ">=", "goal": goal}
                name = f"{learner}, 2 copies: {key} minus that without"
                spread = (min(values), max(values))
                found.append(figure(name, statistics.fmean(values), spread, **asked))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints figures and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    seeds = range(options.seeds)
    raw = measured(seeds)
    rows = figures(raw)
    goals = told(rows)
    if options.write:
        found = in_form(
            "changed-copies",
            f"python -m benchmarks changed-copies --seeds {options.seeds} --write",
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
