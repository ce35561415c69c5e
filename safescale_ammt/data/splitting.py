"""Which split a row belongs to: decided by what it says, not by where it stands.

Rows are ranked by a keyed hash within their stratum (first sensitive column x
label) and cut at the quantiles of the wanted fractions. Equal rows share a rank,
so they share a split; rows of one entity too. Adding rows moves only those that
lie at a cut, and a new order of the file moves none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.data.columns import Column

ROW = np.dtype("V16")
"""A raw-row hash: the first 16 bytes of sha256 over the canonical raw row."""
_SEPARATOR = "\x1f"
_BLOCK = 1 << 16


def row_hashes(columns: Mapping[str, Column]) -> NDArray[np.void]:
    """Hashes every raw row.

    The canonical row joins all source fields, stripped, in source column order
    with the unit separator U+001F; a backslash or separator inside a value is
    escaped, so that no two different rows spell the same text.

    Args:
        columns: all raw columns by name, the label with its merged spellings.

    Returns:
        V16 (n,).
    """
    safe = [_escaped(column) for column in columns.values()]
    blocks = [
        _hash_block([column.values for column in safe], codes)
        for codes in _blocks([column.codes for column in safe])
    ]
    return np.frombuffer(b"".join(blocks), dtype=ROW)


def _escaped(column: Column) -> Column:
    texts = pc.replace_substring(column.values, "\\", "\\\\")
    texts = pc.replace_substring(texts, _SEPARATOR, "\\u001f")
    return Column(column.codes, texts)


def _blocks(codes: Sequence[NDArray[np.int32]]) -> list[list[NDArray[np.int32]]]:
    """Cuts codes into blocks, so that no whole table of texts is ever in memory."""
    starts = range(0, len(codes[0]), _BLOCK)
    return [[c[start : start + _BLOCK] for c in codes] for start in starts]


def _hash_block(
    values: Sequence[pa.StringArray], codes: Sequence[NDArray[np.int32]]
) -> bytes:
    texts = [v.take(pa.array(c)) for v, c in zip(values, codes, strict=True)]
    joined = pc.binary_join_element_wise(*texts, _SEPARATOR)
    sha = hashlib.sha256
    rows = joined.cast(pa.binary()).to_pylist()
    return b"".join([sha(row).digest()[:16] for row in rows])


def row_hex(rows: NDArray[np.void]) -> list[str]:
    """Returns the hex spelling of row hashes."""
    return [row.tobytes().hex() for row in rows]


def seeded_keys(rows: NDArray[np.void], seed: int) -> NDArray[np.uint64]:
    """Returns a keyed 64-bit hash of each row hash: its place in the draw.

    The finaliser of splitmix64 (Steele, Lea & Flood 2014), vectorised.
    """
    word = rows.view(np.uint64).reshape(len(rows), 2)[:, 0]
    salt = hashlib.sha256(f"safescale split {seed}".encode()).digest()[:8]
    x = word ^ np.uint64(int.from_bytes(salt, "little"))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), dtype=np.uint64)


def assign_splits(
    keys: NDArray[np.uint64], strata: NDArray[np.int64], fractions: Sequence[float]
) -> NDArray[np.int64]:
    """Cuts every stratum into splits.

    Args:
        keys: (n,) place in the draw; equal keys land in one split.
        strata: (n,) stratum codes; rows with equal keys are in one stratum.
        fractions: wanted share of each split, summing to 1.

    Returns:
        Split codes (n,).
    """
    order = np.lexsort((keys, strata))
    ordered, stratum = keys[order], strata[order]
    start = np.searchsorted(stratum, stratum, side="left")
    size = np.searchsorted(stratum, stratum, side="right") - start
    fresh = np.ones(len(keys), dtype=bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]) | (stratum[1:] != stratum[:-1])
    block = np.cumsum(fresh) - 1
    first = np.flatnonzero(fresh)[block]
    # A block of equal keys lies at a place of its own width that its key's low bits
    # draw; at its start, a stratum of few blocks would always fill the first splits.
    phase = (ordered & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2.0**32
    place = (first - start + phase * np.bincount(block)[block]) / size
    cuts = np.cumsum(fractions)[:-1]
    splits = np.empty(len(keys), dtype=np.int64)
    splits[order] = np.searchsorted(cuts, place, side="right")
    return splits


def entity_strata(
    entity: NDArray[np.int64], strata: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Gives all rows of an entity the least of their strata."""
    least = np.full(int(entity.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, entity, strata)
    return np.asarray(least[entity], dtype=np.int64)


def entity_hashes(entity: Column) -> NDArray[np.void]:
    """Returns the hash of each row's entity, V16 (n,)."""
    distinct = [
        hashlib.sha256(text.encode()).digest()[:16]
        for text in entity.values.to_pylist()
    ]
    return np.frombuffer(b"".join(distinct), dtype=ROW)[entity.codes]


def contained(rows: NDArray[np.void], others: NDArray[np.void]) -> NDArray[np.bool_]:
    """Says which row hashes (n,) are among others (m,)."""
    found = pc.is_in(arrow_rows(rows), value_set=arrow_rows(others))
    return np.asarray(found, dtype=bool)


def arrow_rows(rows: NDArray[np.void]) -> pa.FixedSizeBinaryArray:
    """Returns row hashes as an Arrow array of 16-byte binaries, without a copy."""
    buffer = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.Array.from_buffers(pa.binary(16), len(rows), [None, buffer])
