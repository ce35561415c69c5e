"""Who finds the better network for a table at equal budget?

    python -m benchmarks search-table [--seeds 5 6 7 8 9] [--data FOLDER] [--write]

Local search, ageing evolution and random search spend the default budget of the
search stage on Adult, seed by seed, judged on *validation*. Three rules that train
nothing stand beside them: the default genome, the largest network under the caps,
and the one with the most parameters among as many draws as random search made.
Each winner is then trained for the full number of steps, alone and unconstrained,
and its loss on *select*, which no search has seen, is the figure that counts.

The stage's default strategy was chosen on seeds 0 to 4; what is stored comes from
fresh seeds. About 4 CPU minutes. The official test file is not read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.provenance import in_form, store
from safescale_ammt.config.sections import SearchConfig, TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.model.genome import ENCODINGS, Genome
from safescale_ammt.model.network import log_loss, predicted
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import fetch
from safescale_ammt.search.asha import budget_steps
from safescale_ammt.search.evolution import STRATEGIES, Search
from safescale_ammt.search.search_space import DEEPEST, WIDTHS, Space
from safescale_ammt.search.trials import Trials, logits
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.uri import STORE
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.trainer import train

ROOT = Path(__file__).parent.parent
RESULT = ROOT / "benchmarks" / "results" / "search-table.json"
CACHE = Path.home() / ".cache" / "safescale-ammt"
SEEDS = (5, 6, 7, 8, 9)
BUDGET = {
    "candidates": 9,
    "rung_steps": 80,
    "eta": 3,
    "rungs": 2,
    "population": 6,
    "sample": 3,
}
SCORED_ON = "select"
STRATEGY = SearchConfig().strategy
"""The default, which is compared with all others."""
CONSTITUTION = Constitution.from_dict(
    {
        "schema": 1,
        "constitution": {"id": "search-table"},
        "principles": [
            {
                "id": "equal-opportunity",
                "constraint": {"metric": "tpr_gap", "group": "sex", "threshold": 0.08},
            }
        ],
    }
)
# A promise that any network keeps: the final training is to be unconstrained.
RELAXED = Constitution.from_dict(
    {
        "schema": 1,
        "principles": [
            {"id": "useful", "constraint": {"metric": "accuracy", "threshold": 0.5}}
        ],
    }
)


@dataclass(frozen=True)
class Pick:
    """What a method hands on, and what it cost to find."""

    genome: Genome
    steps: int
    cpu_s: float


def adult(cache: Path) -> EncodedDataset:
    """Prepares Adult afresh from the files of the catalogue."""
    files = fetch("adult", cache)
    uris = {role: path.resolve().as_uri() for role, path in files.items()}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare_data.run(
            {**ADULT.data, **uris},
            *(folder / "data", folder / "holdout"),
            environ={STORE: (folder / "store").as_uri()},
        )
        dataset = Dataset.load(folder / "data")
        # Read while the folder is there.
        return EncodedDataset(replace(dataset, splits=dict(dataset.splits)))


def searched(strategy: str, trials: Trials) -> Pick:
    """Runs one strategy on the default budget."""
    started = time.process_time()
    search = Search(strategy, trials.space(), trials.config)  # type: ignore[arg-type]
    while trial := search.ask():
        search.tell(trial, trials.measure(trial))
    cpu = time.process_time() - started
    return Pick(search.winner.genome, search.steps, cpu)


def largest(space: Space) -> Pick:
    """Takes the network with the most parameters among all of equal widths."""
    even = [
        Genome(encoding=encoding, widths=(width,) * depth)
        for encoding in ENCODINGS
        for width in WIDTHS
        for depth in range(1, DEEPEST + 1)
    ]
    return Pick(max(filter(space.holds, even), key=space.parameters), 0, 0.0)


def most_parameters(space: Space, draws: int, seed: int) -> Pick:
    """Takes the draw with the most parameters: a proxy that costs nothing."""
    rng = np.random.default_rng(seed)
    genomes = [space.draw(rng) for _ in range(draws)]
    return Pick(max(genomes, key=space.parameters), 0, 0.0)


def picks(encoded: EncodedDataset, seed: int) -> Iterator[tuple[str, Pick]]:
    """Yields each method's choice for one seed."""
    config = SearchConfig.from_params({**BUDGET, "seed": seed})
    trials = Trials(encoded, CONSTITUTION, config, TrainingConfig())
    space = trials.space()
    trials.read(())  # shared by the strategies, so it is on nobody's clock
    for strategy in STRATEGIES:
        yield strategy, searched(strategy, trials)
    yield "default genome", Pick(space.seed(), 0, 0.0)
    yield "largest under the caps", largest(space)
    yield "#parameters", most_parameters(space, config.candidates, seed)


