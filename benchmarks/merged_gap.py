"""Does the merged model keep a promise that its agents' roles pull at unequally?

    python -m benchmarks merged-gap [--seeds 5] [--rows 20000] [--fresh 60000] [--write]

Rows are made here, so that fresh ones tell the truth: the group shifts an input and the
odds, by which a twin has a large parity gap; .05 is promised. Eight agents of trees
with roles that are alike, those of the default recipe, or two that weigh the promise by
.1 and by 8. Multipliers are driven three ways: by the *pool* of the folds alone; by the
pool and the *shift* of the agents' mean; by the *worst role* of each pair, as its
agents' own pool has it. The gap is that of the agents' mean on fresh rows; `believed`
is what the dual update took it for at the end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.fair_baselines import store_beside
from benchmarks.provenance import ROOT, figure, in_form, store, told
from safescale_ammt.config.roles import ROLES, Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.coding import Coding
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.holdout import Holdout
from safescale_ammt.model.network import predicted
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.protected import made_whole
from safescale_ammt.store.uri import STORE
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.dual_update import cell_hits
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows, coded
from safescale_ammt.training.plan import make_plan
from safescale_ammt.training.training_log import discard
from safescale_ammt.trees.trainer import Crowd, TreeDual, boost
from safescale_ammt.trees.tree_nets import TreeNets

RESULT = ROOT / "benchmarks" / "results" / "merged-gap.json"
TAU = 0.05
WAYS = ("pool", "shift", "worst role")
DEFAULT = TrainingConfig().agent_specializations
ROLE_SETS: dict[str, tuple[Role, ...]] = {
    "alike": (ROLES["generalist"],),
    "default": tuple(ROLES[name] for name in DEFAULT),
    "apart": (
        Role("lax", "little of the promise", constraint_weight=0.1),
        Role("strict", "the promise above all", constraint_weight=8.0),
    ),
}
PROMISE = Constitution.from_dict(
    {
        "schema": 1,
        "principles": [
            {
                "id": "parity",
                "constraint": {"metric": "dp_gap", "group": "g", "threshold": TAU},
            }
        ],
    }
)

Row = dict[str, Any]


def made(rows: int, seed: int) -> str:
    """Makes rows: five inputs, of which the group shifts one, and odds of both."""
    rng = np.random.default_rng(seed)
    group = rng.random(rows) < 0.4
    x = rng.standard_normal((rows, 5))
    x[:, 0] += 1.2 * group
    logit = x[:, 0] + 0.8 * x[:, 1] * x[:, 2] + 0.6 * x[:, 3] - 0.8
    label = rng.random(rows) < 1 / (1 + np.exp(-logit))
    lines = ["a,b,c,d,e,g,y"]
    lines += [
        ",".join(f"{v:.4f}" for v in row) + f",{'fm'[own]},{'ny'[yes]}"
        for row, own, yes in zip(x, group.astype(int), label.astype(int), strict=True)
    ]
    return "\n".join(lines) + "\n"


def prepared(
    folder: Path, rows: int, fresh: int, seed: int
) -> tuple[EncodedDataset, EncodedRows]:
    """Prepares the rows; returns them and the fresh ones."""
    section: dict[str, Any] = {"label": "y", "positive": "y", "sensitive": ["g"]}
    for role, many, at in (("source", rows, 0), ("sealed_source", fresh, 1)):
        file = folder / f"{role}.csv"
        file.write_text(made(many, 2 * seed + at), encoding="utf-8")
        section[role] = file.as_uri()
    dataset, holdout = folder / "dataset", folder / "holdout"
    environ = {STORE: store_beside(holdout).uri}
    prepare_data.run({**section, "seed": seed}, dataset, holdout, environ=environ)
    encoded = EncodedDataset(Dataset.load(dataset))
    coding = Coding(encoded.schema, "raw")
    with made_whole(store_beside(holdout), holdout, "holdout") as place:
        batches = Holdout.load(place).stored.batches()
        parts = [coded(batch, coding, encoded.schema) for batch in batches]
    return encoded, EncodedRows.joined(parts, one_split=True)


class RoledTrees(TreeNets):
    """Trees whose agents take up given roles."""

    given: tuple[Role, ...] = ()

    def roles(self, config: TrainingConfig) -> tuple[Role, ...]:
        """Returns them."""
        del config
        return self.given


class WorstRole(TreeDual):
    """Takes of each pair what the worst role's own pool says."""

    def measure_shift(self, averaged: Tensor, finite: Tensor) -> None:
        """Shifts the pool of all agents to that of the worst role."""
        del finite
        roles = self._crowd.plan.roles
        of_role = torch.tensor([[r == own for r in roles] for own in {*roles}]).float()
        rates = (of_role @ self.hits(averaged)) / (of_role @ self._sizes)
        self.shift = self.constraints.differences(rates).max(0).values - self.pooled


