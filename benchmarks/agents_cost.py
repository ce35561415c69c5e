"""What k agents cost beside one, and how near a step is to its matrix products.

    python -m benchmarks agents-cost [--before REV] [--agents 2 4 8 16 32]
                                     [--repeats 5] [--steps 40] [--write]

Adult and the default genome. A process for each build trains k agents and the twin,
their steps after the trunk alone, k after k, and both builds in turn, so that a busy
machine is busy for all. Milliseconds are CPU time of a step; medians [least, greatest]
over the repeats. *Share* is the time that the step's matrix products would take, dense,
one net after the other, at the rate that the same process measures for each of these
shapes, by the time of the step. It may exceed 1: the step leaves out the inputs that
are 0. `--write` stores benchmarks/results/agents-cost.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, in_form, store
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import fetch
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.uri import STORE

RESULT = ROOT / "benchmarks" / "results" / "agents-cost.json"
CACHE = Path.home() / ".cache" / "safescale-ammt"
# The last commit before a step's gradient was computed by hand.
BEFORE = "b82994b"
AGENTS = (2, 4, 8, 16, 32)
MOST = {8: 2.5, 16: 4.0}
"""What so many agents may cost, in costs of one."""
LEAST_SHARE = 0.7
# Run with the code of a checkout; an earlier one has some names less.
STEPS = """
import json, statistics, sys, time
import torch
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.model.device import keep_freed_memory, settled
from safescale_ammt.model.genome import Genome
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import make_plan
from safescale_ammt.training.sampling import agent_batches
try:
    from safescale_ammt.training.genome_nets import GenomeNets
except ImportError:  # an earlier revision
    GenomeNets = None
    from safescale_ammt.training.learner import Learner
dataset, steps, group, *agents = sys.argv[1:]
gap = {"metric": "tpr_gap", "group": group, "threshold": 0.08}
promises = Constitution.from_dict(
    {"schema": 1, "principles": [{"id": "equal-opportunity", "constraint": gap}]}
)
encoded, genome, found = EncodedDataset(Dataset.load(dataset)), Genome(), {}

def cpu(work, times):
    each = []
    for _ in range(times):
        start = time.process_time()
        work()
        each.append(time.process_time() - start)
    return statistics.median(each)

def products(rows, d, nets):
    seconds, fan_in = 0.0, d
    for i, width in enumerate([*genome.widths, 1]):
        x, w = torch.randn(rows, fan_in), torch.randn(fan_in, width)
        g = torch.randn(rows, width)
        work = [lambda: x @ w, lambda: x.T @ g, *[lambda: g @ w.T] * (i > 0)]
        seconds += sum(cpu(each, 40) for each in work)
        fan_in = width
    return seconds * nets

keep_freed_memory()
with settled(1):
    for k in map(int, agents):
        config = TrainingConfig(num_agents=k, trunk_steps=0)
        of = (GenomeNets(encoded, genome),) if GenomeNets else (encoded, genome)
        plan = make_plan(*of, config, promises)
        own = (plan.rows, plan.constraints.cells, config)
        learner = of[0].learner(*own) if GenomeNets else Learner.start(plan)
        placement = Placement(len(plan.slots))
        learner.fork(plan.slots, placement)
        batches = agent_batches(plan, placement)
        weights = torch.full((len(plan.constraints.cells),), 0.01)
        def step():
            learner.step(*batches.draw(), weights, 1e-3)
        cpu(step, 3)
        each = cpu(step, int(steps))
        rows = sum(part.shape[1] for part in batches.draw())
        # Rows of an earlier revision are a matrix.
        d = getattr(plan.rows, "width", 0) or plan.rows.x.shape[1]
        dense = products(rows, d, k + 1)
        found[k] = {"step_cpu_s": each, "share": dense / each}