def final(encoded: EncodedDataset, genome: Genome, seed: int) -> tuple[float, float]:
    """Trains a genome in full; returns loss (nats) and accuracy on *select*."""
    full = TrainingConfig()
    config = TrainingConfig(
        num_agents=1,
        agent_specializations=("generalist",),
        steps=full.steps,
        trunk_steps=full.steps,
        seed=1_000 + seed,  # not a seed of any search: no trial is trained again
    )
    trained = train(GenomeNets(encoded, genome), config, RELAXED, log=lambda _: None)
    rows = encoded.rows(SCORED_ON, genome.encoding)
    out = logits(genome, trained.twin, rows, encoded.n_out)
    return log_loss(out, rows.y), float((predicted(out) == rows.y).double().mean())


def measured(encoded: EncodedDataset, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yields one raw row per seed and method."""
    reference = Trials(encoded, CONSTITUTION, SearchConfig(), TrainingConfig()).space()
    for seed in seeds:
        # Two methods may pick the same genome, and one training has one result.
        finals: dict[Genome, tuple[float, float]] = {}
        for method, pick in picks(encoded, seed):
            if pick.genome not in finals:
                finals[pick.genome] = final(encoded, pick.genome, seed)
            loss, accuracy = finals[pick.genome]
            yield {
                "seed": seed,
                "method": method,
                "loss": loss,
                "accuracy": accuracy,
                "flops": reference.flops(pick.genome) / reference.flops(Genome()),
                "parameters": reference.parameters(pick.genome),
                "steps": pick.steps,
                "cpu_s": round(pick.cpu_s, 2),
                "genome": pick.genome.to_dict(),
            }


def summary(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Averages over the seeds, the best mean loss first."""
    rows = []
    for method in dict.fromkeys(r["method"] for r in raw):
        group = [r for r in raw if r["method"] == method]
        keys = ("loss", "accuracy", "flops", "steps", "cpu_s")
        means = {key: mean(r[key] for r in group) for key in keys}
        spread = [min(r["loss"] for r in group), max(r["loss"] for r in group)]
        rows.append({"method": method, **means, "loss_spread": spread})
    return sorted(rows, key=lambda row: row["loss"])


def goals(raw: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compares the stage's default strategy with everyone else, seed by seed."""
    losses = {(r["method"], r["seed"]): r["loss"] for r in raw}
    seeds = sorted({r["seed"] for r in raw})
    reached = []
    for method in dict.fromkeys(r["method"] for r in raw):
        if method == STRATEGY:
            continue
        # Seed by seed: the split is the same for both, and its luck cancels.
        gains = [losses[STRATEGY, s] - losses[method, s] for s in seeds]
        reached.append(
            {
                "what": f"loss on select, {STRATEGY} search minus {method}, nats",
                "op": "<",
                "goal": 0.0,
                "value": mean(gains),
                "spread": [min(gains), max(gains)],
            }
        )
    return reached


def result(raw: list[dict[str, Any]]) -> dict[str, Any]:
    """Puts the rows into the form of all benchmark results."""
    config = SearchConfig.from_params(BUDGET)
    return in_form(
        "search-table",
        "python -m benchmarks search-table --write",
        packages=("numpy", "torch"),
        cores=", one thread used",
        seeds=sorted({r["seed"] for r in raw}),
        own={"budget": {**BUDGET, "steps": budget_steps(config)}},
        rows=summary(raw),
        goals=goals(raw),
        raw=raw,
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Writes the rows as Markdown."""
    lines = [
        "| method | loss on select (min to max) | accuracy | FLOPs | search steps |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        low, high = r["loss_spread"]
        lines.append(
            f"| {r['method']} | {r['loss']:.4f} ({low:.4f} to {high:.4f}) | "
            f"{r['accuracy']:.4f} | {r['flops']:.2f} | {r['steps']:,.0f} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table; stores the result with `--write`."""
    parser = argparse.ArgumentParser(prog="search-table", description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--data", type=Path, default=CACHE)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args(argv)
    raw = list(measured(adult(options.data), options.seeds))
    print(table(summary(raw)))
    if options.write:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        store(RESULT, result(raw))


if __name__ == "__main__":
    main()
