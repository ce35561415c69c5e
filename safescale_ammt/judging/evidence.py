"""Evidence: the rows from which every figure of a verdict is derived again.

One Parquet file with a row per judged row: its raw-row hash, label, prediction
and score of the model and of its unconstrained twin, and the value of each
group. No features. The file is personal data (label, group and prediction of a
person): keep it as long as an audit needs it and let few people read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from safescale_ammt.artifacts import digest_bytes
from safescale_ammt.errors import IntegrityError
from safescale_ammt.judging.fairness import Evidence

EVIDENCE = "evidence.parquet"
ROW_BYTES = 16
GROUP = "group:"
_COLUMNS = {
    "row": pa.binary(ROW_BYTES),
    "label": pa.int64(),
    "prediction": pa.int64(),
    "score": pa.float64(),
    "twin_prediction": pa.int64(),
    "twin_score": pa.float64(),
}


def write_evidence(path: Path, evidence: Evidence, rows: np.ndarray) -> None:
    """Writes the evidence table.

    Args:
        path: the Parquet file.
        evidence: labels, predictions, scores and group codes of n rows.
        rows: raw-row hashes, (n,) of 16 bytes each or (n, 16) uint8.
    """
    hashes = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(ROW_BYTES), len(evidence.label), [None, pa.py_buffer(rows.tobytes())]
    )
    columns: dict[str, Any] = {"row": hashes}
    for name in list(_COLUMNS)[1:]:
        columns[name] = pa.array(getattr(evidence, name), type=_COLUMNS[name])
    for name, (values, codes) in evidence.groups.items():
        columns[GROUP + name] = pa.array(np.array(values, dtype=object)[codes])
    pq.write_table(pa.table(columns), path, compression="zstd")


def read_evidence(
    path: Path,
    groups: Mapping[str, tuple[str, ...]],
    *,
    classes: tuple[str, ...],
    positive: str,
) -> tuple[Evidence, np.ndarray]:
    """Reads the evidence table.

    Args:
        path: the Parquet file.
        groups: group name -> its values; a value's position is its code.
        classes: class names by code.
        positive: the positive class, or "".

    Returns:
        The evidence and the raw-row hashes, (n, 16) uint8.

    Raises:
        IntegrityError: no evidence table, a column is missing or of another
            type, or a row's group is none of the stated values.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(
            f"{path} cannot be read as evidence ({type(error).__name__}); a verdict "
            "counts only with its evidence."
        ) from None
    _check_columns(path, table, groups)
    columns = {n: table[n].to_numpy() for n in list(_COLUMNS)[1:]}
    coded = {n: _codes(path, table, n, values) for n, values in groups.items()}
    rows = np.frombuffer(b"".join(table["row"].to_pylist()), np.uint8)
    evidence = Evidence(
        groups=coded,
        classes=len(classes),
        positive=classes.index(positive) if positive else None,
        **columns,
    )
    return evidence, rows.reshape(-1, ROW_BYTES)


def rows_digest(rows: np.ndarray) -> str:
    """Returns the digest of the set of row hashes, as the ledger takes it."""
    flat = np.frombuffer(rows.tobytes(), dtype=f"S{ROW_BYTES}")
    return digest_bytes(np.unique(flat).tobytes())


def _check_columns(
    path: Path, table: pa.Table, groups: Mapping[str, tuple[str, ...]]
) -> None:
    expected = {**_COLUMNS, **{GROUP + name: pa.string() for name in groups}}
    found = dict(zip(table.schema.names, table.schema.types, strict=True))
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise IntegrityError(
                f"Column {name!r} of {path} has type {found.get(name, 'absent')}, "
                f"the verdict's evidence has {expected.get(name, 'no such column')}."
            )
    for name in found:
        if table[name].null_count:
            raise IntegrityError(
                f"Column {name!r} of {path} lacks {table[name].null_count} values; "
                "evidence has one for every row."
            )


def _codes(
    path: Path, table: pa.Table, name: str, values: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray]:
    order = {value: code for code, value in enumerate(values)}
    column = table[GROUP + name].to_pylist()
    strange = sorted(set(column) - set(order))
    if strange:
        raise IntegrityError(
            f"{path} holds {strange[0]!r} in group {name!r}, the verdict states "
            f"{', '.join(values)}."
        )
    return tuple(values), np.array([order[v] for v in column], dtype=np.int64)
