"""Stage 3: agents are trained under the constitution and merged into one model."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safescale_ammt.artifacts import (
    read_json,
    read_manifest,
    verify,
    write_json,
    writing,
)
from safescale_ammt.config import TrainingConfig
from safescale_ammt.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import IntegrityError
from safescale_ammt.search.genome import Genome

if TYPE_CHECKING:
    from safescale_ammt.training.merge import Merged
    from safescale_ammt.training.trainer import Trained

STAGE = "train_agents"
LOG = "training.jsonl"
TWIN = "twin"


def run(
    dataset: Path | str,
    architecture: Path | str,
    constitution: Mapping[str, Any],
    training: Mapping[str, Any],
    model: Path | str,
) -> dict[str, Any]:
    """Trains the architecture's genome and writes the model artifact.

    Args:
        dataset: the dataset artifact.
        architecture: the architecture artifact, found on that dataset.
        constitution: the constitution file's mapping.
        training: the `training` section of a config.
        model: where the model artifact is written.

    Returns:
        What the log shows: the form of the model and its figures on *select*.

    Raises:
        ConfigError: the section is wrong, or names a role that tables do not have.
        ConstitutionError: the constitution is malformed.
        IntegrityError: a byte was changed, or the architecture was found on another
            dataset or for another constitution.
        SafescaleError: training lost most of its agents.
    """
    config = TrainingConfig.from_params(training)
    rules = Constitution.from_dict(constitution)
    found = verify(architecture, "architecture")
    data = Dataset.load(dataset)
    _same_parent("dataset", found.parents, data.identity)
    _same_parent("constitution", found.parents, rules.digest)
    genome = Genome.from_dict(read_json(Path(architecture) / "genome.json"))
    parents = {
        "dataset": data.identity,
        "architecture": found.identity,
        "constitution": rules.digest,
    }
    with writing(
        model,
        kind="model",
        stage=STAGE,
        config_digest=config.digest,
        parents=parents,
    ) as draft:
        draft.outside_identity.add(LOG)
        with Journal(draft.folder / LOG) as journal:
            trained, merged = _train(data, genome, config, rules, journal)
        merged.model.save(draft.folder, data.schema)
        merged.twin.save(draft.folder / TWIN, data.schema)
        write_json(draft.folder / "constitution.json", rules.to_dict())
    return {
        "model": read_manifest(model).identity,
        "form": merged.choice,
        "members": merged.model.members,
        "feasible": merged.feasible,
        "accuracy": merged.scores.get(merged.choice, {}).get("accuracy"),
        "agents": len(trained.agents),
        "steps": trained.steps,
        "left_out": list(trained.constraints.left_out),
    }


def _train(
    data: Dataset,
    genome: Genome,
    config: TrainingConfig,
    rules: Constitution,
    journal: Journal,
) -> tuple[Trained, Merged]:
    """Trains and merges; torch is imported once the inputs have been checked."""
    from safescale_ammt.training.merge import merge
    from safescale_ammt.training.problem import Problem
    from safescale_ammt.training.trainer import train

    problem = Problem(data)
    trained = train(problem, genome, config, rules, log=journal.write)
    merged = merge(trained, problem, rules, form=config.merge, seed=config.seed)
    journal.write(merged.to_dict())
    journal.write({"event": "end", "step": trained.steps})
    return trained, merged


class Journal:
    """The training log: one JSON line per event, with its seconds since the start.

    It is written as events happen and is no part of the model's identity. Every
    tenth round and everything rare is also printed.
    """

    _PRINT_EVERY = 10

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._start = time.perf_counter()
        self._rounds = 0

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, event: Mapping[str, Any]) -> None:
        """Writes one event."""
        seconds = round(time.perf_counter() - self._start, 3)
        line = json.dumps({**event, "seconds": seconds}, allow_nan=False)
        self._file.write(line + "\n")
        if sentence := self._sentence(event):
            print(f"{sentence} [{seconds:.1f} s]", flush=True)

    def _sentence(self, event: Mapping[str, Any]) -> str | None:
        kind = event["event"]
        if kind == "left_out":
            return str(event["reason"])
        if kind == "merge":
            return f"Merged into one model: {event['choice']}."
        if kind != "round":
            return None
        self._rounds += 1
        if self._rounds % self._PRINT_EVERY != 1:
            return None
        gaps = "; ".join(f"{n} {v:+.3f}" for n, v in event["violation"].items())
        return f"Step {event['step']}: violations {gaps or 'none enforced'}."


def _same_parent(what: str, parents: Mapping[str, str], given: str) -> None:
    """Checks that the architecture was found on what training is given.

    Raises:
        IntegrityError: it was not; the sentence holds both digests.
    """
    stated = parents.get(what)
    if stated != given:
        raise IntegrityError(
            f"The architecture was found with {what} {stated}, but {STAGE} is given "
            f"{given}; search again, or train on what was searched."
        )
