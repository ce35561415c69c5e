"""A dataset as training reads it: rows as codes, that become tensors when drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from safescale_ammt.data.coding import Codes, Coding, width
from safescale_ammt.data.dataset import Split
from safescale_ammt.model.predictor import BLOCK, Prediction
from safescale_ammt.training.kept_rows import (
    KEPT_ROWS,
    in_batches,
    kept_rows,
    thinned,
)
from safescale_ammt.training.pairs import Pairs
from safescale_ammt.training.thinning import TRAINING, Limits, Thinning

if TYPE_CHECKING:
    from safescale_ammt.data.counts import Counts
    from safescale_ammt.data.dataset import Dataset
    from safescale_ammt.data.feature_codes import Numeric
    from safescale_ammt.data.schema import Schema
    from safescale_ammt.files.regular import Readable
    from safescale_ammt.model.predictor import Deployable

CHUNK_ROWS = 1 << 15
"""Most rows that are inputs at the same time where all rows are looked at."""
_CHUNK_NUMBERS = 1 << 25
"""Most numbers of these."""
PAIRED_ROWS = 1 << 18
"""Most rows that are kept as pairs, some 200 bytes each; of more, those drawn become
pairs."""


@dataclass(frozen=True)
class CodedInputs:
    """Inputs as codes, and what they stand for."""

    codes: Codes
    coding: Coding


@dataclass(frozen=True)
class EncodedRows:
    """Encoded rows.

    Attributes:
        x: model inputs, coded or as float32 (n, d).
        y: class codes (n,) int64.
        groups: group name -> codes (n,), of any type of whole numbers.
        entity: number (n,) int64 of each row's entity, from 0; None if there are none.
    """

    x: Tensor | CodedInputs
    y: Tensor
    groups: Mapping[str, Tensor]
    entity: Tensor | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def width(self) -> int:
        """Model inputs of a row."""
        return self.x.shape[1] if isinstance(self.x, Tensor) else self.x.coding.width

    def batch(self, index: Tensor) -> Tensor:
        """Returns the inputs (..., width) of rows by their numbers (...)."""
        rows = index.flatten()
        if isinstance(self.x, Tensor):
            # On a processor this is more than twice as fast as indexing with `index`.
            found = self.x.index_select(0, rows)
        else:
            codes = self.x.codes.take(rows.numpy())
            found = torch.from_numpy(self.x.coding.inputs(codes))
        return found.view(*index.shape, -1)

    @cached_property
    def kept_pairs(self) -> Pairs | None:
        """All rows as pairs; None of very many, or where inputs are no slower."""
        if not isinstance(self.x, CodedInputs) or len(self) > PAIRED_ROWS:
            return None
        return Pairs.of(self.x.coding, self.x.codes)

    def pairs(self, index: Tensor) -> Pairs | None:
        """Returns rows by their numbers (m,) as pairs; None if inputs are no slower."""
        if not isinstance(self.x, CodedInputs):
            return None
        if len(self) <= PAIRED_ROWS:
            return self.kept_pairs and self.kept_pairs.select(index)
        return Pairs.of(self.x.coding, self.x.codes.take(index.numpy()))

    def blocks(self, nets: int = 1) -> Iterator[Tensor]:
        """Yields the numbers of all rows, at most `CHUNK_ROWS` at a time.

        Args:
            nets: that compute them at once, each with layers of its own.
        """
        # A multiple of the predictor's blocks: none of its own is cut.
        most = min(CHUNK_ROWS, 2 * CHUNK_ROWS // nets, _CHUNK_NUMBERS // self.width)
        most = max(BLOCK, most // BLOCK * BLOCK)
        yield from torch.split(torch.arange(len(self)), most)

    def answers(self, model: Deployable) -> Prediction:
        """Returns what a model says of all rows."""
        answers = [model.answer(self.batch(index)) for index in self.blocks()]
        return Prediction(
            *(np.concatenate(each) for each in zip(*answers, strict=True))
        )

    def where(self, index: Tensor) -> EncodedRows:
        """Returns the rows of a mask or of row numbers."""
        if index.dtype == torch.bool:
            index = index.nonzero()[:, 0]
        x = self.x
        groups = {name: codes[index] for name, codes in self.groups.items()}
        entity = None if self.entity is None else self.entity[index]
        return EncodedRows(
            x[index]
            if isinstance(x, Tensor)
            else CodedInputs(x.codes.take(index.numpy()), x.coding),
            self.y[index],
            groups,
            entity,
        )

    @classmethod
    def joined(
        cls, parts: Sequence[EncodedRows], *, one_split: bool = False
    ) -> EncodedRows:
        """Returns coded rows one after the other.

        Args:
            parts: of splits, whose entities are others in each, or of one split.
            one_split: whether equal numbers of two parts are one entity.
        """
        inputs = [part.x for part in parts if isinstance(part.x, CodedInputs)]
        codes = Codes.joined([x.codes for x in inputs])
        groups = {
            name: torch.cat([part.groups[name] for part in parts])
            for name in parts[0].groups
        }
        numbers, first = [], 0
        for part in parts:
            if part.entity is not None:
                numbers.append(part.entity + first)
                first += 0 if one_split else int(part.entity.max()) + 1
        entity = torch.cat(numbers) if numbers else None
        if one_split and entity is not None:
            # Without gaps, where rows of only some entities were drawn.
            entity = torch.unique(entity, return_inverse=True)[1]
        x = CodedInputs(codes, inputs[0].coding)
        return cls(x, torch.cat([part.y for part in parts]), groups, entity)

    def part(self, most: int, seed: int = 0) -> EncodedRows:
        """Returns at most so many rows, drawn by the seed, in their order."""
        if len(self) <= most:
            return self
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(self), generator=generator)[:most]
        return self.where(drawn.sort().values)


class EncodedDataset:
    """A dataset, read and coded split by split and encoding by encoding, once each.

    Args:
        dataset: the artifact.
        limits: the most rows that are kept of a split (`thinning`).
    """

    def __init__(self, dataset: Dataset, limits: Limits = TRAINING) -> None:
        self.limits = limits
        self.dataset = dataset
        self.schema: Schema = dataset.schema
        self.counts: Counts = dataset.counts
        self._encoded: dict[tuple[tuple[str, ...], str], EncodedRows] = {}
        self._kept: dict[str, Readable] = {}

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
        return self.joined((split,), encoding)

    def joined(self, splits: tuple[str, ...], encoding: str) -> EncodedRows:
        """Returns the rows of several splits, one after the other.

        Of a large split they are the part that `thinning` draws.
        """
        # The search asks for the same splits in every trial.
        if (splits, encoding) not in self._encoded:
            coding = Coding(self.schema, cast("Numeric", encoding))
            # In the order of `splits`: row numbers of a plan depend on it.
            parts = [
                EncodedRows.joined(
                    [
                        coded(batch, coding, self.schema)
                        for batch in self.batches(split)
                    ],
                    one_split=True,
                )
                for split in splits
            ]
            self._encoded[splits, encoding] = EncodedRows.joined(parts)
            # Arrow keeps what it has freed, and much of it is read only once.
            pa.default_memory_pool().release_unused()
        return self._encoded[splits, encoding]

    def batches(self, split: str) -> Iterator[Split]:
        """Yields a split in batches, of a large one the part that is drawn."""
        rows, most = self.dataset.rows(split), self.limits.of(split)
        if rows <= most and not self.dataset.apart(split):
            yield from self.dataset.batches(split)
            return
        if split not in self._kept:
            batches = self.dataset.batches(split)
            thinning = Thinning(rows, most)
            parts = in_batches(thinned(batches, self.schema, thinning))
            if most > KEPT_ROWS:
                yield from parts
                return
            self._kept[split] = kept_rows(parts, self.schema, self.dataset.beside)
        yield from Split.batches(self._kept[split], self.schema)


def coded(batch: Split, coding: Coding, schema: Schema) -> EncodedRows:
    """Codes the rows of a batch."""
    groups = {}
    for name, values in schema.groups.items():
        small = torch.uint8 if len(values) <= 256 else torch.int32
        groups[name] = torch.from_numpy(batch.groups[name]).to(small)
    entity = None if batch.entity is None else torch.tensor(batch.entity)
    x = CodedInputs(coding.codes(batch.features), coding)
    return EncodedRows(x, torch.from_numpy(batch.label), groups, entity)
