"""Sets of 16-byte hashes in a store, each kept once under the digest of its contents.

The ledger says by them which people a use was about. They hold hashes, never rows.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Iterator, Sequence
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

SMALL = 1 << 18
"""Hashes of a set that is kept in memory, and of a part of a larger one."""
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
    data: NDArray[Any] | bytes
    if isinstance(hashes, np.ndarray):
        width = hashes.dtype.itemsize * (hashes.shape[1] if hashes.ndim == 2 else 1)
        widths, data = {width}, np.ascontiguousarray(hashes)
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


def shared(
    one: Iterator[NDArray[np.bytes_]], other: Iterator[NDArray[np.bytes_]]
) -> int:
    """Counts the hashes in common of two sets that come by sorted parts."""
    none = np.empty(0, _HASH)
    a, b, count = next(one, none), next(other, none), 0
    while len(a) and len(b):
        # The part that ends first is compared as a whole, so that one goes each time.
        if b[-1] < a[-1]:
            a, b, one, other = b, a, other, one
        low, end = np.searchsorted(b, a), np.searchsorted(b, a[-1], "right")
        # A hash beyond the last would get the index n, hence the clip.
        count += int(np.count_nonzero(b[low.clip(max=len(b) - 1)] == a))
        a, b = next(one, none), b[end:]
        b = b if len(b) else next(other, none)
    return count


class KeySets:
    """The sets below some prefixes of a store.

    Args:
        store: where they lie.
        prefixes: folders that are searched in order; the first one is written to.
    """

    def __init__(self, store: Store, prefixes: Sequence[str]) -> None:
        self._store = store
        self._prefixes = prefixes
        # A decision may be taken many times in a race; each set is downloaded once,
        # or, where it is large, once for each other one that it is compared with.
        self._small: dict[str, NDArray[np.bytes_]] = {}
        self._sizes: dict[str, int] = {}
        self._common: dict[frozenset[str], int] = {}
        self._parts = {"": Parts(0, 0, 0.0, ())}

    def put(self, hashes: Hashes, what: str) -> str:
        """Stores a set and returns its digest; the errors of `hash_set`."""
        # As the evidence of a verdict does: the gate compares the two digests.
        data = hash_set(hashes, what)
        digest = digest_bytes(data.view(np.uint8).data)
        key = self._key(self._prefixes[0], digest)
        if not self._store.exists(key):
            self._store.put(key, data.tobytes())
        self._sizes[digest] = len(data)
        if len(data) <= SMALL:
            self._small[digest] = data
        return digest

    def size(self, digest: str) -> int:
        """Counts the hashes of a set; the errors of `streamed`."""
        if digest not in self._sizes:
            self._sizes[digest] = sum(map(len, self.streamed(digest)))
        return self._sizes[digest]

    def streamed(self, digest: str) -> Iterator[NDArray[np.bytes_]]:
        """Yields a set by sorted parts, none of them empty.

        Raises:
            IntegrityError: it is missing, or changed, which is known at its end.
        """
        if digest in self._small:
            yield self._small[digest]
            return
        key, sha, rows = self._stored(digest), hashlib.sha256(), 0
        with self._store.open(key) as stream:
            while data := stream.read(SMALL * ROW_BYTES):
                sha.update(data)
                # Half a hash is none: of such a set the digest is another one.
                if whole := len(data) // ROW_BYTES:
                    yield (part := np.frombuffer(data, _HASH, whole))
                    rows += whole
        self._check(key, digest, f"sha256:{sha.hexdigest()}")
        self._sizes[digest] = rows
        if rows and rows == len(part):
            self._small[digest] = part

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
        pair = frozenset((one, other))
        if pair not in self._common:
            sides = (self.streamed(one), self.streamed(other))
            self._common[pair] = shared(*sides)
            # To the end, where a change shows.
            for side in sides:
                deque(side, 0)
        return self._common[pair]

    def check_unnamed(self, named: Collection[str]) -> None:
        """Checks the sets that no use names: one that was killed leaves a whole one.

        Args:
            named: digests of those that uses name.

        Raises:
            IntegrityError: something lies under another name than its digest.
        """
        for prefix in self._prefixes:
            for info in self._store.list(folder := f"{prefix}/rows/"):
                digest = f"sha256:{info.key.removeprefix(folder)}"
                if digest not in named:
                    self._check(info.key, digest, self._store.digest(info.key))

    def _read(self, digest: str) -> bytes:
        key = self._stored(digest)
        data = self._store.get(key)
        self._check(key, digest, digest_bytes(data))
        return data

    def _stored(self, digest: str) -> str:
        """Returns the key of a stored set.

        Raises:
            IntegrityError: it is missing.
        """
        keys = [self._key(prefix, digest) for prefix in self._prefixes]
        key = next(filter(self._store.exists, keys), "")
        # Counting on without the set would give its rows a first use again.
        if not key:
            raise IntegrityError(
                f"{self._store.uri}/{keys[0]} is missing; restore it from a backup."
            )
        return key

    def _check(self, key: str, digest: str, actual: str) -> None:
        if actual != digest:
            raise IntegrityError(
                f"{self._store.uri}/{key} was changed: the ledger recorded {digest}, "
                f"found {actual}."
            )

    @staticmethod
    def _key(prefix: str, digest: str) -> str:
        return f"{prefix}/rows/{digest.removeprefix('sha256:')}"
