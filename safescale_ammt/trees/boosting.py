"""Boosting: one booster of LightGBM, tree by tree, which can be left and taken up.

A booster that goes on from a checkpoint begins anew where the scores of its trees so
far stand: their text says the scores to the last bit (`model.forest`), so the trees
that follow are those of a booster that was never stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from safescale_ammt.model.arithmetic import Floats
from safescale_ammt.model.forest import Forest, mixture
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.training.encoded import CodedInputs, EncodedRows
from safescale_ammt.training.thinning import draws
from safescale_ammt.trees.library import lightgbm

L2_PER_DECAY = 100.0
"""Pull of leaves to 0 per unit of a role's weight decay: 10 for `efficiency`."""
_AT_ONCE = 1 << 14
"""Rows that become inputs together, on their way into LightGBM's bins."""
BINNED: Mapping[str, Any] = {
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
    # Or columns would be left out by another number of rows a leaf than a genome's.
    "feature_pre_filter": False,
}
"""How LightGBM makes bins: the same whatever the number of threads."""


def settings(genome: TreeGenome, classes: int, threads: int = 1) -> dict[str, Any]:
    """Returns a genome as LightGBM's parameters.

    Nothing is drawn: neither rows nor columns, so that no generator has a state.
    """
    return {
        **BINNED,
        "num_threads": threads,
        "objective": "binary" if classes == 2 else "multiclass",
        "num_class": 1 if classes == 2 else classes,
        "num_leaves": genome.leaves,
        "min_data_in_leaf": genome.least_rows,
        "lambda_l2": genome.l2,
        "learning_rate": genome.rate,
    }


def objective(classes: int) -> str:
    """Returns what the text of a model says of its scores."""
    return "binary sigmoid:1" if classes == 2 else f"multiclass num_class:{classes}"


class Inputs:
    """Raw inputs of rows, of which some may be lost.

    Args:
        rows: encoded `raw`.
        drop: chance that an input is lost: it is then as if it were missing.
        seed: of what is lost, which depends on row and input alone.
    """

    def __init__(self, rows: EncodedRows, drop: float = 0.0, seed: int = 0) -> None:
        assert isinstance(rows.x, CodedInputs)
        self.rows, self.levels = rows, rows.x.coding.levels
        self._lost = rows.x.coding.missing()
        self._most, self._seed = drop * 2**62, seed

    def __call__(self, numbers: NDArray[np.int64]) -> Floats:
        """Returns the inputs (m, width) of rows by their numbers."""
        x: Floats = self.rows.batch(torch.from_numpy(numbers)).numpy()
        if not self._most:
            return x
        cell = numbers[:, None] * self.rows.width + np.arange(self.rows.width)
        return np.where(
            draws(cell, np.full_like(cell, self._seed)) < self._most, self._lost, x
        )


def binned(inputs: Inputs, threads: int, like: Any = None) -> Any:
    """Gives inputs to LightGBM in batches, of which it keeps a byte for each input.

    Args:
        inputs: of all rows.
        threads: of LightGBM.
        like: a data set of the same rows whose bins are taken.
    """
    library, rows = lightgbm(), len(inputs.rows)
    # LightGBM draws rows for its bins one by one, in their order.
    block = lru_cache(maxsize=1)(
        lambda i: inputs(np.arange(i * _AT_ONCE, min((i + 1) * _AT_ONCE, rows)))
    )

    class InBatches(library.Sequence):  # type: ignore[misc, name-defined]
        batch_size = _AT_ONCE

        def __len__(self) -> int:
            return rows

        def __getitem__(self, index: Any) -> Floats:
            if isinstance(index, slice):
                return inputs(np.arange(*index.indices(rows)))
            part, at = divmod(index, _AT_ONCE)
            return np.asarray(block(part)[at])

    return library.Dataset(
        InBatches(),
        label=inputs.rows.y.numpy(),
        categorical_feature=inputs.levels if like is None else "auto",
        reference=like,
        params={**BINNED, "num_threads": threads},
    ).construct()


class Boosting:
    """One booster.

    Args:
        data: LightGBM's data set of all rows.
        inputs: what it was made of.
        view: row numbers that it sees (m,).
        parameters: LightGBM's.
        text: trees that it has already; "" = none.
    """

    def __init__(
        self,
        data: Any,
        inputs: Inputs,
        view: NDArray[np.int64],
        parameters: Mapping[str, Any],
        *,
        text: str = "",
    ) -> None:
        self._data, self._inputs, self._view = data, inputs, view
        self._parameters = dict(parameters)
        self._before = Forest.read(text) if text else None
        self._earlier = 0
        own = data.subset(view.tolist()).construct()
        if self._before is not None:
            self._earlier = len(self._before.trees) // self._before.outputs
            starts = range(0, len(view), _AT_ONCE)
            parts = (inputs(view[at : at + _AT_ONCE]) for at in starts)
            scores = [self._before.raw(x) for x in parts]
            own.set_init_score(squeezed(np.concatenate(scores)))
        self._booster = lightgbm().Booster(self._parameters, own)

    def resumed(self, text: str) -> Boosting:
        """Returns this booster as it was when it had these trees."""
        own = (self._data, self._inputs, self._view, self._parameters)
        return Boosting(*own, text=text)

    def step(
        self, descent: Callable[[Floats], tuple[Floats, Floats]] | None = None
    ) -> None:
        """Adds a tree; by the log loss alone where nothing else is to descend."""
        if descent is None:
            self._booster.update()
        else:
            self._booster.update(fobj=lambda scores, _: descent(scores))

    def raw(self, x: Floats, first: int = 0) -> Floats:
        """Returns the scores (n, outputs) of rows by the rounds from one on.

        Args:
            x: raw inputs (n, width).
            first: rounds that are left out: none, or some since the checkpoint.
        """
        total, last = np.zeros((len(x), self._parameters["num_class"])), self.rounds
        if self._before is not None and not first:
            total += self._before.raw(x)
        if (skipped := max(first - self._earlier, 0)) < last - self._earlier:
            found = self._booster.predict(
                *(x, skipped, last - self._earlier - skipped),
                raw_score=True,
                num_threads=self._parameters["num_threads"],
            )
            total += np.asarray(found).reshape(total.shape)
        return total

    @property
    def rounds(self) -> int:
        """Rounds that were taken in all."""
        return self._earlier + int(self._booster.current_iteration())

    def text(self, says: str) -> str:
        """Returns all trees as LightGBM's text; `says` is their objective."""
        texts: Sequence[str] = [self._booster.model_to_string()]
        if self._before is not None:
            texts = [self._before.text, *texts]
        return mixture(texts, [1.0] * len(texts), says)


class Watched:
    """Scores of some rows, to which each look adds those of the new trees.

    Args:
        x: raw inputs (n, width).
    """

    def __init__(self, x: Floats) -> None:
        self._x, self._rounds, self._scores = x, 0, np.zeros(1)

    def look(self, booster: Boosting) -> Floats:
        """Returns the scores (n, outputs) of a booster, the same one each time."""
        self._scores = self._scores + booster.raw(self._x, self._rounds)
        self._rounds = booster.rounds
        return self._scores


def squeezed(scores: Floats) -> Floats:
    """Returns scores (n, outputs) as LightGBM takes them: (n,) of one output."""
    return scores[:, 0] if scores.shape[1] == 1 else scores
