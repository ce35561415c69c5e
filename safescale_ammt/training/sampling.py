"""Sampling: which rows every net takes its next step on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.stateful import StateDict, stack_rows

CELL_ROWS = 32
"""Rows drawn from each cell per step and net, where cells are few."""
_LEAST_CELL_ROWS = 8
_APART = 1 << 40
"""More than any number of rows: where the next of several lists in one begins."""
_MOST_ROWS_OF_CELLS = 256
"""Rows of all cells together per step and net: half a default batch."""


class Batches:
    """The rows of each step: a batch for the task loss, and rows of every cell.

    Args:
        size: rows of the batch.
        orders: the order of the rows for each net of this process.
        cells: draws the rows of the cells; None while nothing is enforced.
        roles: of the nets, where they have any.
    """

    def __init__(
        self,
        size: int,
        orders: Sequence[RowOrder],
        cells: CellSampler | None = None,
        roles: Sequence[Role] = (),
    ) -> None:
        self._size, self._orders, self._cells = size, orders, cells
        self._roles, self._balance = list(roles), 0.0

    def draw(self) -> tuple[Tensor, Tensor]:
        """Returns row numbers (nets, size) and (nets, cells * rows per cell)."""
        batch = torch.stack([order.take(self._size) for order in self._orders])
        if self._cells is None:
            return batch, torch.zeros(len(batch), 0, dtype=torch.long)
        return batch, self._cells.draw()

    def reweight(self, plan: Plan, placement: Placement, balance: float) -> None:
        """Draws rows of small strata more often from the next batch on.

        The twin's rows stay: it shows what training does without promises.

        Args:
            plan: of the agents.
            placement: of agents and twin.
            balance: least exponent of `Role.balance` that an agent has from now on.
        """
        self._balance = balance
        for i, slot in enumerate(placement.local_below(len(plan.roles))):
            self._reweight(i, plan.strata[plan.views[slot]])

    def play(self, plan: Plan, placement: Placement, roles: Sequence[Role]) -> None:
        """Draws the rows of agents whose role has changed by their new one.

        Args:
            plan: of the agents.
            placement: of agents and twin.
            roles: of all agents (k).
        """
        for i, slot in enumerate(placement.local_below(len(roles))):
            before, self._roles[i] = self._roles[i], roles[slot]
            if before.balance != roles[slot].balance:
                self._reweight(i, plan.strata[plan.views[slot]])

    def _reweight(self, i: int, strata: Tensor) -> None:
        role = self._roles[i]
        role = replace(role, balance=max(role.balance, self._balance))
        self._orders[i].reweight(row_weights(role, strata))

    def state_dict(self) -> StateDict:
        """Returns every net's cursor, and the generator of the cells' rows."""
        cursors = [order.cursor() for order in self._orders]
        state = StateDict({"cursor": stack_rows(cursors, torch.zeros(0))})
        if self._cells is not None:
            state.common["cells"] = self._cells.generator.get_state()
        return state

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there."""
        for order, cursor in zip(self._orders, state.each["cursor"], strict=True):
            order.seek(cursor)
        if self._cells is not None:
            self._cells.generator.set_state(state.common["cells"])


def trunk_batches(plan: Plan) -> Batches:
    """Returns the batches of the trunk: all rows, uniformly, and no cells."""
    rows = plan.views[-1]
    return Batches(plan.batch_size, [RowOrder(rows, None, plan.seed("trunk"))])


