"""What `constraint-transfer` asks: tables, promises, and the rows of one re-split.

A task is a metric, a group and the inputs of Adult. A re-split draws as many sealed
rows as the official test file has from all 48,842 rows; `official` keeps that file, and
`dev0`, `dev1`, ... are cut from the official development file alone: knobs of peers are
chosen there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.fair_baselines import store_beside
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.coding import encode
from safescale_ammt.data.dataset import Dataset, Split
from safescale_ammt.data.feature_codes import Numeric
from safescale_ammt.data.holdout import Holdout
from safescale_ammt.model.genome import Genome
from safescale_ammt.reading.catalogue import ADULT
from safescale_ammt.reading.fetching import fetch
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.protected import made_whole
from safescale_ammt.store.uri import STORE
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.plan import Plan, make_plan

T = TypeVar("T")
CACHE = Path.home() / ".cache" / "safescale-ammt"
OFFICIAL, DEVELOPMENT = "official", "dev"
POOL = ("train", "constraint")
"""Splits that nets are trained on."""
TREE_POOL = (*POOL, "monitor")
"""Splits that trees are boosted on, ours and the peers'."""
SPLITS = (*TREE_POOL, "validation", "select")


@dataclass(frozen=True)
class Task:
    """A promise about a table.

    Attributes:
        metric: of the constitution.
        group: whose rates are compared.
        tau: the tolerance that is judged by default.
        drop: columns of Adult that are no inputs, beside the catalogue's.
    """

    metric: str
    group: str
    tau: float
    drop: tuple[str, ...] = ()


# Inputs of the small table: age, workclass, education in years, marital status,
# occupation, capital gain and loss, hours per week.
_LEFT_OUT = ("education", "relationship", "native_country")
TASKS = {
    "tpr": Task("tpr_gap", "sex", 0.08),
    "dp": Task("dp_gap", "sex", 0.10),
    "eo": Task("eo_difference", "sex", 0.10),
    # At .08 a perfect model would pass less than four times in five.
    "race": Task("tpr_gap", "race2", 0.10, _LEFT_OUT),
}


def constitution_of(task: Task, tau: float) -> Constitution:
    """Returns the promise, and that accuracy is at most a point below the twin's."""
    gap = {"metric": task.metric, "group": task.group, "op": "<=", "threshold": tau}
    useful = {"metric": "accuracy", "op": ">=", "reference": "unconstrained_twin"}
    return Constitution.from_dict(
        {
            "schema": 1,
            "constitution": {"id": "adult-income"},
            "principles": [
                {"id": "gap", "constraint": gap},
                {"id": "useful", "constraint": {**useful, "delta": -0.01}},
            ],
        }
    )


