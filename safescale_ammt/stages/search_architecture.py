"""Stage 2: can the promises be certified and kept together, which genome is best.

The cheapest question comes first: the power check needs counts alone, and torch is
not even imported before it has passed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safescale_ammt.config.sections import SearchConfig, TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.data.row_changes import check_threats
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import ConstitutionError, one_of
from safescale_ammt.files.artifacts import read_manifest, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.judging.power.check import power_check, refuse_uncertifiable
from safescale_ammt.judging.skill import ONE_CLASS
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.reporting.stage_summaries import search_summary
from safescale_ammt.search.asha import budget_steps
from safescale_ammt.search.evolution import Search, Strategy
from safescale_ammt.search.feasibility import check_feasibility
from safescale_ammt.stage_progress import say_progress
from safescale_ammt.training.threshold import require_two_classes

if TYPE_CHECKING:
    from safescale_ammt.search.trials import Trials

STAGE = "search_architecture"
TIMES = "times.json"
CONTROL = "control.json"


def run(
    dataset: Path | str,
    constitution: Mapping[str, Any],
    search: Mapping[str, Any],
    training: Mapping[str, Any],
    architecture: Path | str,
) -> dict[str, Any]:
    """Checks the constitution against the data and searches a genome.

    Groups, power, feasibility, search, control: each check is dearer than the one
    before it, and a promise that fails an early one costs no training.

    Args:
        dataset: the dataset artifact.
        constitution: the constitution file's mapping.
        search: the `search` section of a config.
        training: the `training` section: candidates train under it, for less long.
        architecture: where the architecture artifact is written.

    Returns:
        What the log shows: the winner, its figures and cost, the checks' sentences.

    Raises:
        ConfigError: a section is wrong, or training.threshold parts three classes.
        ConstitutionError: the constitution is wrong, or names groups or values
            that the dataset does not have.
        Uncertifiable: the sealed counts cannot certify a promised tolerance.
        IntegrityError: a byte of the dataset was changed.
    """
    config = SearchConfig.from_params(search)
    # Before anything is spent: a role that nobody knows would fail the next stage.
    settings = TrainingConfig.from_params(training)
    parsed = Constitution.from_dict(constitution)
    data = Dataset.load(dataset, beside=Path(architecture))
    check_groups(parsed, data.schema)
    require_two_classes(settings.threshold, data.schema)
    say_progress(0, 1, "what the sealed rows can certify")
    power = power_check(
        parsed,
        data.counts,
        shares=data.class_shares(),
        draws=config.power_draws,
        seed=config.seed,
        unit=data.schema.unit,
    )
    refuse_uncertifiable(parsed, power)

    # These import torch, seconds of work that a refused constitution is spared.
    from safescale_ammt.training.encoded import EncodedDataset
    from safescale_ammt.training.thinning import SEARCH

    if settings.learner == "trees":
        from safescale_ammt.search.tree_trials import TreeTrials as Trials
    elif settings.model:
        from safescale_ammt.search.module_trials import (  # type: ignore[assignment]
            ModuleTrials as Trials,
        )
    else:
        from safescale_ammt.search.trials import Trials  # type: ignore[assignment]

    trials = Trials(EncodedDataset(data, SEARCH), parsed, config, settings)
    # Of a module of the user's own there is one candidate.
    asked = trials.config
    stopwatch = _Stopwatch()
    say_progress(0, 1, "which promises fight")
    feasibility = check_feasibility(parsed, trials.read, config.feasibility_steps)
    stopwatch.lap("feasibility")
    found = _search(asked.strategy, trials, asked, spent=0)
    stopwatch.lap("search")
    control = None
    if asked.control != "none":
        control = _search(asked.control, trials, asked, spent=found.steps)
        stopwatch.lap("control")
    winner = found.winner.genome
    with writing(
        architecture,
        kind="architecture",
        stage=STAGE,
        config_digest=config.digest,
        parents={"dataset": data.identity, "constitution": parsed.digest},
    ) as draft:
        # Seconds differ from run to run; the same work has the same identity. Nor does
        # a measure of the search make another architecture.
        draft.outside_identity |= {TIMES, CONTROL}
        write_json(draft.folder / "genome.json", winner.to_dict())
        log = search_log(found, trials.training)
        write_json(draft.folder / "search.json", log)
        write_json(draft.folder / CONTROL, control_log(control, len(found.candidates)))
        write_json(draft.folder / "power.json", power.to_dict())
        write_json(draft.folder / "feasibility.json", feasibility)
        write_json(draft.folder / TIMES, stopwatch.laps)
    return {
        "architecture": read_manifest(architecture).identity,
        "genome": winner.to_dict(),
        "parameters": trials.space().parameters(winner),
        "strategy": asked.strategy,
        "candidates": len(found.candidates),
        "steps": found.steps,
        "control": asked.control,
        "control_steps": control.steps if control else 0,
        "certifiable": power.certifiable,
        "power": power.sentence,
        "fights": [fight["sentence"] for fight in feasibility.get("fights", [])],
        "metrics": metrics_of(log, trials.space().parameters(winner)),
        "markdown": search_summary(log, power.to_dict(), feasibility, parsed),
    }


def check_groups(constitution: Constitution, schema: Schema) -> None:
    """Checks that each promise speaks of groups, classes and columns that are there.

    Raises:
        ConstitutionError: no such group column, or one with a single value; a
            metric of one class, but several and none declared positive; a threat to
            columns that are not there, or not so.
    """
    for principle in constitution.principles:
        metric = principle.constraint.metric
        if metric in ONE_CLASS and len(schema.classes) > 2 and not schema.positive:
            raise ConstitutionError(
                f"Principle {principle.id!r} promises {metric}, which speaks of one "
                f"class, but there are {len(schema.classes)}; name data.positive, or "
                "promise balanced_accuracy."
            )
        for name in principle.constraint.columns:
            if name not in schema.groups:
                raise ConstitutionError(
                    f"Principle {principle.id!r} speaks of the group {name!r}, which "
                    f"the dataset does not have, {one_of(schema.groups, name)}."
                )
            # A gap needs two values: between one value and itself it is 0, a promise
            # that any model keeps. One stratum is all rows.
            values = schema.groups[name]
            if len(values) < 2:
                raise ConstitutionError(
                    f"Principle {principle.id!r} compares groups by {name!r}, but "
                    f"every row of the dataset has the value {values[0]!r}."
                )
    constitution.require_crosses(schema.crosses)
    check_threats(constitution, schema)


def metrics_of(log: Mapping[str, Any], parameters: int) -> dict[str, float]:
    """Returns what a pipeline's page lists of a search: finite floats by name.

    Args:
        log: `search.json`.
        parameters: of the winner.
    """
    winner = next(c for c in log["candidates"] if c["id"] == log["winner"])
    budget = log["budget"]
    found = {f"winner/{key}": winner[key] for key in ("loss", "violation", "steps")}
    found |= {"winner/parameters": parameters, "candidates": len(log["candidates"])}
    found |= {"budget/spent": budget["spent"], "budget/planned": budget["planned"]}
    # Of a candidate that was never measured there is no figure.
    known = {k: float(v) for k, v in found.items() if v is not None}
    return {name: value for name, value in known.items() if math.isfinite(value)}


def search_log(search: Search, short_run: TrainingConfig) -> dict[str, Any]:
    """Returns `search.json`: every candidate, the front, the winner and the budget.

    Args:
        search: what was searched.
        short_run: the section that candidates trained under; told where it differs
            from the defaults.
    """
    settings, defaults = short_run.to_params(), TrainingConfig().to_params()
    return {
        "schema": 2,
        "strategy": search.strategy,
        "short_run": {k: v for k, v in settings.items() if v != defaults[k]},
        "candidates": search.log(),
        "front": [c.id for c in search.front],
        "winner": search.winner.id,
        "budget": _budget(search),
        "fitness": {
            "complexity_weight": search.fitness.complexity_weight,
            "violation_weight": search.fitness.violation_weight,
            "reference_flops": search.fitness.reference_flops,
        },
    }


def control_log(control: Search | None, first: int) -> dict[str, Any]:
    """Returns `control.json`: the search by chance that the search is measured by.

    Args:
        control: the control, which hands nothing on; None if none was asked for.
        first: id of its first candidate, one above the last of the search.
    """
    if control is None:
        return {"schema": 1, "strategy": "none", "candidates": []}
    candidates = [{**entry, "id": entry["id"] + first} for entry in control.log()]
    return {
        "schema": 1,
        "strategy": control.strategy,
        "candidates": candidates,
        "winner": control.winner.id + first,
        "budget": _budget(control),
    }


def _budget(search: Search) -> dict[str, Any]:
    trees = isinstance(search.space.seed(), TreeGenome)
    unit = "boosting rounds" if trees else "optimizer steps"
    planned = budget_steps(search.config)
    return {"unit": unit, "planned": planned, "spent": search.steps}


def _search(
    strategy: Strategy, trials: Trials, config: SearchConfig, *, spent: int
) -> Search:
    """Searches with one strategy, after others have spent so many steps."""
    # Trials are measured one by one: `ask` may use every result before it, and the same
    # seed then gives the same search.
    search = Search(strategy, trials.space(), config)
    while trial := search.ask():
        search.tell(trial, trials.measure(trial))
        tried = sum(bool(candidate.results) for candidate in search.candidates)
        say_progress(
            spent + search.steps,
            # A control takes as many steps as the search.
            budget_steps(config) * (1 if config.control == "none" else 2),
            f"{tried} of {config.candidates} candidates ({strategy})",
        )
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
