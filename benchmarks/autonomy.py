"""Does a training that tunes itself beat a search for its settings at equal cost?

    python -m benchmarks autonomy [--seeds 20] [--data NAME ...] [--write]

Learning rates from 1e-5 to 1 and weight decays from 1e-5 to 1, both log-uniform: a
user who knows nothing. Four data sets (`autonomy_data`), each split anew by every
seed; nothing is promised. Methods, seed after seed, in turn:

    tuned       `training.tune: population`, four agents: the soup
    random      20 single nets of random settings, an equal part of the steps each
    ASHA        as many random settings as the steps allow, rungs of ASHA (eta 4) whose
                survivors go on, to as many steps as an agent of ours takes
    default     the default learning rate and no decay, four agents, for as long

and beside them, held to no goal, ours where more tunes itself (`training.tune_also`):

    tuned, mix    roles and sharing weights too, at about the same cost
    tuned, batch  the batch too, at about twice the cost

Peers take the CPU seconds that ours does: they run in stacked programs too, a step of
theirs, which does less, counts for as much less (`STEPS`). What they took is in the
table. Every method chooses by *validation*, on averaged weights: ours by a smoothed log
loss (`tuned_settings.row_losses`), the others by log loss as usual, and once more by
the smoothed one.

The figure is the log loss on *monitor* and *select*, which nobody reads, and its
*regret*: what it exceeds that of the best known configuration by, on the same seeds.
That one is the best on average over all seeds, of a grid of rates, decays and lengths,
looked up on the held rows themselves. About 11 CPU seconds a data set and seed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.autonomy_data import HELD, NAMES, encoded
from benchmarks.provenance import ROOT, figure, in_form, store
from benchmarks.provenance import told as beside_goals
from safescale_ammt.config.roles import ROLES
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.model.device import settled
from safescale_ammt.model.genome import Genome
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.training.race import race_steps
from safescale_ammt.training.sampling import trunk_batches
from safescale_ammt.training.seeds import derived_seed
from safescale_ammt.training.trainer import learner_of, train
from safescale_ammt.training.training_log import discard
from safescale_ammt.training.tuned_settings import Ranges, apply, row_losses

RESULT = ROOT / "benchmarks" / "results" / "autonomy.json"
PROMISES = Constitution.from_dict(
    {
        "schema": 1,
        "principles": [
            {"id": "useful", "constraint": {"metric": "accuracy", "threshold": 0.5}}
        ],
    }
)
GENOME = Genome(encoding="standard", widths=(32, 32), dropout=0.0)
BASE = TrainingConfig(
    num_agents=4,
    steps=300,
    trunk_steps=100,
    branch=0.0,
    warmup_steps=15,
    batch_size=64,
    ema=0.97,
    sync_every=10,
    monitor="none",
)
TUNED = replace(BASE, tune="population", tune_budget=1040, tune_every=20)
TRIALS, ETA = 20, 4
STEPS = {"random": 1.35, "ASHA": 1.15, "default": 0.85}
"""Steps of single nets that take as much CPU as one of ours, races and rounds and all;
measured with seeds that the results do not have."""
OURS = "tuned"
MIX, BATCH = ("roles", "self_weight"), ("batch_size",)
GRID_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
GRID_DECAYS = (1e-3, 1.0)
GRID_LENGTHS = (75, 150, 300)
Figures = dict[str, Any]
Pick = tuple[str, Tensor, str]
"""A method's name, its net (1, P) and the setting in words."""


def cost(plan: Plan) -> int:
    """Returns the steps of single nets that a tuned training takes, race and all."""
    return race_steps(plan) + (plan.steps - plan.trunk_steps) * len(plan.slots)


def random_settings(plan: Plan, count: int, use: str) -> Tensor:
    """Draws settings independently, log-uniform (count, 3)."""
    generator = torch.Generator().manual_seed(derived_seed(plan.config.seed, use))
    ranges = Ranges.of(TUNED)
    return torch.cat([ranges.draw(1, generator) for _ in range(count)])