def agent_batches(plan: Plan, placement: Placement) -> Batches:
    """Returns the batches of the nets of this process, each from its own view."""
    orders = []
    for slot in placement.local_slots:
        rows = plan.views[slot]
        weights = row_weights(plan.slots[slot], plan.strata[rows])
        orders.append(RowOrder(rows, weights, plan.seed(f"agent {slot}")))
    inside = plan.constraints.membership(plan.rows.groups, plan.rows.y)
    views = plan.views[: placement.nets]
    cells = CellSampler(inside, views, plan.seed("cells"), placement.local_slots)
    roles = [plan.slots[slot] for slot in placement.local_slots]
    return Batches(plan.batch_size, orders, cells, roles)


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
        self._generator = torch.Generator().manual_seed(seed)
        self._before = self._generator.get_state()
        self.reweight(weights)

    def reweight(self, weights: Tensor | None) -> None:
        """Draws by other weights from now on: what is left of the pass is dropped."""
        self._ahead = self._rows[:0]
        # Where each row ends on the line of weights that `multinomial`, which stops at
        # 2^24 rows, would lay out.
        self._ends = None if weights is None else weights.cumsum(0)

    def take(self, count: int) -> Tensor:
        """Returns the next `count` row numbers, int64."""
        batch, missing = [self._ahead[:count]], count - len(self._ahead)
        self._ahead = self._ahead[count:]
        while missing > 0:
            following = self._next_pass()
            batch.append(following[:missing])
            self._ahead = following[missing:]
            missing -= len(following)
        return torch.cat(batch).to(torch.long)

    def cursor(self) -> Tensor:
        """Returns where the order is: rows left, and the generator of their pass.

        The pass can be drawn again from the generator's state before it, so the
        cursor is a few kilobytes, however many rows there are.
        """
        remaining = len(self._ahead)
        generator = self._before if remaining else self._generator.get_state()
        return torch.cat([torch.tensor([remaining]).view(torch.uint8), generator])

    def seek(self, cursor: Tensor) -> None:
        """Continues from a cursor."""
        # The first eight bytes are the int64 that `cursor` viewed as uint8.
        remaining, self._before = int(cursor[:8].view(torch.long)), cursor[8:].clone()
        self._generator.set_state(self._before)
        rows = self._next_pass() if remaining else self._rows
        self._ahead = rows[len(rows) - remaining :]

    def _next_pass(self) -> Tensor:
        n = len(self._rows)
        self._before = self._generator.get_state()
        if self._ends is None:
            # Numbers of four bytes, the same as those of eight.
            order = torch.randperm(n, generator=self._generator, dtype=torch.int32)
            return self._rows[order]
        draws = torch.rand(n, generator=self._generator, dtype=torch.float64)
        draws *= self._ends[-1]
        positions = torch.searchsorted(self._ends, draws, right=True, out_int32=True)
        # A draw that rounds up to the last edge would lie one row past the end.
        return self._rows[positions.clamp_(max=n - 1)]


class CellSampler:
    """Draws the same number of rows from every cell, for every net.

    Rates of small cells would otherwise rest on a handful of rows of each batch,
    and their gradients would be mostly noise.

    Args:
        inside: (cells, n) booleans, which row counts in which cell.
        views: the rows (n_i,) that each of the k nets may train on.
        seed: of the draws.
        slots: the nets whose rows are returned; None is all of them.
    """

    def __init__(
        self,
        inside: Tensor,
        views: Sequence[Tensor],
        seed: int,
        slots: range | None = None,
    ) -> None:
        cells = len(inside)
        rows_for_each = _MOST_ROWS_OF_CELLS // max(1, cells)
        self.per_cell = min(CELL_ROWS, max(_LEAST_CELL_ROWS, rows_for_each))
        self.generator = torch.Generator().manual_seed(seed)
        self._nets, local = len(views), slots or range(len(views))
        self._slots = slice(local.start, local.stop)
        members = [cell.nonzero()[:, 0] for cell in inside]
        sizes = torch.tensor([len(member) for member in members], dtype=torch.long)
        # One row more, to look at where a cell has none.
        self._rows = torch.cat([*members, torch.zeros(1, dtype=torch.long)])
        self._rows = self._rows.to(torch.int32)
        self._begins = (sizes.cumsum(0) - sizes)[:, None]
        # A view has nearly all rows of a cell. What is held are the others: of each,
        # how many of the view's come before it. Views that nets share are held once.
        distinct = {id(views[i]): views[i] for i in local}
        skipped = []
        for view in distinct.values():
            seen = torch.zeros(inside.shape[1], dtype=torch.bool)
            seen[view] = True
            for member in members:
                others = (~seen[member]).nonzero()[:, 0]
                skipped.append(others - torch.arange(len(others)))
        lengths = torch.tensor([len(others) for others in skipped], dtype=torch.long)
        at = [list(distinct).index(id(views[i])) for i in local]
        self._list = torch.tensor(at)[:, None, None] * cells
        self._list = self._list + torch.arange(cells)[:, None]
        self._sizes = sizes[:, None] - lengths[self._list]
        self._earlier = (lengths.cumsum(0) - lengths)[self._list]
        ordered = [each + i * _APART for i, each in enumerate(skipped)]
        self._skipped = torch.cat([*ordered, torch.zeros(0, dtype=torch.long)])

    def draw(self) -> Tensor:
        """Returns row numbers (k, cells * per_cell), with replacement."""
        k, cells, _ = self._sizes.shape
        # Numbers are drawn for all nets and then cut: a net gets the same rows
        # however many processes there are.
        draws = torch.rand(self._nets, cells, self.per_cell, generator=self.generator)[
            self._slots
        ]
        # In float32 a draw just below 1, times the size, may round up to the size.
        number = (draws * self._sizes.to(torch.float32)).to(torch.long)
        number = torch.minimum(number, self._sizes - 1)
        # The row of a number among the view's stands behind the others before it.
        found = torch.searchsorted(
            self._skipped, number + self._list * _APART, right=True
        )
        at = self._begins + number + found - self._earlier
        # A cell without a row here is one of soft rates that nobody steers by.
        rows = torch.where(self._sizes > 0, at, len(self._rows) - 1)
        return self._rows[rows].to(torch.long).view(k, -1)
