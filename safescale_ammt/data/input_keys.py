"""Keys of rows that are equal where rows agree in some columns, of 64 bits each.

Two of a hundred million different rows have one key with a chance of .0003: for counts
that people read that is no error, and no row is judged or placed by them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.associations import value_words
from safescale_ammt.data.coded_rows import CodedRows
from safescale_ammt.data.shelf import Shelf
from safescale_ammt.reading.cells import Words

Keys = Callable[[int], Words]
"""Gives the keys (n,) of the rows of a batch."""


@dataclass(frozen=True)
class InputKeys:
    """Keys of all rows by some columns.

    Attributes:
        coded: the rows.
        words: by column, give the words of its entries.
    """

    coded: CodedRows
    words: Mapping[str, Callable[[], Words]]

    @classmethod
    def of(
        cls,
        coded: CodedRows,
        columns: Mapping[str, Callable[[], NDArray[Any]]],
        shelf: Shelf,
    ) -> InputKeys:
        """Makes keys by codes or numbers of the entries of columns."""
        words = {
            name: shelf.keep(value_words(values(), name))
            for name, values in columns.items()
        }
        return cls(coded, words)

    def __call__(self, batch: int) -> Words:
        """Returns the keys (n,) of the rows of a batch."""
        part = self.coded.slice(batch)
        total = np.zeros(part.stop - part.start, np.uint64)
        for name, words in self.words.items():
            total += words()[self.coded.codes(name, batch)]
        return total


def joint_words(columns: Sequence[NDArray[Any]]) -> Words:
    """Returns words (n,) that are equal where all columns of codes are."""
    total = np.zeros(len(columns[0]), np.uint64)
    for i, codes in enumerate(columns):
        total += value_words(codes, f"group {i}")
    return total
