"""What fewer rows a step, other numbers of agents and other numbers of steps give.

    python -m benchmarks agent-settings [--settings 8x512x1200 8x256x1200 ...]
                                        [--seeds 10] [--write]

A setting is agents x rows a step x steps; the trunk keeps its third of the steps. Adult
and the default genome, seed after seed and all settings in turn. Soup and twin are
measured on the development rows that no agent trains on (*validation*, *select* and
*monitor*, never the sealed ones): accuracy, log loss, gap of the true-positive rates of
the sexes. Every figure is a mean and, against the first setting, the mean paired
difference with its standard error. `--write` stores
benchmarks/results/agent-settings.json.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.agents_cost import CACHE, prepared
from benchmarks.provenance import ROOT, in_form, store
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.model.genome import Genome
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import SOUP
from safescale_ammt.training.roles import TWIN
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import discard

RESULT = ROOT / "benchmarks" / "results" / "agent-settings.json"
SETTINGS = (
    *("8x512x1200", "8x256x1200", "8x128x1200", "16x256x1200", "16x128x1200"),
    *("4x512x1200", "8x512x300", "8x512x600", "8x512x2400"),
)
HELD = ("validation", "select", "monitor")
FIGURES = ("accuracy", "loss", "gap")
_LEAST = 1e-6


def measured(
    encoded: EncodedDataset, setting: str, seed: int, group: str = "sex"
) -> list[dict[str, Any]]:
    """Trains one setting from one seed; returns a row for soup and twin."""
    agents, size, steps = map(int, setting.split("x"))
    gap = {"metric": "tpr_gap", "group": group, "threshold": 0.08}
    promises = Constitution.from_dict(
        {"schema": 1, "principles": [{"id": "equal-opportunity", "constraint": gap}]}
    )
    config = TrainingConfig(
        num_agents=agents,
        batch_size=size,
        steps=steps,
        trunk_steps=steps // 3,
        warmup_steps=min(50, steps // 3),
        seed=seed,
    )
    start = time.process_time()
    trained = train(GenomeNets(encoded, Genome()), config, promises, log=discard)
    common = {"setting": setting, "seed": seed, "cpu_s": time.process_time() - start}
    soup = trained.agents[trained.finite].mean(0, keepdim=True)
    return [
        {**common, "model": name, **figures(trained, encoded, theta, group)}
        for name, theta in ((SOUP, soup), (TWIN.name, trained.twin))
    ]


def figures(
    trained: Trained, encoded: EncodedDataset, theta: Tensor, group: str
) -> dict[str, float]:
    """Measures one net (1, P) on the rows of `HELD`."""
    rows = trained.nets.rows(*HELD)
    answers = rows.answers(trained.nets.deployable(theta, SOUP))
    y, codes = rows.y.numpy(), rows.groups[group].numpy()
    chance = np.clip(answers.score.astype(float), _LEAST, 1 - _LEAST)
    hit = answers.prediction == y
    positive = encoded.outcomes[0]
    rates = [
        float(hit[(y == positive) & (codes == code)].mean())
        for code in np.unique(codes[y == positive])
    ]
    of_label = np.where(y == positive, chance, 1 - chance)
    return {
        "accuracy": float(hit.mean()),
        "loss": float(-np.log(of_label).mean()),
        "gap": max(rates) - min(rates),
    }


def summary(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Takes means over the seeds, and paired differences to the first setting."""
    rows, first = [], raw[0]["setting"]
    for setting, model in dict.fromkeys((r["setting"], r["model"]) for r in raw):
        of = {
            r["seed"]: r for r in raw if (r["setting"], r["model"]) == (setting, model)
        }
        base = {
            r["seed"]: r for r in raw if (r["setting"], r["model"]) == (first, model)
        }
        row = {"setting": setting, "model": model, "seeds": len(of)}
        for name in FIGURES:
            apart = [r[name] - base[seed][name] for seed, r in of.items()]
            error = statistics.stdev(apart) / math.sqrt(len(apart)) if apart[1:] else 0
            row[name] = statistics.mean(r[name] for r in of.values())
            row[f"{name}_more"] = [statistics.mean(apart), error]
        row["median_cpu_s"] = statistics.median(r["cpu_s"] for r in of.values())
        rows.append(row)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes the rows as Markdown."""
    lines = ["| setting | model | accuracy | loss | gap | CPU s |", "|---" * 6 + "|"]
    for row in rows:
        cells = (
            f"{row[n]:.4f} ({row[f'{n}_more'][0]:+.4f} ± {row[f'{n}_more'][1]:.4f})"
            for n in FIGURES
        )
        lines.append(
            f"| {row['setting']} | {row['model']} | {' | '.join(cells)} "
            f"| {row['median_cpu_s']:.1f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", default=SETTINGS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", type=Path, default=CACHE)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        encoded = EncodedDataset(Dataset.load(prepared(Path(folder), options.data)))
        raw = [
            row
            for seed in range(options.seeds)
            for setting in options.settings
            for row in measured(encoded, setting, seed)
        ]
    rows = summary(raw)
    print(table(rows))
    if options.write:
        settings = " ".join(options.settings)
        found = in_form(
            "agent-settings",
            f"python -m benchmarks agent-settings --settings {settings} "
            f"--seeds {options.seeds} --write",
            packages=("python",),
            cores=", one thread",
            seeds=range(options.seeds),
            rows=rows,
            goals=[],
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
