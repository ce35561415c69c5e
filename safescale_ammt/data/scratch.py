"""Arrays for later: in memory while they are few, then in one file of a private folder.

What was kept is read again by `pread`: pages that are mapped would count as memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.files.disk import keep_private, local_disk
from safescale_ammt.reading.columns import Column

MEMORY = 1 << 28
"""Bytes that are held before arrays go to the file."""


class Scratch:
    """Keeps arrays.

    Attributes:
        folder: private folder for what does not fit in memory; None = all does.
    """

    def __init__(self, folder: Path | None = None, memory: int = MEMORY) -> None:
        self.folder, self._left = folder, memory
        self._file, self._end = -1, 0

    def close(self) -> None:
        """Closes the file, if there is one."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def keep(self, array: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        """Keeps an array; what is returned gives it back, not to be changed.

        Raises:
            StorageError: the disk is full.
        """
        if self.folder is None or array.nbytes <= self._left:
            self._left -= array.nbytes
            return lambda: array
        with local_disk(f"writing below {self.folder}"):
            if self._file < 0:
                path = self.folder / "arrays"
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                keep_private(path)
            start, kind, shape = self._end, array.dtype, array.shape
            data = memoryview(np.ascontiguousarray(array).view(np.uint8).reshape(-1))
            while data:
                done = os.pwrite(self._file, data, self._end)
                self._end, data = self._end + done, data[done:]
        size = array.nbytes

        def load() -> NDArray[Any]:
            data = bytearray(size)
            with local_disk(f"reading below {self.folder}"):
                os.preadv(self._file, [data], start)
            return np.frombuffer(data, kind).reshape(shape)

        return load

    def keep_texts(self, texts: pa.StringArray) -> Callable[[], pa.StringArray]:
        """Keeps an array of texts without a null."""
        if self.folder is None or texts.nbytes <= self._left:
            self._left -= texts.nbytes
            return lambda: texts
        # A slice has its own first offset; a copy of it begins at 0.
        whole = pa.concat_arrays([texts.slice(0, 0), texts])
        _, ends, data = whole.buffers()
        first, second = (
            self.keep(np.frombuffer(part or b"", np.uint8)) for part in (ends, data)
        )

        def load() -> pa.StringArray:
            buffers = pa.py_buffer(first()), pa.py_buffer(second())
            return pa.StringArray.from_buffers(len(whole), *buffers)

        return load


class KeptColumns(Mapping[str, Column]):
    """Columns by name that are made when they are first asked for, and kept.

    Attributes:
        make: makes a column by its name.
        scratch: where they are kept; None = they are made whenever they are asked for.
    """

    def __init__(
        self,
        names: Iterable[str],
        make: Callable[[str], Column],
        scratch: Scratch | None = None,
    ) -> None:
        self.make, self.scratch = make, scratch
        self._kept: dict[str, Callable[[], Column] | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Column:
        """Returns a column."""
        if load := self._kept[name]:
            return load()
        column = self.make(name)
        if self.scratch:
            codes = self.scratch.keep(column.codes)
            texts = self.scratch.keep_texts(column.values)
            if column.weights is None:
                self._kept[name] = lambda: Column(codes(), texts())
            else:
                weights = self.scratch.keep(column.weights)
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
