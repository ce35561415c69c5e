"""Do many agents pay for themselves? Quality at equal cost, and where sharing helps.

    python -m benchmarks agents [--parts cost sweep skew] [--data NAME ...]
                                [--methods NAME ...] [--splits 10]
                                [--packages FOLDER] [--anew] [--write]

`cost`: ways to spend the steps of k nets (`agents_methods`) on data sets of all sizes
(`agents_rows`), ten re-splits each, the same tuning trials for everybody; differences
of accuracy by the corrected resampled t-test. `sweep`: the soup by alpha and H, agents
that share nothing beside it. `skew`: the same where each agent's rows are its own and
of other classes than others' (Dirichlet, .3). What agents are worth under promises is
`agents-promises`.

Rows are kept as they come in benchmarks/results/agents.jsonl (outside of git), and a
command that was stopped goes on behind them; `--anew` drops them. mnist1d and tabm are
looked for in `--packages` (`pip install --no-deps --target FOLDER -r
benchmarks/peers/agents_requirements.txt`), and are left out where they are not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import agents_figures as figures
from benchmarks.agents_methods import METHODS, compared, skewed, swept
from benchmarks.agents_rows import TABLES, Resplit, table
from benchmarks.provenance import ROOT, in_form, measured_code, store
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.model.device import keep_freed_memory, settled

RESULT = ROOT / "benchmarks" / "results" / "agents.json"
KEPT = RESULT.with_suffix(".jsonl")
AGENTS = 4
STEPS = {"wine": 100, "breast_cancer": 100}
"""Steps of an agent, 300 on other data sets."""
BATCH = {"wine": 32, "adult": 256}
"""Rows a step, 64 on other data sets."""
PARTS = ("cost", "sweep", "skew")
SWEPT = ("bumps",)
SKEWED = ("digits",)
ALPHAS = (1.0, 0.99, 0.9, 0.0)
EVERY = {"sweep": (5, 20, 100), "skew": (20,)}


def config_of(data: str, seed: int) -> TrainingConfig:
    """Returns the training section of a data set's agents."""
    steps = STEPS.get(data, 300)
    return TrainingConfig(
        num_agents=AGENTS,
        agent_specializations=("generalist",),
        steps=steps,
        trunk_steps=steps // 3,
        branch=0.0,
        batch_size=BATCH.get(data, 64),
        warmup_steps=steps // 10,
        seed=seed,
    )


def tasks(given: argparse.Namespace) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yields what is measured in one go: its key, and what measures it."""
    for seed in range(given.splits):
        for data in given.data if "cost" in given.parts else ():
            yield ("cost", data, seed), partial(cost, data, seed, given.methods)
        for part, names, run in (("sweep", SWEPT, swept), ("skew", SKEWED, skewed)):
            for data in names if part in given.parts else ():
                if data in given.data:
                    yield (part, data, seed), partial(grid, part, data, seed, run)


def cost(data: str, seed: int, named: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of methods on one re-split."""
    split = Resplit.of(data, seed)
    for row in compared(split, config_of(data, seed), named):
        yield {**row, "bayes": table(data).bayes, **sizes(split)}


def grid(part: str, data: str, seed: int, run: Any) -> Iterator[dict[str, Any]]:
    """Yields a row for each alpha and H on one re-split."""
    split = Resplit.of(data, seed)
    for alpha in ALPHAS:
        # Who shares nothing does so at any H.
        for every in EVERY[part] if alpha < 1 else EVERY[part][:1]:
            own = {"alpha": alpha, "every": every, **sizes(split)}
            yield own | run(split, config_of(data, seed), alpha, every)


def sizes(split: Resplit) -> dict[str, float]:
    """Returns rows tested / rows trained on."""
    trained = len(split.joined(("train", "constraint"), ""))
    return {"test_to_train": len(split.test) / trained}


def kept(given: argparse.Namespace, code: str) -> list[dict[str, Any]]:
    """Returns the rows of this code that were measured before."""
    if given.anew:
        KEPT.unlink(missing_ok=True)
    if not KEPT.is_file():
        return []
    rows = [json.loads(line) for line in KEPT.read_text().splitlines()]
    if any(row.pop("of_code") != code for row in rows):
        raise SystemExit(
            f"{KEPT.name} holds rows of other code or methods; drop them with --anew."
        )
    return rows


def measured(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures what is not kept yet, a task at a time."""
    code = json.dumps([measured_code("agents"), given.methods], sort_keys=True)
    raw = kept(given, code)
    done = {(row["part"], row["data"], row["split"]) for row in raw}
    with settled(1):
        keep_freed_memory()
        for key, run in tasks(given):
            if key in done:
                continue
            head = dict(zip(("part", "data", "split"), key, strict=True))
            rows = [head | row for row in run()]
            # All of a task or nothing: a task that is cut short is measured anew.
            with KEPT.open("a", encoding="utf-8") as file:
                file.writelines(
                    json.dumps({**row, "of_code": code}) + "\n" for row in rows
                )
            raw += rows
            spent = sum(row["cpu_s"] for row in rows)
            print(f"{' '.join(map(str, key))}: {spent:.0f} CPU s", file=sys.stderr)
    return raw


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks agents",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--data", nargs="+", choices=TABLES, default=[*TABLES])
    names = [method.__name__ for method in METHODS]
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--packages", metavar="FOLDER", default="")
    parser.add_argument("--anew", action="store_true")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(argv)
    # At the end: no library of ours gives way to one of a peer.
    sys.path += [str(Path(given.packages).resolve())] if given.packages else []
    if "mnist1d" in given.data and find_spec("mnist1d") is None:
        print("mnist1d is left out: its package is not here (--packages).")
        given.data.remove("mnist1d")
    raw = measured(given)
    print(figures.tables(raw))
    if given.write:
        parts, data = " ".join(given.parts), " ".join(given.data)
        methods = " ".join(given.methods)
        found = in_form(
            "agents",
            f"python -m benchmarks agents --parts {parts} --data {data} "
            f"--methods {methods} --splits {given.splits} --anew --write",
            packages=("python", "torch", "numpy", "scikit-learn", "scipy"),
            cores=", one thread, beside other programs",
            seeds=range(given.splits),
            own={"agents": AGENTS, "paired": figures.paired(raw)},
            rows=[
                *figures.summaries(raw),
                *figures.shares(raw, "sweep"),
                *figures.shares(raw, "skew"),
            ],
            goals=figures.goals(raw),
            raw=raw,
        )
        store(RESULT, found)


if __name__ == "__main__":
    main()
