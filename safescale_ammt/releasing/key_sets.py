"""Sets of 16-byte hashes in a store, each kept once under the digest of its contents.

The ledger says by them which people a use was about. They hold hashes, never rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.data.row_keys import Parts
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.judging.evidence import ROW_BYTES, distinct_rows
from safescale_ammt.store.base import Store

# Sorts and compares in C. numpy drops the trailing zero bytes of a fixed-width
# string, but two hashes of one width that differ still differ without them.
_HASH = np.dtype(f"S{ROW_BYTES}")

Hashes = NDArray[Any] | Sequence[bytes]
"""(n,) `V16` or `S16`, (n, 16) `uint8`, or a list of bytes of 16 each."""


def hash_set(hashes: Hashes, what: str = "hashes") -> NDArray[np.bytes_]:
    """Returns hashes as a set: sorted, each once, shape (m,).

    Args:
        hashes: order and repetition do not matter.
        what: their name, for a sentence.

    Raises:
        InputError: none were given, or they are of another width.
    """
    if isinstance(hashes, np.ndarray):
        width = hashes.dtype.itemsize * (hashes.shape[1] if hashes.ndim == 2 else 1)
        widths, data = {width}, np.ascontiguousarray(hashes).tobytes()
    else:
        widths, data = set(map(len, hashes)), b"".join(hashes)
    if len(hashes) == 0:
        raise InputError(f"no {what} were given, so there is no use to reserve.")
    if widths != {ROW_BYTES}:
        raise InputError(
            f"hashes of {what} of {sorted(widths)} bytes were given, expected "
            f"{ROW_BYTES}."
        )
    return distinct_rows(data)


class KeySets:
    """The sets below some prefixes of a store.

    Args:
        store: where they lie.
        prefixes: folders that are searched in order; the first one is written to.
    """

    def __init__(self, store: Store, prefixes: Sequence[str]) -> None:
        self._store = store
        self._prefixes = prefixes
        # A decision may be taken many times in a race; each set is downloaded once.
        self._sets: dict[str, NDArray[np.bytes_]] = {}
        self._parts = {"": Parts(0, 0, 0.0, ())}

    def put(self, hashes: Hashes, what: str) -> str:
        """Stores a set and returns its digest; the errors of `hash_set`."""
        # As the evidence of a verdict does: the gate compares the two digests.
        data = hash_set(hashes, what)
        digest = digest_bytes(data.tobytes())
        self._sets[digest] = data
        key = self._key(self._prefixes[0], digest)
        if not self._store.exists(key):
            self._store.put(key, data.tobytes())
        return digest

    def get(self, digest: str) -> NDArray[np.bytes_]:
        """Reads a set, sorted, shape (n,).

        Raises:
            IntegrityError: it is missing or changed.
        """
        if digest not in self._sets:
            self._sets[digest] = np.frombuffer(self._read(digest), _HASH)
        return self._sets[digest]

    def put_parts(self, parts: Parts) -> str:
        """Stores keys of parts of rows and returns their digest."""
        data = parts.to_bytes()
        digest = digest_bytes(data)
        self._parts[digest] = parts
        self._store.put(self._key(self._prefixes[0], digest), data)
        return digest

    def parts(self, digest: str) -> Parts:
        """Reads keys of parts of rows; "" has none.

        Raises:
            IntegrityError: they are missing or changed.
        """
        if digest not in self._parts:
            self._parts[digest] = Parts.from_bytes(self._read(digest), digest)
        return self._parts[digest]

    def common(self, one: str, other: str) -> int:
        """Counts the hashes that two sets share."""
        small, large = sorted((self.get(one), self.get(other)), key=len)
        # Binary search of the smaller set: m log n steps, and no union is built.
        # A hash beyond the last would get the index n, hence the clip.
        index = np.searchsorted(large, small).clip(max=len(large) - 1)
        return int(np.count_nonzero(large[index] == small))

    def _read(self, digest: str) -> bytes:
        keys = [self._key(prefix, digest) for prefix in self._prefixes]
        key = next(filter(self._store.exists, keys), "")
        # Counting on without the set would give its rows a first use again.
        if not key:
            raise IntegrityError(
                f"{self._store.uri}/{keys[0]} is missing; restore it from a backup."
            )
        data = self._store.get(key)
        actual = digest_bytes(data)
        if actual != digest:
            raise IntegrityError(
                f"{self._store.uri}/{key} was changed: the ledger recorded {digest}, "
                f"found {actual}."
            )
        return data

    @staticmethod
    def _key(prefix: str, digest: str) -> str:
        return f"{prefix}/rows/{digest.removeprefix('sha256:')}"