def resplit(split: str, folder: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """Writes the two files of a re-split; returns their URIs by role.

    Args:
        split: `official`, a number, or `dev` and a number.
        folder: gets the files.
        files: the official ones by role.
    """
    if split == OFFICIAL:
        return {role: path.resolve().as_uri() for role, path in files.items()}
    rows = {role: lines(path) for role, path in files.items()}
    inside = split.startswith(DEVELOPMENT)
    pooled = rows["source"] + ([] if inside else rows["sealed_source"])
    sealed = len(pooled) // 3 if inside else len(rows["sealed_source"])
    seed = (1 if inside else 0, int(split.removeprefix(DEVELOPMENT)))
    order = np.random.default_rng(seed).permutation(len(pooled))
    parts = {"sealed_source": order[:sealed], "source": order[sealed:]}
    for role, numbers in parts.items():
        text = "\n".join(pooled[i] for i in numbers) + "\n"
        (folder / f"{role}.csv").write_text(text, encoding="utf-8")
    return {role: (folder / f"{role}.csv").resolve().as_uri() for role in parts}


def lines(path: Path) -> list[str]:
    """Returns the rows of one of Adult's files as text."""
    text = path.read_text(encoding="utf-8").splitlines()
    return [line for line in text if line and not line.startswith("|")]


def prepared(
    split: str, task: Task, folder: Path, adult: Mapping[str, Path] | None = None
) -> tuple[Path, Path]:
    """Prepares the dataset and the holdout of a re-split.

    Args:
        split: which.
        task: names the columns that are no inputs.
        folder: gets the artifacts, the store beside them and the rows.
        adult: Adult's files by role; None fetches them.
    """
    files = resplit(split, folder, adult or fetch("adult", CACHE))
    dataset, holdout = folder / "dataset", folder / "holdout"
    drop = [*ADULT.data["drop"], *task.drop]
    section = {**ADULT.data, **files, "seed": seed_of(split), "drop": drop}
    prepare_data.run(
        section, dataset, holdout, environ={STORE: store_beside(holdout).uri}
    )
    return dataset, holdout


def seed_of(split: str) -> int:
    """Returns the seed of a re-split's folds and weights."""
    # The official split is one more seed, and not the first one once again.
    return 1000 if split == OFFICIAL else int(split.removeprefix(DEVELOPMENT))


@dataclass(frozen=True)
class Rows:
    """Rows as a peer sees them.

    Attributes:
        x: encoded inputs (n, d).
        y: labels (n,), 1 is the positive class.
        group: codes (n,).
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Returns the rows of several parts, one after the other."""
        names = ("x", "y", "group")
        return cls(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


class Answer(NamedTuple):
    """Predictions (n,) of the sealed rows, and scores (n,)."""

    prediction: NDArray[Any]
    score: NDArray[Any]


@dataclass(frozen=True)
class Case:
    """One re-split under one promise.

    Attributes:
        name: of the task.
        split: which re-split.
        tau: the tolerance; infinite where nothing is promised.
        dataset, holdout: the artifacts.
        kept: what methods of one re-split share, by name.
    """

    name: str
    split: str
    tau: float
    dataset: Path
    holdout: Path
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The task itself."""
        return TASKS[self.name]

    @property
    def constitution(self) -> Constitution:
        """What the answers are judged by."""
        # No gap exceeds 1.
        return constitution_of(self.task, min(self.tau, 1.0))

    @property
    def config(self) -> TrainingConfig:
        """The training section: all defaults but the seed."""
        return TrainingConfig(seed=seed_of(self.split))

    @property
    def data(self) -> Dataset:
        """The dataset."""
        return self.shared("data", lambda: Dataset.load(self.dataset))

    @property
    def genome(self) -> Genome:
        """Of all nets, ours and the peers'."""
        return Genome()

    @property
    def nets(self) -> GenomeNets:
        """Our nets on the dataset."""
        return self.shared(
            "nets", lambda: GenomeNets(EncodedDataset(self.data), self.genome)
        )

    @cached_property
    def plan(self) -> Plan:
        """Folds, cells and schedule of our training."""
        return make_plan(self.nets, self.config, self.constitution)

    @property
    def values(self) -> tuple[str, ...]:
        """The groups' names, by code."""
        return tuple(self.data.schema.groups[self.task.group])

    def rows(self, *splits: str) -> Rows:
        """Returns development rows of some splits."""
        parts = self.data.splits
        return Rows.joined(
            [self.shared(f"rows of {s}", partial(self._read, parts[s])) for s in splits]
        )

    @property
    def sealed(self) -> Rows:
        """The rows that are answered and judged."""
        return self.shared("sealed", self.judged)

    def judged(self, numeric: Numeric = "ple") -> Rows:
        """Reads the rows that are answered, in the encoding of nets or of trees."""
        beside = store_beside(self.holdout)
        with made_whole(beside, self.holdout, "holdout") as folder:
            return self._read(Holdout.load(folder).split, numeric)

    def _read(self, split: Split, numeric: Numeric = "ple") -> Rows:
        x = encode(self.data.schema, split.features, numeric)
        return Rows(x, split.label, split.groups[self.task.group].astype(np.int64))

    def shared(self, name: str, make: Callable[[], T]) -> T:
        """Returns what one of several methods makes for all of this re-split."""
        if name not in self.kept:
            self.kept[name] = make()
        found: T = self.kept[name]
        return found
