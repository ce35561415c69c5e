"""A dataset as the tensors that training reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from safescale_ammt.data.encoding import Block, blocks, encode, width
from safescale_ammt.training.pairs import Pairs

if TYPE_CHECKING:
    from safescale_ammt.data.counts import Counts
    from safescale_ammt.data.dataset import Dataset
    from safescale_ammt.data.encoding import Numeric
    from safescale_ammt.data.schema import Schema


@dataclass(frozen=True)
class EncodedRows:
    """Encoded rows.

    Attributes:
        x: model inputs (n, d) float32.
        y: class codes (n,) int64.
        groups: group name -> codes (n,) int64.
        entity: number (n,) int64 of each row's entity, from 0; None if there are none.
        blocks: how a row of x is made; empty if nobody knows.
    """

    x: Tensor
    y: Tensor
    groups: Mapping[str, Tensor]
    entity: Tensor | None = None
    blocks: tuple[Block, ...] = ()

    def __len__(self) -> int:
        return len(self.y)

    def where(self, index: Tensor) -> EncodedRows:
        """Returns the rows of a mask or of row numbers."""
        groups = {name: codes[index] for name, codes in self.groups.items()}
        entity = None if self.entity is None else self.entity[index]
        return EncodedRows(self.x[index], self.y[index], groups, entity, self.blocks)

    def batch(self, index: Tensor) -> Tensor:
        """Returns the inputs (..., d) of rows by their numbers (...)."""
        # On a processor this is more than twice as fast as indexing with `index`.
        return self.x.index_select(0, index.flatten()).view(*index.shape, -1)

    @cached_property
    def pairs(self) -> Pairs | None:
        """All rows as pairs; None where the dense product is no slower."""
        return Pairs.of(self.x, self.blocks)


class EncodedDataset:
    """A dataset, encoded split by split and encoding by encoding, once each."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.schema: Schema = dataset.schema
        self.counts: Counts = dataset.counts
        self._encoded: dict[tuple[str, str], EncodedRows] = {}

    @property
    def n_out(self) -> int:
        """Logits of a network: 1 for a binary label, else one per class."""
        # One logit and a sigmoid say what two and a softmax do, with half the weights.
        classes = len(self.schema.classes)
        return 1 if classes == 2 else classes

    @property
    def outcomes(self) -> tuple[int, ...]:
        """Classes whose rates are compared: the positive one, else all."""
        if self.schema.positive:
            return (self.schema.classes.index(self.schema.positive),)
        return tuple(range(len(self.schema.classes)))

    def d_in(self, encoding: str) -> int:
        """Width of an encoded row."""
        return width(self.schema, cast("Numeric", encoding))

    def rows(self, split: str, encoding: str) -> EncodedRows:
        """Returns one split's rows, encoded."""
        # The search asks for the same splits in every trial.
        key = (split, encoding)
        if key not in self._encoded:
            raw = self.dataset.splits[split]
            groups = {
                name: torch.from_numpy(codes.astype(np.int64))
                for name, codes in raw.groups.items()
            }
            x = encode(self.schema, raw.features, cast("Numeric", encoding))
            label = raw.label.astype(np.int64)
            entity = None if raw.entity is None else torch.tensor(raw.entity)
            known = blocks(self.schema, cast("Numeric", encoding))
            self._encoded[key] = EncodedRows(
                torch.from_numpy(x), torch.from_numpy(label), groups, entity, known
            )
        return self._encoded[key]

    def joined(self, splits: tuple[str, ...], encoding: str) -> EncodedRows:
        """Returns the rows of several splits, one after the other."""
        # In the order of `splits`: row numbers of a plan depend on it.
        parts = [self.rows(split, encoding) for split in splits]
        groups = {
            name: torch.cat([p.groups[name] for p in parts])
            for name in self.schema.groups
        }
        x, y = torch.cat([p.x for p in parts]), torch.cat([p.y for p in parts])
        # An entity is in one split: numbers run on from one to the next.
        numbers, first = [], 0
        for part in parts:
            if part.entity is not None:
                numbers.append(part.entity + first)
                first = int(numbers[-1].max()) + 1
        entity = torch.cat(numbers) if numbers else None
        return EncodedRows(x, y, groups, entity, parts[0].blocks)
