"""Stage 2: can the promises be certified and kept together, which genome is best.

The cheapest question comes first: the power check needs counts alone, and torch is
not even imported before it has passed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safescale_ammt.config.sections import SearchConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import ConstitutionError, one_of
from safescale_ammt.files.artifacts import read_manifest, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.judging.power.check import power_check, refuse_uncertifiable
from safescale_ammt.search.asha import budget_steps
from safescale_ammt.search.evolution import Search, Strategy
from safescale_ammt.search.feasibility import check_feasibility

if TYPE_CHECKING:
    from safescale_ammt.search.trials import Trials

STAGE = "search_architecture"
STRATEGY: Strategy = "local"
"""The winner of `python -m benchmarks search-table`."""
# At the same budget, so that every log says what the search gained over chance.
BASELINE: Strategy = "random"
TIMES = "times.json"


def run(
    dataset: Path | str,
    constitution: Mapping[str, Any],
    search: Mapping[str, Any],
    architecture: Path | str,
) -> dict[str, Any]:
    """Checks the constitution against the data and searches a genome.

    Groups, power, feasibility, search, baseline: each check is dearer than the one
    before it, and a promise that fails an early one costs no training.

    Args:
        dataset: the dataset artifact.
        constitution: the constitution file's mapping.
        search: the `search` section of a config.
        architecture: where the architecture artifact is written.

    Returns:
        What the log shows: the winner, its figures, the checks' sentences.

    Raises:
        ConfigError: the section is wrong.
        ConstitutionError: the constitution is wrong, or names groups or values
            that the dataset does not have.
        Uncertifiable: the sealed counts cannot certify a promised tolerance.
        IntegrityError: a byte of the dataset was changed.
    """
    config = SearchConfig.from_params(search)
    parsed = Constitution.from_dict(constitution)
    data = Dataset.load(dataset)
    check_groups(parsed, data.schema)
    power = power_check(parsed, data.counts, draws=config.power_draws, seed=config.seed)
    refuse_uncertifiable(parsed, power)

    # These import torch, seconds of work that a refused constitution is spared.
    from safescale_ammt.search.trials import Trials
    from safescale_ammt.training.encoded import EncodedDataset

    trials = Trials(EncodedDataset(data), parsed, config)
    stopwatch = _Stopwatch()
    feasibility = check_feasibility(parsed, trials.read, config.feasibility_steps)
    stopwatch.lap("feasibility")
    main_search = _search(STRATEGY, trials, config)
    stopwatch.lap(STRATEGY)
    baseline = _search(BASELINE, trials, config)
    stopwatch.lap(BASELINE)
    log = search_log(main_search, baseline)
    winner = main_search.winner.genome
    with writing(
        architecture,
        kind="architecture",
        stage=STAGE,
        config_digest=config.digest,
        parents={"dataset": data.identity, "constitution": parsed.digest},
    ) as draft:
        # Seconds differ from run to run; the same work has the same identity.
        draft.outside_identity.add(TIMES)
        write_json(draft.folder / "genome.json", winner.to_dict())
        write_json(draft.folder / "search.json", log)
        write_json(draft.folder / "power.json", power.to_dict())
        write_json(draft.folder / "feasibility.json", feasibility)
        write_json(draft.folder / TIMES, stopwatch.laps)
    return {
        "architecture": read_manifest(architecture).identity,
        "genome": winner.to_dict(),
        "parameters": trials.space().parameters(winner),
        "candidates": len(log["candidates"]),
        "certifiable": power.certifiable,
        "power": power.sentence,
        "fights": [fight["sentence"] for fight in feasibility.get("fights", [])],
    }


def check_groups(constitution: Constitution, schema: Schema) -> None:
    """Checks that each promise about groups names groups that the dataset has.

    Raises:
        ConstitutionError: no such group column, or one with a single value.
    """
    for principle in constitution.principles:
        name = principle.constraint.group
        if name is None:
            continue
        if name not in schema.groups:
            raise ConstitutionError(
                f"Principle {principle.id!r} speaks of the group {name!r}, which the "
                f"dataset does not have, {one_of(schema.groups, name)}."
            )
        # A gap needs two values: between one value and itself it is 0, a promise that
        # any model keeps.
        values = schema.groups[name]
        if len(values) < 2:
            raise ConstitutionError(
                f"Principle {principle.id!r} compares groups by {name!r}, but every "
                f"row of the dataset has the value {values[0]!r}."
            )


def search_log(search: Search, baseline: Search) -> dict[str, Any]:
    """Returns `search.json`: both searches, numbered consecutively, and the front.

    The baseline's candidates follow the others; their ids go on from there.
    """
    shift = len(search.candidates)
    random = [
        {**entry, "id": entry["id"] + shift, "parents": []} for entry in baseline.log()
    ]
    return {
        "schema": 1,
        "strategy": search.strategy,
        "candidates": [*search.log(), *random],
        # Of the main search alone: the baseline is a measure of it, no second source.
        "front": [c.id for c in search.front],
        "winner": search.winner.id,
        "random_winner": baseline.winner.id + shift,
        "budget": {
            "unit": "optimizer steps of each strategy",
            "planned": budget_steps(search.config),
            "spent": search.steps,
            "spent_random": baseline.steps,
        },
        "fitness": {
            "complexity_weight": search.fitness.complexity_weight,
            "violation_weight": search.fitness.violation_weight,
            "reference_flops": search.fitness.reference_flops,
        },
    }


def _search(strategy: Strategy, trials: Trials, config: SearchConfig) -> Search:
    # Trials are measured one by one: `ask` may use every result before it, and the same
    # seed then gives the same search.
    search = Search(strategy, trials.space(), config)
    while trial := search.ask():
        search.tell(trial, trials.measure(trial))
    return search


class _Stopwatch:
    """Wall seconds of each part of the stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends a part that began where the one before it ended."""
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