print(json.dumps(found))
"""


def measured(
    root: Path, dataset: Path, steps: int, agents: Sequence[int], group: str = "sex"
) -> dict[int, dict[str, float]]:
    """Returns CPU seconds of a step and share of the matrix rate, by agents."""
    words = [str(dataset), str(steps), group, *map(str, agents)]
    done = subprocess.run(
        [sys.executable, "-c", STEPS, *words],
        cwd=dataset.parent,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {int(k): found for k, found in json.loads(done.stdout).items()}


def summary(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Takes medians over the repeats, by build and number of agents."""
    rows = []
    for build, k in dict.fromkeys((r["build"], r["agents"]) for r in raw):
        runs = [r for r in raw if (r["build"], r["agents"]) == (build, k)]
        ratios = [r["to_one"] for r in runs]
        seconds = [r["step_cpu_s"] for r in runs]
        rows.append(
            {
                "build": build,
                "agents": k,
                "step_cpu_s": statistics.median(seconds),
                "to_one": statistics.median(ratios),
                "to_one_spread": [min(ratios), max(ratios)],
                "share": statistics.median(r["share"] for r in runs),
                "share_spread": [
                    min(r["share"] for r in runs),
                    max(r["share"] for r in runs),
                ],
            }
        )
    return rows


def goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Holds today's figures against what is asked of them."""
    now = {r["agents"]: r for r in rows if r["build"] == "now"}
    found = []
    for k in sorted(now.keys() & MOST.keys()):
        what = f"CPU time of a step of {k} agents / of one, both with the twin"
        value, spread = now[k]["to_one"], now[k]["to_one_spread"]
        found.append((what, "<=", MOST[k], value, spread))
    if 8 in now:
        what = "dense products of 8 agents at their measured rate / time of the step"
        found.append((what, ">=", LEAST_SHARE, now[8]["share"], now[8]["share_spread"]))
    names = ("what", "op", "goal", "value", "spread")
    return [dict(zip(names, each, strict=True)) for each in found]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes the rows as Markdown."""
    lines = ["| build | agents | ms a step | to one | share |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['build']} | {r['agents']} | {1000 * r['step_cpu_s']:.2f} "
        f"| {r['to_one']:.2f} ({r['to_one_spread'][0]:.2f} to "
        f"{r['to_one_spread'][1]:.2f}) | {r['share']:.2f} |"
        for r in rows
    ]
    return "\n".join(lines)


def prepared(folder: Path, source: Path) -> Path:
    """Prepares Adult in a folder."""
    files = fetch("adult", source)
    uris = {role: path.resolve().as_uri() for role, path in files.items()}
    store = {STORE: (folder / "store").as_uri()}
    data = {**ADULT.data, **uris}
    prepare_data.run(data, folder / "data", folder / "holdout", environ=store)
    return folder / "data"


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", metavar="REV", default=BEFORE)
    parser.add_argument("--agents", type=int, nargs="+", default=AGENTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--data", type=Path, default=CACHE)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    raw = []
    with checkout(options.before) as before, tempfile.TemporaryDirectory() as folder:
        dataset, builds = prepared(Path(folder), options.data), (before, ROOT)
        for repeat in range(options.repeats):
            for build, root in zip(("before", "now"), builds, strict=True):
                found = measured(root, dataset, options.steps, [1, *options.agents])
                one = found[1]["step_cpu_s"]
                for k, figures in found.items():
                    row = {"build": build, "agents": k, "repeat": repeat, **figures}
                    raw.append({**row, "to_one": figures["step_cpu_s"] / one})
    rows = summary(raw)
    print(table(rows))
    for goal in goals(rows):
        print(f"{goal['what']}: {goal['value']:.2f} ({goal['op']} {goal['goal']:g})")
    if options.write:
        told = in_form(
            "agents-cost",
            f"python -m benchmarks agents-cost --before {options.before} "
            f"--repeats {options.repeats} --steps {options.steps} --write",
            packages=("python",),
            cores=", one thread",
            against={"before": options.before},
            seeds=[0],
            rows=rows,
            goals=goals(rows),
            raw=raw,
        )
        store(RESULT, told)


if __name__ == "__main__":
    main()
