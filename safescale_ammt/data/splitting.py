"""Which split a row belongs to: decided by its content, not by its position.

Units are ranked by a keyed hash within their stratum (first sensitive column x
label) and cut at the quantiles of the config's fractions. A unit is a row, or an
entity with all of its rows. Equal rows are ranked apart, by their number among
their equals: people may be equal and yet independent, and a split that kept them
together would be a sample of distinct rows, not of rows. Adding rows moves only
those that lie at a cut, and a new order of the file moves none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

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


def equal_codes(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Returns codes (n,) that are equal where row hashes are, by first appearance."""
    codes = arrow_rows(rows).dictionary_encode().indices
    return np.asarray(codes.to_numpy(), dtype=np.int64)


def occurrences(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Numbers equal row hashes from 0, in the order of the rows (n,)."""
    number = np.zeros(len(rows), dtype=np.int64)
    # Most rows have no equal: half a hash tells, sorted without the row it is of.
    half = words(rows)[0]
    ordered = np.sort(half)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        place = np.minimum(np.searchsorted(twice, half), len(twice) - 1)
        tied = np.flatnonzero(twice[place] == half)
        codes = equal_codes(rows[tied])
        order = np.argsort(codes, kind="stable")
        start = np.searchsorted(codes[order], codes[order])
        number[tied[order]] = np.arange(len(tied)) - start
    return number


def words(rows: NDArray[np.void]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Returns both halves of row hashes, uint64 (n,) each."""
    halves = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), 2)
    return np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])


def drawn_keys(
    hashes: NDArray[np.void], purpose: str, number: NDArray[np.int64] | None = None
) -> NDArray[np.uint64]:
    """Returns a keyed 64-bit hash of each unit: its rank in a draw.

    The output of splitmix64 (Steele, Lea & Flood 2014) whose state is the unit's hash:
    of several units with one hash, the k-th takes output k.

    Args:
        hashes: of rows or entities, V16 (n,).
        purpose: of the draw; another one gives another, independent order.
        number: of each unit among its equals (n,); None = all are distinct.
    """
    # Half of the hash is random enough for a rank; the salt gives another order.
    word = words(hashes)[0]
    salt = hashlib.sha256(f"safescale {purpose}".encode()).digest()[:8]
    x = word ^ np.uint64(int.from_bytes(salt, "little"))
    if number is not None:
        x = x + number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), dtype=np.uint64)


def assign_splits(
    keys: NDArray[np.uint64], strata: NDArray[np.int64], fractions: Sequence[float]
) -> NDArray[np.int64]:
    """Cuts every stratum into splits: samples without replacement.

    Args:
        keys: (n,) rank of each unit in the draw.
        strata: (n,) stratum codes.
        fractions: share of each split, summing to 1.

    Returns:
        Split codes (n,).
    """
    sizes = np.bincount(strata)
    at = np.arange(len(keys))
    return ranked_splits(keys, strata, fractions, (np.zeros_like(sizes), sizes), at)


def ranked_splits(
    keys: NDArray[np.uint64],
    strata: NDArray[Any],
    fractions: Sequence[float],
    ranks: tuple[NDArray[np.int64], NDArray[np.int64]],
    at: NDArray[Any],
) -> NDArray[np.int64]:
    """Cuts a part of every stratum into splits, a stretch of its ranks.

    Args:
        keys: (n,) rank of each unit in the draw.
        strata: (n,) stratum codes.
        fractions: share of each split, summing to 1.
        ranks: of each stratum the units before these, and all of its units.
        at: (n,) position of each unit, by which those of one key are ranked.

    Returns:
        Split codes (n,).
    """
    order = np.argsort(keys)
    # Small codes are sorted by radix, and those of one stratum keep their order.
    order = order[np.argsort(strata[order], kind="stable")]
    stratum, key = strata[order], keys[order]
    if ((key[1:] == key[:-1]) & (stratum[1:] == stratum[:-1])).any():
        order = np.lexsort((at, keys, strata))
    before, size = ranks
    counts = np.bincount(stratum, minlength=len(size))
    rank = np.arange(len(keys)) + (before - (np.cumsum(counts) - counts))[stratum]
    # A unit is a point within its width, drawn by its key's low bits: by its start, a
    # stratum of few units would fill the first splits alone.
    phase = (keys[order] & np.uint64(0xFFFFFFFF)).astype(np.float64) / 2.0**32
    quantile = (rank + phase) / size[stratum]
    # Without the last sum, which is 1 up to rounding: nothing lies beyond the last cut.
    cuts = np.cumsum(fractions)[:-1]
    splits = np.empty(len(keys), dtype=np.int64)
    splits[order] = np.searchsorted(cuts, quantile, side="right")
    return splits


