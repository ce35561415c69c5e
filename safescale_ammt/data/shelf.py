"""Arrays for later: in memory while they are few, then in one file without a name.

What was kept is read again by `pread`: pages that are mapped would count as memory.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.files.disk import local_disk
from safescale_ammt.reading.columns import Column

MEMORY = 1 << 28
"""Bytes that are held before arrays go to the file."""


class Shelf:
    """Keeps arrays.

    Attributes:
        folder: private folder for what does not fit in memory; None = all does.
    """

    def __init__(self, folder: Path | None = None, memory: int = MEMORY) -> None:
        self.folder, self._left = folder, memory
        self._file: IO[bytes] | None = None
        self._end = 0

    def keep(self, array: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        """Keeps an array; what is returned gives it back, not to be changed.

        Raises:
            StorageError: the disk is full.
        """
        if self.folder is None or array.nbytes <= self._left:
            self._left -= array.nbytes
            return lambda: array
        return partial(self.read, self.write(array), array.dtype, array.shape)

    def write(self, array: NDArray[Any]) -> int:
        """Appends an array to the file; returns where it begins."""
        with local_disk(f"writing rows aside to {self.folder}"):
            if self._file is None:
                # Without a name: whatever becomes of this process, it goes with it.
                self._file = TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115
                weakref.finalize(self, self._file.close)
            start = self._end
            left = memoryview(
                np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            )
            while left:
                done = os.pwrite(self._file.fileno(), left, self._end)
                self._end, left = self._end + done, left[done:]
        return start

    def read(
        self, start: int, kind: np.dtype[Any], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Reads an array that begins somewhere in the file."""
        assert self._file is not None
        found = np.empty(shape, kind)
        left, at = memoryview(found.reshape(-1).view(np.uint8).data), start
        with local_disk(f"reading rows laid aside in {self.folder}"):
            while left:
                done = os.preadv(self._file.fileno(), [left], at)
                at, left = at + done, left[done:]
        return found

    def keep_texts(self, texts: pa.StringArray) -> Callable[[], pa.StringArray]:
        """Keeps an array of texts without a null."""
        if self.folder is None or texts.nbytes <= self._left:
            self._left -= texts.nbytes
            return lambda: texts
        # A slice has its own first offset; a copy of it begins at 0. What loads it must
        # not name it, or the texts stay in memory.
        whole = pa.concat_arrays([texts.slice(0, 0), texts])
        size, (_, ends, data) = len(whole), whole.buffers()
        first, second = (
            self.keep(np.frombuffer(part or b"", np.uint8)) for part in (ends, data)
        )

        def load() -> pa.StringArray:
            buffers = pa.py_buffer(first()), pa.py_buffer(second())
            return pa.StringArray.from_buffers(size, *buffers)

        return load


class KeptColumns(Mapping[str, Column]):
    """Columns by name that are made when they are first asked for, and kept.

    Attributes:
        make: makes a column by its name.
        shelf: where they are kept; None = they are made whenever they are asked for.
    """

    def __init__(
        self,
        names: Iterable[str],
        make: Callable[[str], Column],
        shelf: Shelf | None = None,
    ) -> None:
        self.make, self.shelf = make, shelf
        self._kept: dict[str, Callable[[], Column] | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Column:
        """Returns a column."""
        if load := self._kept[name]:
            return load()
        column = self.make(name)
        if self.shelf:
            codes = self.shelf.keep(column.codes)
            texts = self.shelf.keep_texts(column.values)
            if column.weights is None:
                self._kept[name] = lambda: Column(codes(), texts())
            else:
                weights = self.shelf.keep(column.weights)
                self._kept[name] = lambda: Column(codes(), texts(), weights())
        return column

    def __contains__(self, name: object) -> bool:
        """Says whether there is such a column, without making it."""
        return name in self._kept

    def __iter__(self) -> Iterator[str]:
        """Yields the names."""
        return iter(self._kept)

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self._kept)
