"""A small table taken through the first three stages, once for all tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import preparing
from laptop import CONSTITUTION, WORKLOAD, write_people

from safescale_ammt.releasing.registry import Registry
from safescale_ammt.stages import (
    evaluate_safety,
    register_model,
    search_architecture,
    train_agents,
)
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import STORE, open_store


@dataclass(frozen=True)
class World:
    """Artifact folders up to the model, and the constitution behind it."""

    folder: Path
    constitution: dict[str, Any]

    @property
    def inputs(self) -> tuple[Path, Path, Path, Path]:
        """The four artifacts that are judged."""
        names = ("dataset", "holdout", "architecture", "model")
        return tuple(self.folder / name for name in names)  # type: ignore[return-value]

    def kept_in(self, store: Store) -> None:
        """Puts what the holdout names into another store."""
        store.upload_folder(self.folder / "store" / "sealed", "sealed")

    def train(self, name: str, seed: int) -> Path:
        """Trains another model of the same architecture, once."""
        if (self.folder / name).exists():
            return self.folder / name
        section = {**WORKLOAD["training"], "seed": seed}
        places = (self.folder / "dataset", self.folder / "architecture")
        train_agents.run(*places, self.constitution, section, self.folder / name)
        return self.folder / name


@cache
def build(
    folder: Path,
    floor: float = 0.6,
    planned: int = 1,
    each: int = 1,
    feedback: str = "figures",
) -> World:
    """Prepares, searches and trains under a promise of some accuracy.

    With more than one row of `each` person, the column `who` names them.
    """
    folder.mkdir()
    write_people(folder / "people.csv", 3000, seed=1)
    write_people(folder / "sealed.csv", 2000, seed=2)
    for name in ("people", "sealed") if each > 1 else ():
        head, *rows = (folder / f"{name}.csv").read_text().splitlines()
        named = [f"{row},{name}{i // each}" for i, row in enumerate(rows)]
        (folder / f"{name}.csv").write_text("\n".join([f"{head},who", *named]))
    data = {
        **WORKLOAD["data"],
        "source": (folder / "people.csv").as_uri(),
        "sealed_source": (folder / "sealed.csv").as_uri(),
        **({"entity": "who"} if each > 1 else {}),
    }
    equal, useful = CONSTITUTION["principles"]
    constraint = {**useful["constraint"], "floor": floor}
    rule = {
        **CONSTITUTION,
        "principles": [equal, {**useful, "constraint": constraint}],
        "gate": {
            "planned_submissions": planned,
            "on_uncertifiable": "human",
            "feedback": feedback,
        },
    }
    world = World(folder, rule)
    dataset, holdout, architecture, _ = world.inputs
    preparing.run(data, dataset, holdout)
    search_architecture.run(
        dataset, rule, WORKLOAD["search"], WORKLOAD["training"], architecture
    )
    world.train("model", seed=0)
    return world


def registered(
    nets: World, folder: Path, name: str, search: Any, training: Any
) -> World:
    """Takes the table of a world through all later stages, under sections of its own.

    Args:
        nets: whose dataset, sealed rows and promises are taken.
        folder: gets the artifacts, and the store of rows, ledger and registry.
        name: of the registry.
        search: the section.
        training: the section.
    """
    world = World(folder, nets.constitution)
    for artifact in ("dataset", "holdout"):
        (folder / artifact).symlink_to(nets.folder / artifact)
    store = open_store((folder / "store").as_uri())
    nets.kept_in(store)
    dataset, _, architecture, model = world.inputs
    rule, environ = world.constitution, {STORE: store.uri}
    search_architecture.run(dataset, rule, search, training, architecture)
    train_agents.run(dataset, architecture, rule, training, model)
    places, verdict = (*nets.inputs[:2], architecture, model), folder / "verdict"
    evaluate_safety.run(*places, rule, {}, verdict, environ=environ)
    register_model.run(
        *(model, verdict, rule, {"name": name}, folder / "version"), environ=environ
    )
    return world


def newest_bundle(world: World, name: str, folder: Path) -> Path:
    """Brings the bundle of a registry's newest version into a folder."""
    registry = Registry(open_store((world.folder / "store").as_uri()), name)
    registry.get_bundle(registry.versions()[-1], folder)
    return folder