def draw_splits(
    rows: NDArray[np.void],
    strata: NDArray[np.int64],
    fractions: Sequence[float],
    seed: int,
    entity: Column | None = None,
) -> NDArray[np.int64]:
    """Draws the split of every row, or of every entity with all of its rows.

    Args:
        rows: row hashes, V16 (n,).
        strata: (n,) stratum codes.
        fractions: share of each split, summing to 1: of rows, or of entities.
        seed: of the draw.
        entity: of each row, without values that no row has; None = rows are drawn.

    Returns:
        Split codes (n,).
    """
    purpose = f"split {seed}"
    if entity is None:
        keys = drawn_keys(rows, purpose, occurrences(rows))
        return assign_splits(keys, strata, fractions)
    # An entity is one unit, whatever the number of its rows: large and small ones have
    # the same chance, so that those that are drawn are a sample of all.
    codes = entity.codes.astype(np.int64)
    keys = drawn_keys(entity_hashes(entity), purpose)
    return assign_splits(keys, entity_strata(codes, strata), fractions)[codes]


def one_of_each(entity: NDArray[np.int64], rows: NDArray[np.void]) -> NDArray[np.bool_]:
    """Draws one row of every entity, whatever splits it: a mask (n,).

    The draw has no seed, so that nobody who runs anything chooses it.

    Args:
        entity: code (n,) of each row's entity, of which all rows are given.
        rows: row hashes, V16 (n,).
    """
    keys = drawn_keys(rows, "row of an entity", occurrences(rows))
    order = np.lexsort((keys, entity))
    first = np.ones(len(rows), dtype=np.bool_)
    first[1:] = entity[order][1:] != entity[order][:-1]
    drawn = np.zeros(len(rows), dtype=np.bool_)
    drawn[order[first]] = True
    return drawn


def entity_strata(
    entity: NDArray[np.int64], strata: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns the least stratum among the rows of each entity, by its code."""
    least = np.full(int(entity.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, entity, strata)
    return least


def entity_hashes(entity: Column) -> NDArray[np.void]:
    """Returns the hash of each entity, V16, by its code."""
    distinct = [
        hashlib.sha256(text.encode()).digest()[:16]
        for text in entity.values.to_pylist()
    ]
    return np.frombuffer(b"".join(distinct), dtype=ROW)


def contained(rows: NDArray[np.void], others: NDArray[np.void]) -> NDArray[np.bool_]:
    """Says which row hashes (n,) are among others (m,)."""
    # Arrow looks them up in a hash table; numpy would sort both sides.
    inside = pc.is_in(arrow_rows(rows), value_set=arrow_rows(others))
    return np.asarray(inside, dtype=bool)


def arrow_rows(rows: NDArray[np.void]) -> pa.FixedSizeBinaryArray:
    """Returns row hashes as an Arrow array of 16-byte binaries, without a copy."""
    buffer = pa.py_buffer(np.ascontiguousarray(rows))
    return pa.Array.from_buffers(pa.binary(16), len(rows), [None, buffer])
