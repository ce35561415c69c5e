"""How often is a promise broken while agents train, after the burn-in?

    python -m benchmarks violations [--seeds 5] [--agents 8] [--write]

Adult, the default recipe, `tpr_gap by sex <= .08` and, in a training of its own,
`dp_gap by sex <= .10`, which the twin breaks by far. After every sync round the soup of
the agents and the unconstrained twin answer an audit pool of 16,281 rows that nothing
else reads, nor the monitor: the official test file. An *exceedance* is a round whose
gap on the pool is above tau; they are counted from the end of the monitor's burn-in on
(a third of the steps after the trunk) and told per 1,000 steps. Beside them stands
what the monitor itself counts: alarms on fresh rows, and dual updates whose pooled gap
on the rows that steer is above tau (`descriptive`).

About 25 CPU seconds a seed with 8 agents.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.audit_pool import Run, audited, prepared, promise
from benchmarks.provenance import ROOT, figure, in_form, store, told
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.training.monitor import BURN_IN

RESULT = ROOT / "benchmarks" / "results" / "violations.json"
PROMISES = {"tpr_gap": 0.08, "dp_gap": 0.1}
MOST = 5
"""Exceedances per 1,000 steps that are asked for; the aim is 1."""


def row(run: Run, tau: float, config: TrainingConfig) -> dict[str, Any]:
    """Returns the exceedances of a training, per 1,000 steps after the burn-in."""
    first = config.trunk_steps + BURN_IN * (config.steps - config.trunk_steps)
    after = [gaps for gaps in run.gaps if gaps[0] >= first]
    (counted,) = run.of("violations")
    per_1000 = 1000 / len(after)
    return {
        "rounds": len(after),
        "constrained": per_1000 * sum(soup > tau for _, soup, _ in after),
        "twin": per_1000 * sum(twin > tau for _, _, twin in after),
        "alarms": counted["alarms_per_1000_steps"],
        "descriptive": counted["descriptive_per_1000_steps"],
        "largest_gap": max(soup for _, soup, _ in after),
        "largest_twin_gap": max(twin for _, _, twin in after),
    }


def measured(seeds: Sequence[int], agents: int) -> list[dict[str, Any]]:
    """Trains once a seed, each on a split of its own."""
    raw = []
    for seed in seeds:
        config = TrainingConfig(seed=seed, num_agents=agents)
        with tempfile.TemporaryDirectory() as folder:
            encoded, pool = prepared(Path(folder), seed)
            for metric, tau in PROMISES.items():
                run = audited(encoded, pool, promise(metric, tau), config)
                head = {"seed": seed, "metric": metric, "pool": len(pool)}
                raw.append({**head, **row(run, tau, config)})
                print(raw[-1], flush=True)
    return raw


def figures(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the means over the seeds; those of the agents have a goal."""
    words = {
        "constrained": "the soup of the agents",
        "twin": "the unconstrained twin",
        "alarms": "the monitor's alarms on fresh rows",
        "descriptive": "pooled gaps of the rows that steer",
    }
    found = []
    for metric, tau in PROMISES.items():
        for name, whose in words.items():
            values = [r[name] for r in raw if r["metric"] == metric]
            what = f"{metric} <= {tau:g}, exceedances per 1,000 steps: {whose}"
            mean, spread = sum(values) / len(values), (min(values), max(values))
            asked: Any = {"op": "<=", "goal": MOST} if name == "constrained" else {}
            found.append(figure(what, mean, spread, **asked))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints figures and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    raw = measured(range(options.seeds), options.agents)
    rows = figures(raw)
    goals = told(rows)
    if options.write:
        found = in_form(
            "violations",
            f"python -m benchmarks violations --seeds {options.seeds} "
            f"--agents {options.agents} --write",
            packages=("torch", "numpy"),
            cores=", one thread",
            seeds=list(range(options.seeds)),
            rows=rows,
            goals=goals,
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
