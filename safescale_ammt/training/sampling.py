"""Which rows a net takes its next step on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from safescale_ammt.training.roles import Role
from safescale_ammt.training.stateful import StateDict, stacked


def row_weights(role: Role, strata: Tensor) -> Tensor | None:
    """Returns the weight with which each row is drawn, or None for uniform.

    Args:
        role: whose data view this is.
        strata: group x label code of each row (n,).
    """
    if role.balance == 0:
        return None
    sizes = torch.bincount(strata)[strata].to(torch.float64)
    return sizes**-role.balance


class RowOrder:
    """The order in which one agent sees its rows: pass after pass.

    Every pass is a fresh permutation of the agent's rows; with weights it is a
    draw with replacement of the same length.
    """

    def __init__(self, rows: Tensor, weights: Tensor | None, seed: int) -> None:
        self._rows = rows
        self._weights = weights
        self._generator = torch.Generator().manual_seed(seed)
        self._before = self._generator.get_state()
        self._ahead = rows[:0]

    def take(self, count: int) -> Tensor:
        """Returns the next `count` row numbers."""
        while len(self._ahead) < count:
            self._ahead = torch.cat([self._ahead, self._next_pass()])
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken

    def cursor(self) -> Tensor:
        """Returns where the order is: the last pass' generator, the rows left."""
        left = len(self._ahead)
        generator = self._before if left else self._generator.get_state()
        return torch.cat([torch.tensor([left]).view(torch.uint8), generator])

    def seek(self, cursor: Tensor) -> None:
        """Goes on from a cursor."""
        left, self._before = int(cursor[:8].view(torch.long)), cursor[8:].clone()
        self._generator.set_state(self._before)
        rows = self._next_pass() if left else self._rows
        self._ahead = rows[len(rows) - left :]

    def _next_pass(self) -> Tensor:
        n = len(self._rows)
        self._before = self._generator.get_state()
        if self._weights is None:
            return self._rows[torch.randperm(n, generator=self._generator)]
        # Inverse of the cumulative weights: `multinomial` stops at 2^24 rows.
        edges = self._weights.cumsum(0)
        draws = torch.rand(n, generator=self._generator, dtype=torch.float64)
        places = torch.searchsorted(edges, draws * edges[-1], right=True)
        return self._rows[places.clamp_(max=n - 1)]


class RowOrders:
    """The orders of this process' nets, side by side."""

    def __init__(self, orders: Sequence[RowOrder]) -> None:
        self._orders = orders

    def deal(self, count: int) -> Tensor:
        """Returns the next rows of every net, (nets, count)."""
        return torch.stack([order.take(count) for order in self._orders])

    def state_dict(self) -> StateDict:
        """Returns every net's cursor."""
        cursors = [order.cursor() for order in self._orders]
        return StateDict(each={"cursor": stacked(cursors, torch.zeros(0))})

    def load_state_dict(self, state: StateDict) -> None:
        """Goes on from the cursors."""
        for order, cursor in zip(self._orders, state.each["cursor"], strict=True):
            order.seek(cursor)


def stratified_folds(strata: Tensor, folds: int, seed: int) -> Tensor:
    """Deals rows into folds so that every stratum is spread evenly.

    Returns:
        Fold number (n,) of each row; sizes differ by at most one row in all and
        within each stratum.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(strata), generator=generator)
    dealt = shuffled[torch.argsort(strata[shuffled], stable=True)]
    found = torch.empty(len(strata), dtype=torch.long)
    found[dealt] = torch.arange(len(strata)) % folds
    return found


CELL_ROWS = 32


_MOST_CELL_ROWS = 256


class CellSampler:
    """Draws the same number of rows from every cell, for every net.

    Args:
        inside: (cells, n) booleans, which row counts in which cell.
        seen: the rows (n_i,) that each of the k nets may train on.
        seed: of the draws.
        mine: the nets whose rows are drawn in this process; None is all of them.
    """

    def __init__(
        self,
        inside: Tensor,
        seen: Sequence[Tensor],
        seed: int,
        mine: range | None = None,
    ) -> None:
        cells = len(inside)
        self.per_cell = min(CELL_ROWS, max(8, _MOST_CELL_ROWS // max(1, cells)))
        self._generator = torch.Generator().manual_seed(seed)
        self._mine = slice(mine.start, mine.stop) if mine else slice(None)
        lists = [[rows[inside[c][rows]] for c in range(cells)] for rows in seen]
        longest = max((len(r) for net in lists for r in net), default=0)
        self._rows = torch.zeros(len(seen), cells, longest, dtype=torch.long)
        self._sizes = torch.zeros(len(seen), cells, 1)
        for i, net in enumerate(lists):
            for c, rows in enumerate(net):
                self._rows[i, c, : len(rows)] = rows
                self._sizes[i, c] = len(rows)

    def draw(self) -> Tensor:
        """Returns row numbers (k, cells * per_cell), with replacement."""
        k, cells, longest = self._rows.shape
        rows = self._rows[self._mine]
        if longest == 0:
            return torch.zeros(len(rows), 0, dtype=torch.long)
        draws = torch.rand(k, cells, self.per_cell, generator=self._generator)
        places = (draws * self._sizes).to(torch.long).clamp_(max=longest - 1)
        return rows.gather(2, places[self._mine]).flatten(1)

    def state_dict(self) -> StateDict:
        """Returns where the draws are."""
        return StateDict(common={"generator": self._generator.get_state()})

    def load_state_dict(self, state: StateDict) -> None:
        """Goes on from there."""
        self._generator.set_state(state.common["generator"])
