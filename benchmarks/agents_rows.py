"""The data sets of `agents`, and nets on re-splits of their rows.

breast_cancer, wine and digits are scikit-learn's; mnist1d is made by its own package
(Greydanus and Kobak 2024), offline; Adult is the catalogue's development file, its
inputs coded once by quantile edges that no label enters; `bumps` is made here and has a
known Bayes error. A re-split draws a fifth of the rows for testing, a tenth each for
*validation* and *select*, and standardises by those that train.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.agents_cost import CACHE, prepared
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows

BUMPS_ROWS = 4000
TEST, HELD = 0.2, 0.1
"""Shares of the rows that are tested, and of those of *validation* and of *select*."""
FARTHEST = 5.0
"""Standard deviations from the mean at which an input is cut off."""
HELD_OUT = ("validation", "select")
"""Rows that no weight is fitted on: for stopping, tuning and choosing."""


@dataclass(frozen=True)
class Table:
    """All rows of a data set.

    Attributes:
        x: inputs (n, d).
        y: class codes (n,).
        bayes: least error that any answer can have, or None if nobody knows.
        coded: whether the inputs are coded already, and stay as they are.
    """

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    bayes: float | None = None
    coded: bool = False


def of_sklearn(name: str) -> Table:
    """Reads a data set that scikit-learn brings along."""
    from sklearn import datasets

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return Table(x.astype(np.float32), y.astype(np.int64))


def mnist1d() -> Table:
    """Makes MNIST-1D by its own package, whose default arguments are the paper's."""
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    x, y = (np.concatenate([made[n], made[f"{n}_test"]]) for n in "xy")
    return Table(x.astype(np.float32), y.astype(np.int64))


def adult() -> Table:
    """Reads Adult's development file, coded as nets read it."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset.load(prepared(Path(folder), CACHE))
        rows = EncodedDataset(dataset).joined(tuple(dataset.splits), "ple")
        parts = [rows.batch(block) for block in rows.blocks()]
    return Table(torch.cat(parts).numpy(), rows.y.numpy(), coded=True)


def bumps() -> Table:
    """Makes two classes whose chances are known: a sum of bumps in six dimensions."""
    rng = np.random.default_rng(7)
    centres, signs = rng.normal(size=(24, 6)), rng.choice([-4.0, 4.0], 24)
    x = rng.normal(size=(BUMPS_ROWS, 6))
    far = ((x[:, None] - centres) ** 2).sum(2)
    chance = 1 / (1 + np.exp(-(np.exp(-far / 4) @ signs)))
    y = rng.random(BUMPS_ROWS) < chance
    # Of these rows, so that no answer can be expected to have less.
    bayes = float(np.minimum(chance, 1 - chance).mean())
    return Table(x.astype(np.float32), y.astype(np.int64), bayes)


TABLES: dict[str, Callable[[], Table]] = {
    "breast_cancer": lambda: of_sklearn("breast_cancer"),
    "wine": lambda: of_sklearn("wine"),
    "digits": lambda: of_sklearn("digits"),
    "mnist1d": mnist1d,
    "bumps": bumps,
    "adult": adult,
}


@cache
def table(name: str) -> Table:
    """Returns a data set, read or made once."""
    return TABLES[name]()


@dataclass(frozen=True)
class Resplit:
    """Rows of one re-split: what of an `EncodedDataset` nets of a genome ask for.

    Attributes:
        splits: name -> rows; *train* and *constraint* are trained on.
        test: rows that are answered once, at the end.
        classes: how many.
    """

    splits: Mapping[str, EncodedRows]
    test: EncodedRows
    classes: int
    counts: Any = None
    kept: dict[tuple[str, ...], EncodedRows] = field(default_factory=dict)
    limits: Any = field(default_factory=lambda: SimpleNamespace(other=1 << 18))

    @classmethod
    def of(cls, name: str, seed: int) -> Resplit:
        """Draws a re-split of a data set, with equal shares of the classes."""
        data, rng = table(name), np.random.default_rng([seed, 11])
        fold = np.empty(len(data.y))
        for code in np.unique(data.y):
            at = rng.permutation(np.flatnonzero(data.y == code))
            fold[at] = (np.arange(len(at)) + rng.random()) / len(at)
        edges = {"test": TEST, "validation": TEST + HELD, "select": TEST + 2 * HELD}
        part = np.searchsorted([*edges.values()], fold % 1.0, side="right")
        x = data.x
        if not data.coded:
            fitted = x[part == len(edges)]
            x = (x - fitted.mean(0)) / np.maximum(fitted.std(0), 1e-6)
            # A pixel that hardly ever differs would be far away.
            x = x.clip(-FARTHEST, FARTHEST)
        parts = {
            split: EncodedRows(
                torch.from_numpy(x[part == i]), torch.from_numpy(data.y[part == i]), {}
            )
            for i, split in enumerate((*edges, "train"))
        }
        # Both are trained on.
        tenth = torch.arange(len(parts["train"])) % 10 == 0
        parts["constraint"] = parts["train"].where(tenth)
        parts["train"] = parts["train"].where(~tenth)
        return cls(parts, parts["test"], int(data.y.max()) + 1)

    @property
    def schema(self) -> Any:
        """No groups; the classes have numbers for names."""
        names = tuple(map(str, range(self.classes)))
        return SimpleNamespace(groups={}, classes=names, unit="rows", positive="1")

    @property
    def outcomes(self) -> tuple[int, ...]:
        """The classes whose rates would be compared."""
        return (1,) if self.classes == 2 else tuple(range(self.classes))

    @property
    def n_out(self) -> int:
        """Logits of a net."""
        return 1 if self.classes == 2 else self.classes

    def d_in(self, encoding: str) -> int:
        """Inputs of a row."""
        del encoding
        return self.test.width

    def joined(self, splits: tuple[str, ...], encoding: str) -> EncodedRows:
        """Returns the rows of splits, one after the other."""
        del encoding
        if splits not in self.kept:
            parts = [self.splits[name] for name in splits]
            x, y = (torch.cat([getattr(p, n) for p in parts]) for n in ("x", "y"))
            self.kept[splits] = EncodedRows(x, y, {})
        return self.kept[splits]
