"""Relations of rows on one machine: by buckets of keys, in memory or in files.

Equal keys lie in one bucket and near ranks in few, so that a table of any number of
rows takes the memory of one bucket. Hashes are uniform: their leading bits make
buckets of one size. With one bucket nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.placing import DRAWN, PLACED, Placing, records_of
from safescale_ammt.data.relations import Keyed, Placed, RowFacts, Rule, Times
from safescale_ammt.data.splitting import ROW, words
from safescale_ammt.files.disk import local_disk

BUCKET_ROWS = 1 << 21
"""Rows of a bucket, about."""
_KEYED = np.dtype([("key", "u8"), ("asked", "?")])


class Spill:
    """Records by bucket: arrays while there is one bucket, else a file for each."""

    def __init__(self, folder: Path | None, kind: np.dtype[Any], bits: int) -> None:
        self._kind, self._bits, self._held = kind, bits, list[NDArray[Any]]()
        # Without names: whatever becomes of this process, they go with it.
        number = 1 << bits if folder and bits else 0
        self._files = [TemporaryFile(dir=folder) for _ in range(number)]  # noqa: SIM115

    def add(self, keys: NDArray[np.uint64], records: NDArray[Any]) -> None:
        """Adds records (n,) by the leading bits of their keys (n,)."""
        if not self._files:
            self._held.append(records)
            return
        bucket = (keys >> np.uint64(64 - self._bits)).astype(np.uint8)
        # Sixteen bits at most are sorted by radix, and equal ones keep their order.
        records = records[np.argsort(bucket, kind="stable")]
        ends = np.cumsum(np.bincount(bucket, minlength=len(self._files)))
        for file, start, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
            file.write(records[start:end].data)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Yields the records of each bucket in the order in which they were added."""
        if not self._files:
            whole = np.concatenate([np.zeros(0, self._kind), *self._held])
            self._held = [whole]
            yield whole
        for file in self._files:
            file.seek(0)
            yield np.fromfile(file, self._kind)

    def close(self) -> None:
        """Closes the files."""
        for file in self._files:
            # What could not be written was told already.
            with suppress(OSError):
                file.close()


@dataclass(frozen=True)
class Buckets:
    """Relations of rows; see `data.relations`.

    Attributes:
        rows: of the table, about; they say how many buckets there are.
        folder: private folder for files; None = all in memory.
        bucket_rows: rows of a bucket, about.
    """

    rows: int
    folder: Path | None = None
    bucket_rows: int = BUCKET_ROWS

    @contextmanager
    def spill(self, kind: np.dtype[Any]) -> Iterator[Spill]:
        """Gives room for records; it goes with the context."""
        bits = max(0, (self.rows - 1) // self.bucket_rows).bit_length()
        # Files of at most 256 buckets are open at once.
        bits = min(bits, 8) if self.folder else 0
        if not bits:
            yield Spill(None, kind, 0)
            return
        with local_disk(f"writing rows aside to {self.folder}"):
            spill = Spill(self.folder, kind, bits)
            try:
                yield spill
            finally:
                spill.close()

    def times(self, batches: Iterable[Keyed]) -> Iterator[Times]:
        """Counts the rows of every distinct key, in parts of no order."""
        with self.spill(_KEYED) as spill:
            for keys, asked in batches:
                records = np.empty(len(keys), _KEYED)
                records["key"], records["asked"] = keys, asked
                spill.add(keys, records)
            for records in spill:
                order = np.argsort(records["key"])
                keys, asked = records["key"][order], records["asked"][order]
                first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
                first = first[: len(keys)]
                times = np.diff(np.append(first, len(keys)))
                yield times, np.add.reduceat(asked, first, dtype=np.int64)

    def distinct(self, batches: Iterable[NDArray[np.void]]) -> NDArray[np.void]:
        """Returns the distinct hashes V16 (k,), sorted by their bytes."""
        found = [np.zeros(0, ROW)]
        with self.spill(ROW) as spill:
            for rows in batches:
                spill.add(words(rows)[0].byteswap(), rows)
            for rows in spill:
                high, low = (word.byteswap() for word in words(rows))
                order = np.lexsort((low, high))
                high, low = high[order], low[order]
                new = np.append(True, (high[1:] != high[:-1]) | (low[1:] != low[:-1]))
                found.append(rows[order][new[: len(rows)]])
        return np.concatenate(found)

    def place(self, facts: Callable[[], Iterable[RowFacts]], rule: Rule) -> Placed:
        """Places every row; a development row that is also sealed is removed.

        Args:
            facts: gives the batches of all rows, as often as it is called.
            rule: of the placement.
        """
        with self.spill(PLACED) as placed:
            rows = 0
            for batch in facts():
                records = records_of(batch, rows)
                placed.add(words(records["row"])[0], records)
                rows += len(batch.rows)
            placing = Placing(rule, rows)
            placing.see_sides(placed)
            if not placing.shared:
                with self.spill(DRAWN) as drawn:
                    placing.draw(placed, drawn)
                placing.see_firsts(placed)
            return placing.placement
