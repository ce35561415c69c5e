"""What constraints, monitor and observability cost, in CPU seconds of a training.

    python -m benchmarks overhead [--repeats 3] [--agents 8] [--steps 600] [--write]

Adult, the default recipe, k agents and the twin. Trainings in one process, in turn, so
that a busy machine is busy for all; ratios are of CPU seconds of the same repeat:

    plain          no promise: agents share, nothing is measured or steered
    constrained    `tpr_gap by sex <= .08`, no monitor, log discarded
    monitored      the same, the monitor observes
    observed       the same, with log, live progress and a file for Prometheus

Two whole trainings differ by more than the last two cost. So these are also measured
by themselves, in the same repeat, and that is what their goals are held against:

    looks          the monitor of one training: its start and all of its looks
    events         all events of one training through log, progress and Prometheus

Reading and encoding the rows come before the clock.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.audit_pool import prepared, promise
from benchmarks.provenance import ROOT, figure, in_form, store, told
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.model.device import settled
from safescale_ammt.model.genome import Genome
from safescale_ammt.stage_progress import PROGRESS
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.monitor import watch
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.training.sampling import agent_batches
from safescale_ammt.training.scalars import PROMETHEUS
from safescale_ammt.training.sync import Sharing
from safescale_ammt.training.trainer import learner_of, train
from safescale_ammt.training.training_log import LOG, Log, TrainingLog, discard

RESULT = ROOT / "benchmarks" / "results" / "overhead.json"
USEFUL = {"metric": "accuracy", "op": ">=", "threshold": 0.8}
PAIRS = {
    ("constrained", "plain"): 1.25,
    ("looks", "constrained"): 0.03,
    ("events", "constrained"): 0.01,
    ("monitored", "constrained"): None,
    ("observed", "monitored"): None,
}
"""(what, beside what) -> the most that it may cost; None = told only."""


def seconds(work: Callable[[], object]) -> float:
    """Returns the CPU seconds of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


@contextmanager
def watched(folder: Path) -> Iterator[Log]:
    """Gives a log that writes, prints and tells whatever there is to tell."""
    os.environ[PROGRESS], os.environ[PROMETHEUS] = "1", str(folder / "training.prom")
    try:
        with (
            (folder / "said").open("w") as said,
            redirect_stdout(said),
            TrainingLog(folder / LOG) as log,
        ):
            yield log.write
    finally:
        del os.environ[PROGRESS], os.environ[PROMETHEUS]


def looks(nets: GenomeNets, plan: Plan) -> float:
    """Returns the CPU seconds of a monitor's start and looks, without the training."""
    learner, placement = learner_of(nets, plan), Placement(len(plan.slots))
    dual = DualUpdate.start(plan, learner.averaged, placement)
    sharing = Sharing(learner.theta[0], plan.config)
    learner.fork(plan.slots, placement)
    batches = agent_batches(plan, placement)

    def look() -> None:
        monitor = watch(
            plan,
            discard,
            placement,
            learner=learner,
            dual=dual,
            sharing=sharing,
            batches=batches,
        )
        for step in range(plan.trunk_steps, plan.steps, plan.config.dual_every):
            monitor.look(step, {})

    with settled(plan.config.threads):
        return seconds(look)


def measured(repeats: int, agents: int, steps: int) -> list[dict[str, Any]]:
    """Returns a row of CPU seconds for each repeat."""
    raw: list[dict[str, Any]] = []
    # With and without promises the same steps are taken.
    on = TrainingConfig(
        num_agents=agents,
        steps=steps,
        trunk_steps=steps // 3,
        branch=0.0,
        monitor="observe",
    )
    off, gap = replace(on, monitor="none"), promise("tpr_gap", 0.08)
    plain = Constitution.from_dict(
        {"schema": 1, "principles": [{"id": "useful", "constraint": USEFUL}]}
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoded, _ = prepared(folder, 0)
        nets = GenomeNets(encoded, Genome())

        def training(config: TrainingConfig, promises: Constitution, log: Log) -> float:
            return seconds(lambda: train(nets, config, promises, log=log))

        # What is read and coded at its first use belongs to none of them.
        training(replace(on, steps=60, trunk_steps=20), gap, discard)
        for repeat in range(repeats):
            events: list[dict[str, Any]] = []
            row: dict[str, Any] = {"repeat": repeat}
            row["plain"] = training(off, plain, discard)
            row["constrained"] = training(off, gap, discard)
            row["monitored"] = training(on, gap, events.append)
            with watched(folder) as log:
                row["observed"] = training(on, gap, log)
            row["looks"] = looks(nets, make_plan(nets, on, gap))
            with watched(folder) as log:
                row["events"] = seconds(partial(deque, map(log, events), 0))
            raw.append({k: v if k == "repeat" else round(v, 4) for k, v in row.items()})
            print(raw[-1], flush=True)
    return raw


def figures(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the medians of the ratios, three of them beside a goal."""
    found = []
    for (name, beside), most in PAIRS.items():
        ratios = [r[name] / r[beside] for r in raw]
        middle, spread = statistics.median(ratios), (min(ratios), max(ratios))
        what = f"CPU seconds of a training, {name} / {beside}"
        found.append(figure(what, middle, spread, op="<=" if most else "", goal=most))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints figures and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    raw = measured(options.repeats, options.agents, options.steps)
    rows = figures(raw)
    goals = told(rows)
    if options.write:
        found = in_form(
            "overhead",
            f"python -m benchmarks overhead --repeats {options.repeats} "
            f"--agents {options.agents} --steps {options.steps} --write",
            packages=("torch", "numpy"),
            cores=", one thread",
            seeds=[0],
            rows=rows,
            goals=goals,
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
