"""Stage 2: is the promise certifiable, do promises fight, which genome is best.

Cheapest question first: the power check needs counts alone and torch is not even
imported before it has passed.
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
BESIDE: Strategy = "random"
"""Always run beside it at equal budget, so that every log says what search gave."""
TIMES = "times.json"


def run(
    dataset: Path | str,
    constitution: Mapping[str, Any],
    search: Mapping[str, Any],
    architecture: Path | str,
) -> dict[str, Any]:
    """Checks the constitution against the data and searches a genome.

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
    rules = Constitution.from_dict(constitution)
    data = Dataset.load(dataset)
    check_groups(rules, data.schema)
    power = power_check(rules, data.counts, draws=config.power_draws, seed=config.seed)
    refuse_uncertifiable(rules, power)

    from safescale_ammt.search.trials import Trials
    from safescale_ammt.training.encoded import EncodedDataset

    trials = Trials(EncodedDataset(data), rules, config)
    clock = _Clock()
    feasibility = check_feasibility(rules, trials.read, config.feasibility_steps)
    clock.lap("feasibility")
    found = _search(STRATEGY, trials, config)
    clock.lap(STRATEGY)
    beside = _search(BESIDE, trials, config)
    clock.lap(BESIDE)
    log = search_log(found, beside)
    with writing(
        architecture,
        kind="architecture",
        stage=STAGE,
        config_digest=config.digest,
        parents={"dataset": data.identity, "constitution": rules.digest},
    ) as draft:
        draft.outside_identity.add(TIMES)
        write_json(draft.folder / "genome.json", found.winner.genome.to_dict())
        write_json(draft.folder / "search.json", log)
        write_json(draft.folder / "power.json", power.to_dict())
        write_json(draft.folder / "feasibility.json", feasibility)
        write_json(draft.folder / TIMES, clock.laps)
    return {
        "architecture": read_manifest(architecture).identity,
        "genome": found.winner.genome.to_dict(),
        "parameters": trials.space().parameters(found.winner.genome),
        "candidates": len(log["candidates"]),
        "certifiable": power.certifiable,
        "power": power.sentence,
        "fights": [fight["sentence"] for fight in feasibility.get("fights", [])],
    }


def check_groups(constitution: Constitution, schema: Schema) -> None:
    """Checks that each promise about groups speaks of groups that there are.

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
                f"dataset does not have, {one_of(schema.groups)}."
            )
        values = schema.groups[name]
        if len(values) < 2:
            raise ConstitutionError(
                f"Principle {principle.id!r} compares groups by {name!r}, but every "
                f"row of the dataset has the value {values[0]!r}."
            )


def search_log(found: Search, beside: Search) -> dict[str, Any]:
    """Returns `search.json`: both searches, numbered through, and the front.

    Random candidates follow the others; their ids go on from there.
    """
    shift = len(found.candidates)
    random = [
        {**entry, "id": entry["id"] + shift, "parents": []} for entry in beside.log()
    ]
    return {
        "schema": 1,
        "strategy": found.strategy,
        "candidates": [*found.log(), *random],
        "front": [c.id for c in found.front],
        "winner": found.winner.id,
        "random_winner": beside.winner.id + shift,
        "budget": {
            "unit": "optimizer steps of each strategy",
            "planned": budget_steps(found.config),
            "spent": found.steps,
            "spent_random": beside.steps,
        },
        "fitness": {
            "complexity_weight": found.fitness.complexity_weight,
            "violation_weight": found.fitness.violation_weight,
            "reference_flops": found.fitness.reference_flops,
        },
    }


def _search(strategy: Strategy, trials: Trials, config: SearchConfig) -> Search:
    search = Search(strategy, trials.space(), config)
    while trial := search.ask():
        search.tell(trial, trials.measure(trial))
    return search


class _Clock:
    """Wall seconds per part, kept outside the artifact's identity."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self._last, 3)
        self._last = now