def halved(
    plan: Plan,
    settings: Tensor,
    ends: Sequence[int],
    name: str,
    *,
    smooth: bool = False,
) -> Iterator[Pick]:
    """Trains nets of these settings; at each end but the last the best go on.

    Args:
        plan: of the run.
        settings: of the nets (n, 3).
        ends: the step before which each rung ends.
        name: of the method.
        smooth: whether the best are so by the smoothed loss.

    Yields:
        The best net by its log loss on *validation*, and the best by the smoothed one.
    """
    learner, batches, order = learner_of(nets_of(plan), plan), trunk_batches(plan), None
    begin, size = 0, len(settings)
    for end in ends:
        roles = [ROLES["generalist"]] * size
        learner.fork(roles, Placement(size), order)
        apply(learner, settings, roles, plan.config)
        for step in range(begin, end):
            batch, extra = batches.draw()
            rows = batch.expand(size, -1), extra.expand(size, -1)
            learner.step(*rows, torch.zeros(0), plan.learning_rate(step))
        losses = torch.tensor(figures(plan, learner.averaged, "validation")["loss"])
        smoothed = row_losses(plan, learner.averaged).mean(1)
        if end < ends[-1]:
            begin, size = end, max(1, size // ETA)
            ranked = smoothed if smooth else losses
            order = ranked.nan_to_num(math.inf).argsort(stable=True)[:size]
            settings = settings[order]
    for suffix, by in (("", losses), (", smoothed", smoothed)):
        best = int(by.nan_to_num(math.inf).argmin())
        yield name + suffix, learner.averaged[best : best + 1], told(settings[best])


def nets_of(plan: Plan) -> GenomeNets:
    """Returns a plan's nets, which are of one genome here."""
    assert isinstance(plan.nets, GenomeNets)
    return plan.nets


def tuned(plan: Plan) -> Iterator[Pick]:
    """Trains four agents that tune themselves."""
    yield OURS, soup(plan, TUNED), ""


def tuned_mix(plan: Plan) -> Iterator[Pick]:
    """Does the same, and tunes roles and sharing weights too."""
    yield f"{OURS}, mix", soup(plan, replace(TUNED, tune_also=MIX)), ""


def tuned_batch(plan: Plan) -> Iterator[Pick]:
    """Does the same with a batch that is chosen first, on top of the cost."""
    yield f"{OURS}, batch", soup(plan, replace(TUNED, tune_also=BATCH)), ""


def soup(plan: Plan, config: TrainingConfig) -> Tensor:
    """Trains agents by a section; returns the mean of their weights (1, P)."""
    config = replace(config, seed=plan.config.seed)
    trained = train(nets_of(plan), config, PROMISES, log=discard)
    return trained.agents[trained.finite].mean(0, keepdim=True)


def random_search(plan: Plan) -> Iterator[Pick]:
    """Trains single nets of random settings for equal parts of the steps."""
    length = int(STEPS["random"] * cost(plan)) // TRIALS
    settings = random_settings(plan, TRIALS, "random search")
    yield from halved(replace(plan, steps=length), settings, [length], "random")


def asha(plan: Plan) -> Iterator[Pick]:
    """Trains single nets of random settings on rungs."""
    yield next(on_rungs(plan, smooth=False))


def asha_smoothed(plan: Plan) -> Iterator[Pick]:
    """Does the same, and lets the smoothed loss say who goes on."""
    _, pick = on_rungs(plan, smooth=True)
    yield pick


def on_rungs(plan: Plan, *, smooth: bool) -> Iterator[Pick]:
    """Runs the rungs of ASHA."""
    ends = [plan.steps // ETA**2, plan.steps // ETA, plan.steps]
    each = ends[0] + (ends[1] - ends[0]) / ETA + (ends[2] - ends[1]) / ETA**2
    count = int(STEPS["ASHA"] * cost(plan) / each)
    settings = random_settings(plan, count, "asha")
    yield from halved(plan, settings, ends, "ASHA", smooth=smooth)


def default(plan: Plan) -> Iterator[Pick]:
    """Trains four agents at the default rate for as long."""
    after = int(STEPS["default"] * cost(plan) - BASE.trunk_steps) // len(plan.slots)
    config = replace(BASE, steps=BASE.trunk_steps + after)
    yield "default", soup(plan, config), ""


METHODS: tuple[Callable[[Plan], Iterator[Pick]], ...] = (
    *(tuned, random_search, asha),
    *(asha_smoothed, default, tuned_mix, tuned_batch),
)


def told(setting: Tensor) -> str:
    """Returns rate and decay in words."""
    return f"{setting[0]:.2g}, {setting[1]:.2g}"


def figures(plan: Plan, theta: Tensor, *splits: str) -> Figures:
    """Returns loss and accuracy of each net (k, P) on rows of splits, as lists."""
    rows, losses, hits = plan.nets.rows(*splits), [], []
    for block in rows.blocks(len(theta)):
        out = plan.nets.logits(theta, rows, block[None])
        losses.append(
            torch.stack([plan.nets.row_losses(each, rows.y[block]) for each in out])
        )
        hits.append(plan.nets.worth(out, rows.y[block]))
    means = (torch.cat(each, 1).mean(1).tolist() for each in (losses, hits))
    return dict(zip(("loss", "accuracy"), means, strict=True))


def grid(plan: Plan) -> Iterator[Figures]:
    """Yields the held figures of every configuration of the grid."""
    settings = torch.tensor(
        [(rate, decay, 1.0) for rate in GRID_RATES for decay in GRID_DECAYS],
        dtype=torch.float64,
    )
    for length in GRID_LENGTHS:
        short, batches = replace(plan, steps=length), trunk_batches(plan)
        learner = learner_of(nets_of(plan), plan)
        roles = [ROLES["generalist"]] * len(settings)
        learner.fork(roles)
        apply(learner, settings, roles, plan.config)
        for step in range(length):
            batch, extra = batches.draw()
            rows = batch.expand(len(settings), -1), extra.expand(len(settings), -1)
            learner.step(*rows, torch.zeros(0), short.learning_rate(step))
        found = figures(plan, learner.averaged, *HELD)
        for setting, loss, accuracy in zip(settings, *found.values(), strict=True):
            name = f"{told(setting)}, {length} steps"
            yield {"method": name, "loss": loss, "accuracy": accuracy, "grid": True}


def measured(names: Sequence[str], seeds: Sequence[int]) -> Iterator[Figures]:
    """Yields a raw row for each data set, seed and method or configuration."""
    for seed in seeds:
        for name in names:
            with contextlib.redirect_stdout(io.StringIO()):
                nets = GenomeNets(encoded(name, seed), GENOME)
            with settled(1):
                plan = make_plan(nets, replace(TUNED, seed=seed), PROMISES)
                common = {"data": name, "seed": seed}
                for method in METHODS:
                    start = time.process_time()
                    picks = list(method(plan))
                    spent = {"cpu_s": round(time.process_time() - start, 3)}
                    for told_as, theta, setting in picks:
                        each = figures(plan, theta, *HELD)
                        row = {"method": told_as, "setting": setting, **spent}
                        yield {**common, **row, **{k: v[0] for k, v in each.items()}}
                yield from ({**common, **row} for row in grid(plan))


def summary(raw: Sequence[Figures]) -> list[Figures]:
    """Takes means over the seeds, and regrets against the best of the grid."""
    rows = []
    for name in dict.fromkeys(r["data"] for r in raw):
        own = [r for r in raw if r["data"] == name]
        by = {
            method: {r["seed"]: r for r in own if r["method"] == method}
            for method in dict.fromkeys(r["method"] for r in own)
        }
        grid = {r["method"] for r in own if r.get("grid")}
        best = min(
            grid, key=lambda m: statistics.mean(r["loss"] for r in by[m].values())
        )
        for method in (*(m for m in by if m not in grid), best):
            of = by[method]
            regret = [r["loss"] - by[best][seed]["loss"] for seed, r in of.items()]
            error = (
                statistics.stdev(regret) / math.sqrt(len(regret)) if regret[1:] else 0
            )
            row = {"data": name, "method": method, "seeds": len(of), "best": best}
            row |= {"regret": statistics.mean(regret), "regret_error": error}
            row |= {"median_regret": statistics.median(regret)}
            for name_of in ("loss", "accuracy"):
                row[name_of] = statistics.mean(r[name_of] for r in of.values())
            if method not in grid:
                row["cpu_s"] = statistics.median(r["cpu_s"] for r in of.values())
            rows.append(row)
    return rows


def goals(rows: Sequence[Figures]) -> list[Figures]:
    """Holds the regrets against what is asked of them, data set by data set."""
    regrets = {(r["data"], r["method"]): r["regret"] for r in rows}
    found: list[Figures] = []
    for name in dict.fromkeys(r["data"] for r in rows):
        for peer, share in (("random", 0.5), ("ASHA", 1.0)):
            ours, theirs = regrets[name, OURS], regrets[name, peer]
            what = f"{name}: regret less {share:g} times that of {peer}, nats"
            # Less the part asked for: a ratio has no meaning where a regret is below 0.
            more = ours - share * theirs
            found.append(figure(what, more, (ours, theirs), op="<=", goal=0.0))
    return found


def table(rows: Sequence[Figures]) -> str:
    """Writes the rows as Markdown."""
    lines = [
        "| data | method | regret, nats | median | loss | accuracy | CPU to ours |",
        "|---" * 7 + "|",
    ]
    ours = {r["data"]: r["cpu_s"] for r in rows if r["method"] == OURS}
    for r in rows:
        cpu = f"{r['cpu_s'] / ours[r['data']]:.2f}" if "cpu_s" in r else ""
        lines.append(
            f"| {r['data']} | {r['method']} | {r['regret']:+.4f} ± "
            f"{r['regret_error']:.4f} | {r['median_regret']:+.4f} | {r['loss']:.4f} "
            f"| {r['accuracy']:.4f} | {cpu} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--data", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    seeds = range(options.first, options.first + options.seeds)
    raw = list(measured(options.data, seeds))
    rows = summary(raw)
    print(table(rows))
    held_to = beside_goals(goals(rows))
    if options.write:
        found = in_form(
            "autonomy",
            f"python -m benchmarks autonomy --seeds {options.seeds} --first "
            f"{options.first} --data {' '.join(options.data)} --write",
            packages=("python", "torch", "scikit-learn"),
            cores=", one thread",
            seeds=seeds,
            rows=rows,
            goals=held_to,
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
