"""Pairs: rows as few pairs of a column and a weight, for the product with a matrix.

Most inputs of a row are 0, or the ones below a piece of a piecewise-linear number.
With the rows of a number's pieces summed from the first one on, x W is a sum of few
rows of a table T: of a number those at both ends of its piece, with weights 1 - f and
f, of a level one.

    x W = sum_j weight_j T[column_j],   T[t] = W[first piece] + ... + W[t]

The bias is T's last row, which every row of data has with weight 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f

from safescale_ammt.data.coding import Codes, Coding

_DENSER = 3
"""Inputs of the dense product that take as long as one pair, at least."""
_RADIX = 1 << 16
"""Keys below this are sorted by their digits, in linear time."""


class Ladders(NamedTuple):
    """The blocks of pieces, side by side; shorter ones are padded at their end.

    Attributes:
        columns: each piece's column (longest * numbers,), piece by piece.
        inside: 1 where there is a piece, else 0 (longest, numbers, 1).
        sums: lower triangle of ones (longest, longest).
        places: of the pieces among `columns`, without the padding.
    """

    columns: Tensor
    inside: Tensor
    sums: Tensor
    places: Tensor

    @classmethod
    def of(cls, pieces: Sequence[range]) -> Ladders:
        """Returns the ladders of these runs of columns."""
        longest = max(map(len, pieces), default=0)
        columns = torch.zeros(longest, len(pieces), dtype=torch.long)
        inside = torch.zeros(longest, len(pieces), 1)
        for i, piece in enumerate(pieces):
            columns[: len(piece), i] = torch.tensor(piece)
            inside[: len(piece), i] = 1
        places = inside.flatten().nonzero()[:, 0]
        return cls(
            columns.flatten(), inside, torch.ones(longest, longest).tril(), places
        )

    def sum_(self, tables: Tensor, *, back: bool = False) -> Tensor:
        """Sums the rows of each ladder in place, up to each piece, or from it on.

        Args:
            tables: (k, d + 1, w).
            back: from each piece to the last, which takes a gradient the other way.
        """
        if len(self.columns):
            rows = tables.index_select(1, self.columns)
            rows = rows.view(len(tables), *self.inside.shape[:2], -1) * self.inside
            sums = (self.sums.T if back else self.sums).expand(len(tables), -1, -1)
            rows = torch.bmm(sums, rows.flatten(2)).view(rows.shape).flatten(1, 2)
            rows = rows.index_select(1, self.places)
            tables.index_copy_(1, self.columns[self.places], rows)
        return tables


@dataclass(frozen=True)
class Pairs:
    """Rows of m pairs each.

    Attributes:
        column: rows of T (n, m) int32, the bias' last.
        weight: (n, m) float32.
        width: inputs of a row; T has one row more.
        ladders: the blocks within which T sums.
    """

    column: Tensor
    weight: Tensor
    width: int
    ladders: Ladders

    @classmethod
    def of(cls, coding: Coding, codes: Codes) -> Pairs | None:
        """Returns rows as pairs, or None where the dense product is no slower.

        Args:
            coding: what the codes stand for.
            codes: of the rows.
        """
        if (coding.paired + 1) * _DENSER > coding.width:
            return None
        column, weight = coding.pairs(codes)
        return cls(
            f.pad(torch.from_numpy(column), (0, 1), value=coding.width),
            f.pad(torch.from_numpy(weight), (0, 1), value=1),
            coding.width,
            Ladders.of(coding.ladders),
        )

    def select(self, index: Tensor) -> Pairs:
        """Returns the rows of some numbers (m,)."""
        column = self.column.index_select(0, index)
        weight = self.weight.index_select(0, index)
        return Pairs(column, weight, self.width, self.ladders)

    def tables(self, theta: Tensor, width: int) -> Tensor:
        """Returns the first layers of nets (k, P) as views (k, d + 1, width)."""
        # The bias follows the matrix in a net of one head.
        return theta[:, : (self.width + 1) * width].view(len(theta), -1, width)

    def split(self, rows: int) -> list[Pairs]:
        """Returns runs of so many rows."""
        column, weight = (torch.split(t, rows) for t in (self.column, self.weight))
        return [
            Pairs(*part, self.width, self.ladders)
            for part in zip(column, weight, strict=True)
        ]

    def product(self, table: Tensor) -> Tensor:
        """Returns the sums of the rows of a table (d + 1, w): (n, w)."""
        n, m = self.column.shape
        starts = torch.arange(0, n * m, m, dtype=torch.int32)
        return _sums(table, self.column.view(-1), starts, self.weight.view(-1))

    def back(self, slope: Tensor) -> Tensor:
        """Returns a table's gradient (d + 1, w) from its product's (n, w)."""
        # The transposed product is one of pairs too, once they lie column by column.
        keys = self.column.numpy().ravel()
        if self.width < _RADIX:
            keys = keys.astype(np.uint16)
        order = np.argsort(keys, kind="stable")
        ends = np.bincount(keys, minlength=self.width + 1).cumsum()
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int32)
        rows = (order // self.column.shape[1]).astype(np.int32)
        weight = self.weight.view(-1).index_select(0, torch.from_numpy(order))
        begins = torch.from_numpy(starts)
        return _sums(slope, torch.from_numpy(rows), begins, weight)


def _sums(table: Tensor, rows: Tensor, starts: Tensor, weight: Tensor) -> Tensor:
    """Returns weighted sums of runs of a table's rows, which begin at `starts`."""
    # What `functional.embedding_bag` calls, which takes as long again to get there.
    found: Tensor = torch.embedding_bag(
        table, rows, starts, False, 0, False, weight, False
    )[0]
    return found
