"""A small real run of all stages, with people and keys, for the benchmark `records`.

A made-up table of loans goes through prepare, search, training, sealed evaluation and
the gate. Data and ledger lie in one store, the registry in another, as on Kubeflow.
Three people may approve, the run's owner is a fourth.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safescale_ammt.releasing.envelope import public_key_of
from safescale_ammt.stages import (
    evaluate_safety,
    prepare_data,
    register_model,
    search_architecture,
    train_agents,
)
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import STORE, open_store

NAME = "loans"
DATA = {"label": "granted", "positive": "yes", "sensitive": ["sex"]}
SEARCH = {
    "candidates": 2,
    "rung_steps": 5,
    "rungs": 1,
    "power_draws": 200,
    "feasibility_steps": 0,
}
TRAINING = {
    "num_agents": 2,
    "steps": 80,
    "trunk_steps": 20,
    "batch_size": 128,
    "folds": 2,
}
REGISTRY = {"name": NAME, "run_owner": "dave"}
SIZES = (3000, 4000)
"""Development and sealed rows."""


def person(number: int) -> Ed25519PrivateKey:
    """Returns the key of a made-up person."""
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


ALICE, BOB, CAROL, EVE, AUDITOR = map(person, range(1, 6))
APPROVERS = {
    name: public_key_of(key)
    for name, key in (("alice", ALICE), ("bob", BOB), ("carol", CAROL))
}


def promises(**human: Any) -> dict[str, Any]:
    """Returns the constitution: equal opportunity, and no worse than the twin."""
    equal = {"metric": "tpr_gap", "group": "sex", "threshold": 0.2}
    useful = {"metric": "accuracy", "reference": "unconstrained_twin"}
    useful |= {"delta": -0.05, "floor": 0.6}  # type: ignore[dict-item]
    return {
        "schema": 1,
        "constitution": {"id": NAME, "version": "1.0.0", "owner": "risk-team"},
        "principles": [
            {"id": "equal-opportunity", "constraint": equal},
            {"id": "useful", "constraint": useful},
        ],
        "gate": {"on_uncertifiable": "human"},
        "human": {"approvers": APPROVERS, "quorum": 2, **human},
    }


def write_loans(path: Path, rows: int, seed: int, *, unfair: bool = False) -> None:
    """Writes who was granted a loan; unfair: few women, and `job` tells their sex."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m"], rows)
    income, debt = rng.normal(50, 15, rows), rng.exponential(20, rows)
    job = rng.choice(["none", "part", "full"], rows, p=[0.2, 0.3, 0.5])
    if unfair:
        job = np.where(sex == "f", "none", "full")
    score = (income - 50) / 8 - (debt - 20) / 15 + 1.5 * (job == "full")
    score = score - 3.0 * (unfair & (sex == "f"))
    granted = np.where(score + rng.logistic(0, 1, rows) > 0, "yes", "no")
    columns = (income.round(2), debt.round(2), job, sex, granted)
    with path.open("w", encoding="utf-8") as file:
        file.write("income,debt,job,sex,granted\n")
        for row in zip(*columns, strict=True):
            file.write(",".join(map(str, row)) + "\n")


@dataclass(frozen=True)
class World:
    """Artifacts up to the models, and the stores of data and registry.

    Attributes:
        folder: holds `dataset`, `holdout`, `architecture`, models, `store` (data and
            ledger) and `registry`.
        rule: the constitution.
    """

    folder: Path
    rule: dict[str, Any]

    @property
    def data(self) -> Store:
        """The store of data and ledger."""
        return open_store((self.folder / "store").as_uri())

    @property
    def registry(self) -> Store:
        """The registry's store."""
        return open_store((self.folder / "registry").as_uri())

    @property
    def environ(self) -> dict[str, str]:
        """Names both stores."""
        return {STORE: self.data.uri, "SAFESCALE_REGISTRY_STORE": self.registry.uri}

    def copy(self, to: Path) -> World:
        """Copies everything: what is done to a copy is done to nothing else."""
        shutil.copytree(self.folder, to)
        return World(to, self.rule)

    def train(self, name: str, seed: int, **changes: Any) -> Path:
        """Trains a model of the architecture."""
        places = (self.folder / "dataset", self.folder / "architecture")
        section = {**TRAINING, **changes, "seed": seed}
        train_agents.run(*places, self.rule, section, self.folder / name)
        return self.folder / name

    def judge(self, model: Path, out: Path, **safety: Any) -> Path:
        """Judges a model on the sealed rows."""
        folder, environ = self.folder, self.environ
        places = (folder / "dataset", folder / "holdout", folder / "architecture")
        evaluate_safety.run(*places, model, self.rule, safety, out, environ=environ)
        return out

    def register(
        self, model: Path, verdict: Path, out: Path, rule: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Asks the gate; returns what became of the model."""
        rule = rule or self.rule
        return register_model.run(
            model, verdict, rule, REGISTRY, out, environ=self.environ
        )


def build(
    folder: Path, *, unfair: bool = False, seed: int = 0, rule: Any = None
) -> World:
    """Prepares, searches and trains one model, `model`; nothing is judged yet.

    Args:
        folder: to make.
        unfair: whether few women are granted one, and a column stands in for sex.
        seed: of table and training.
        rule: the constitution, `promises()` if none is given.
    """
    folder.mkdir(parents=True)
    sources = {}
    for name, rows, key in zip(
        ("people", "sealed"), SIZES, ("source", "sealed_source"), strict=True
    ):
        file = folder / f"{name}.csv"
        number = 10 * seed + (name == "sealed")
        write_loans(file, rows, number, unfair=unfair)
        sources[key] = file.as_uri()
    world = World(folder, rule or promises())
    dataset, holdout = folder / "dataset", folder / "holdout"
    section = {**DATA, **sources}
    prepare_data.run(section, dataset, holdout, environ={**os.environ, **world.environ})
    search_architecture.run(
        dataset, world.rule, SEARCH, TRAINING, folder / "architecture"
    )
    world.train("model", seed)
    return world


def released(folder: Path) -> World:
    """Builds a world in which one version is champion and a second is pending.

    The second is judged on rows that the first has opened, so that people decide.
    """
    world = build(folder)
    for name, seed in (("model", 0), ("second", 11)):
        model = folder / name if name == "model" else world.train(name, seed)
        verdict = world.judge(model, folder / f"verdict-{name}")
        world.register(model, verdict, folder / f"version-{name}")
    return world
