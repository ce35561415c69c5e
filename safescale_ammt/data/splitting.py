"""Which split a row belongs to: decided by its content, not by its position.

Rows are ranked by a keyed hash within their stratum (first sensitive column x
label) and cut at the quantiles of the config's fractions. Equal rows share a rank,
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

from safescale_ammt.reading.cells import Cells, row_sums
from safescale_ammt.reading.columns import Column

ROW = np.dtype("V16")
"""A raw-row hash: two 64-bit sums over the cells of the canonical raw row."""


def row_hashes(cells: Mapping[str, Cells]) -> NDArray[np.void]:
    """Hashes every raw row: the sum of its cells' words.

    A cell's words are of its canonical text and its column's name, so that neither
    the order of the columns nor the way in which a file is written makes a row new,
    whatever table it stands in.

    Args:
        cells: of all raw columns by name.

    Returns:
        V16 (n,).
    """
    named = [(c.named(name), c.codes) for name, c in cells.items()]
    return np.ascontiguousarray(row_sums(named)).view(ROW)[:, 0]


def row_hex(rows: NDArray[np.void]) -> list[str]:
    """Returns the hex spelling of row hashes."""
    return [row.tobytes().hex() for row in rows]


def seeded_keys(rows: NDArray[np.void], seed: int) -> NDArray[np.uint64]:
    """Returns a keyed 64-bit hash of each row hash: its rank in the draw.

    The finaliser of splitmix64 (Steele, Lea & Flood 2014), vectorised.
    """
    # Half of the hash is random enough for a rank; the seed gives another order.
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
        keys: (n,) rank in the draw; equal keys land in one split.
        strata: (n,) stratum codes; rows with equal keys are in one stratum.
        fractions: share of each split, summing to 1.

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
    # A block of equal keys counts as one point within its width, drawn by its key's
    # low bits; by its start, a stratum of few blocks would fill the first splits alone.
    phase = (ordered & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2.0**32
    quantile = (first - start + phase * np.bincount(block)[block]) / size
    # Without the last sum, which is 1 up to rounding: nothing lies beyond the last cut.
    cuts = np.cumsum(fractions)[:-1]
    splits = np.empty(len(keys), dtype=np.int64)
    splits[order] = np.searchsorted(cuts, quantile, side="right")
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
    # Arrow looks them up in a hash table; numpy would sort both sides.
    inside = pc.is_in(arrow_rows(rows), value_set=arrow_rows(others))
    return np.asarray(inside, dtype=bool)


def arrow_rows(rows: NDArray[np.void]) -> pa.FixedSizeBinaryArray:
    """Returns row hashes as an Arrow array of 16-byte binaries, without a copy."""
    buffer = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.Array.from_buffers(pa.binary(16), len(rows), [None, buffer])
