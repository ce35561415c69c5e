"""Trainings that several real processes run together: the cases, and one process.

Each process (`main`; RANK, WORLD_SIZE, MASTER_... in its environment) trains the named
cases, all of them without names, one after the other, and rank 0 writes the outcome of
each to a folder.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import children
from patience import PATIENCE
from safetensors.torch import load_file, save_file
from torch import Tensor
from training_world import DP, TPR, USEFUL, brief, constitution

from safescale_ammt.config.roles import ROLES
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import SafescaleError
from safescale_ammt.launch.request import open_place
from safescale_ammt.model.genome import Genome
from safescale_ammt.training.checkpoint import Checkpoints
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.placement import SINGLE_PROCESS, GlooGroup, ProcessGroup
from safescale_ammt.training.trainer import train

WIDE = Genome(widths=(16,), dropout=0.1)
ODD = Genome(widths=(48, 16), dropout=0.1, activation="gelu")
NARROW = Genome(widths=(7, 5), dropout=0.1, activation="gelu")


@dataclass(frozen=True)
class Case:
    """One training."""

    constraints: Sequence[Mapping[str, Any]] = (TPR, USEFUL)
    genome: Genome = WIDE
    changes: Mapping[str, Any] = field(default_factory=dict)


TUNED = {
    "tune": "population",
    "tune_budget": 300,
    "tune_every": 7,
    "tune_learning_rate": [1e-4, 0.3],
}
# Widths are whole vector registers, as in all that the search tries.
CASES = {
    "plain": Case(),
    "free": Case((USEFUL,), ODD, {"batch_size": 37}),
    "odd": Case((DP,), ODD, {"batch_size": 37, "num_agents": 4}),
    "heads": Case((TPR,), Genome(widths=(16,), heads=2)),
    "linear": Case((TPR,), Genome(widths=(), dropout=0.0)),
    "residual": Case((DP,), Genome("standard", (16, 16), residual=True)),
    "roles": Case(
        (DP,), changes={"num_agents": len(ROLES), "agent_specializations": [*ROLES]}
    ),
    "fitness": Case((DP,), changes={"sharing": "fitness", "self_weight": 0.5}),
    "trimmed": Case((DP,), changes={"sharing": "trimmed_mean", "num_agents": 6}),
    "median": Case((DP,), changes={"sharing": "median", "outer_momentum": 0.5}),
    # Agents that go their own ways: their mean is another model than they are.
    "apart": Case(
        ({**DP, "threshold": 0.01},),
        changes={
            "num_agents": 4,
            "agent_specializations": ["generalist", "safety", "robust", "minority"],
            "self_weight": 1,
            "learning_rate": 0.1,
            "dual_ki": 2.0,
            "steps": 120,
        },
    ),
    "uneven": Case((DP,), changes={"dual_every": 7, "sync_every": 9}),
    "tuned": Case((DP,), changes={**TUNED, "num_agents": 4, "sync_every": 3}),
    "tuned free": Case((USEFUL,), changes={**TUNED, "num_agents": 5, "sync_every": 2}),
    "mixed": Case(
        (DP,),
        changes={
            **TUNED,
            "tune_also": ["batch_size", "roles", "self_weight"],
            "num_agents": 5,
            "sync_every": 3,
            "agent_specializations": [*ROLES],
        },
    ),
    # Observed: multipliers that an alarm raises would make all gradients too long.
    "lost": Case(
        (DP,),
        changes={
            "gradient_stability_threshold": 0.26,
            "seed": 2,
            "monitor": "observe",
        },
    ),
    # A gap far above tau that no multiplier moves: rung after rung of corrections.
    "alarmed": Case(
        ({**DP, "threshold": 0.01},),
        changes={"steps": 160, "dual_ki": 0, "dual_kp": 0, "monitor_alpha": 0.9999},
    ),
    # It ends before its last step, but after the monitor's first look.
    "patient": Case((DP,), changes={"steps": 600, "patience": 12}),
    "hopeless": Case((DP,), changes={"learning_rate": 1e30, "trunk_steps": 0}),
}
AUTO = {
    "auto": Case(
        (DP,), changes={"num_agents": "auto", "agent_specializations": [*ROLES]}
    )
}
"""Agents of so many roles that four of them are not enough."""
BUDGET = {"budget": Case((DP,), changes={"budget_seconds": 2.5})}
"""As many steps as fit: each process has its own clock."""
LONG = {"long": Case((DP,), changes={**CASES["roles"].changes, "steps": 400})}
NARROW_CASES = {
    "narrow": Case((DP,), NARROW, {"batch_size": 37}),
    "nine": Case((DP,), Genome(widths=(9,), activation="silu"), {"batch_size": 50}),
}


@dataclass(frozen=True)
class Outcome:
    """Outcome of a case: tensors and log, or a sentence."""

    tensors: dict[str, Tensor]
    events: list[dict[str, Any]]
    sentence: str = ""


def outcome(
    encoded: EncodedDataset,
    case: Case,
    process_group: ProcessGroup = SINGLE_PROCESS,
    checkpoints: Checkpoints | None = None,
) -> Outcome:
    """Runs one case."""
    events: list[dict[str, Any]] = []
    changes = {**case.changes, "backend": "torchrun"}
    try:
        trained = train(
            GenomeNets(encoded, case.genome),
            brief(**changes),
            constitution(*case.constraints),
            log=events.append,
            process_group=process_group,
            checkpoints=checkpoints,
        )
    except SafescaleError as error:
        return Outcome({}, events, str(error))
    tensors = {
        "agents": trained.agents,
        "twin": trained.twin,
        "finite": trained.finite,
        "targets": trained.targets,
    }
    return Outcome(tensors, events)


def save(folder: Path, name: str, result: Outcome) -> None:
    """Writes an outcome."""
    save_file({n: t.contiguous() for n, t in result.tensors.items()}, folder / name)
    words = {"events": result.events, "sentence": result.sentence}
    (folder / f"{name}.json").write_text(json.dumps(words))


def load(folder: Path, name: str) -> Outcome:
    """Reads an outcome."""
    words = json.loads((folder / f"{name}.json").read_text())
    return Outcome(load_file(folder / name), words["events"], words["sentence"])


def start(processes: int, *arguments: str, **more: str) -> list[children.Fork]:
    """Starts so many processes, as one process group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    group |= {"WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    children.warm(__name__)
    return [
        children.Fork(main, arguments, {**group, **more, "RANK": str(r)})
        for r in range(processes)
    ]


def wait(processes: Sequence[children.Fork]) -> list[tuple[int, str]]:
    """Waits for all; returns exit codes and the last lines of their errors."""
    ends = []
    for process in processes:
        _, errors = process.communicate(timeout=PATIENCE)
        ends.append((process.returncode, (errors.splitlines() or [""])[-1]))
    return ends


def main(dataset: str, out: str, *names: str) -> None:
    """Runs one process."""
    timeout = timedelta(seconds=float(os.environ.get("TIMEOUT", PATIENCE)))
    process_group = (
        GlooGroup(timeout) if int(os.environ["WORLD_SIZE"]) > 1 else SINGLE_PROCESS
    )
    encoded = EncodedDataset(Dataset.load(dataset))
    where = os.environ.get("CHECKPOINTS", "")
    cases = {**CASES, **NARROW_CASES, **LONG, **AUTO, **BUDGET}
    for name in names or [*CASES, *NARROW_CASES]:
        checkpoints = None
        if where:
            checkpoints = Checkpoints(open_place(where), every=2, run={"of": name})
        print(f"begins {name}", flush=True)
        result = outcome(encoded, cases[name], process_group, checkpoints)
        if process_group.rank == 0 and Path(out).is_dir():
            save(Path(out), name, result)
        if result.sentence and name != "hopeless":
            print(result.sentence, file=sys.stderr, flush=True)
            # Not through the interpreter's end, which Gloo's threads may abort while a
            # peer hangs (seen once, signal 6): the product reads a report, no code.
            os._exit(1)
    process_group.close()