def row_of(
    encoded: EncodedDataset,
    fresh: EncodedRows,
    roles: Sequence[Role],
    way: str,
    seed: int,
) -> Row:
    """Boosts agents one of the three ways and measures their mean on fresh rows."""
    nets = RoledTrees(encoded, TreeGenome(rate=0.15, rounds=100))
    nets.given = tuple(roles)
    plan = make_plan(nets, TrainingConfig(seed=seed, learner="trees"), PROMISE)
    crowd = Crowd(nets, plan)
    dual = (WorstRole if way == "worst role" else TreeDual)(plan, crowd)
    if way != "shift":
        dual.merge_shift = None
    boost(plan, crowd, dual, Checkpoints(), discard)

    k, slots = len(plan.roles), len(plan.slots)
    mean = torch.eye(slots, dtype=torch.float64)[:k].mean(0)
    inside = plan.constraints.membership(fresh.groups, fresh.y)
    sizes = inside.sum(1)
    rates = cell_hits(nets, plan.constraints, mean, fresh, inside) / sizes
    right = [
        predicted(nets.logits(mean[None], fresh, block[None]))[0] == fresh.y[block]
        for block in fresh.blocks()
    ]
    return {
        "gap": plan.constraints.values(rates)["parity"],
        "error": float(plan.constraints.standard_errors(rates, sizes.float())[0]),
        "believed": float((dual.pooled + dual.shift).max()),
        "accuracy": float(torch.cat(right).float().mean()),
    }


def measured(seeds: Sequence[int], rows: int, fresh: int) -> Iterator[Row]:
    """Yields a row for each seed, set of roles and way."""
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            encoded, sealed = prepared(Path(folder), rows, fresh, seed)
            for name, roles in ROLE_SETS.items():
                for way in WAYS:
                    head = {"seed": seed, "roles": name, "way": way}
                    yield {**head, **row_of(encoded, sealed, roles, way, seed)}


def figures(raw: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns means over the seeds; ours has a goal where roles are far apart."""
    found = []
    for name in ROLE_SETS:
        for way in WAYS:
            own = [r for r in raw if (r["roles"], r["way"]) == (name, way)]
            words = f"roles {name}, driven by the {way}"
            off = [abs(r["gap"] - r["believed"]) for r in own]
            for what, values in (
                ("gap of the mean", [r["gap"] for r in own]),
                ("gap less what was believed", off),
                ("accuracy of the mean", [r["accuracy"] for r in own]),
            ):
                asked: Any = {}
                if (way, what) == ("shift", "gap of the mean"):
                    asked = {"op": "<=", "goal": TAU}
                spread = min(values), max(values)
                found.append(
                    figure(f"{words}: {what}", statistics.mean(values), spread, **asked)
                )
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints figures and goals; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--fresh", type=int, default=60_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(argv)
    raw = []
    for row in measured(range(options.seeds), options.rows, options.fresh):
        raw.append(row)
        print(row, flush=True)
    rows = figures(raw)
    goals = told(rows)
    if options.write:
        found = in_form(
            "merged-gap",
            f"python -m benchmarks merged-gap --seeds {options.seeds} "
            f"--rows {options.rows} --fresh {options.fresh} --write",
            packages=("torch", "numpy", "lightgbm"),
            cores=", one thread",
            seeds=list(range(options.seeds)),
            rows=rows,
            goals=goals,
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
