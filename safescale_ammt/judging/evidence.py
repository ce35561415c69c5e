"""Evidence: the rows from which every figure of a verdict is derived again.

One Parquet file with a row per judged row: its raw-row hash, label, prediction
and score of the model and of its unconstrained twin, and the value of each
group. No features. The file is personal data (label, group and prediction of a
person): it lies apart from its verdict (`store.protected`) and, of what is registered,
in the bundle; keep it as long as an audit needs it and let few people read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from safescale_ammt.binomial.cells import Array
from safescale_ammt.errors import InputError, IntegrityError, one_of
from safescale_ammt.files.canonical import digest_bytes, digest_json
from safescale_ammt.files.parquet import parquet_file

IntArray = NDArray[np.int64]
EVIDENCE = "evidence.parquet"
ROW_BYTES = 16
PART_ROWS = 1 << 20
"""Rows of which figures are made at once, and of a row group."""
# Groups are named by the user: the prefix keeps a group `label` apart from the label.
GROUP = "group:"
_COLUMNS = {
    "row": pa.binary(ROW_BYTES),
    "label": pa.int64(),
    "prediction": pa.int64(),
    "score": pa.float64(),
    "twin_prediction": pa.int64(),
    "twin_score": pa.float64(),
}


@dataclass(frozen=True)
class Evidence:
    """Row by row, what a model and its twin predict on judged data.

    Attributes:
        label: true class codes (n,).
        prediction: predicted class codes (n,).
        score: probability of the positive class (n,); without a positive class,
            of the predicted one.
        groups: group name -> (its values, codes (n,) into them).
        twin_prediction: the unconstrained reference's predictions (n,).
        twin_score: its scores (n,).
        classes: number of classes.
        positive: the positive class code, None: maximum over all classes.
    """

    label: IntArray
    prediction: IntArray
    score: Array
    groups: Mapping[str, tuple[tuple[str, ...], IntArray]]
    twin_prediction: IntArray | None = None
    twin_score: Array | None = None
    classes: int = 2
    positive: int | None = 1

    def __post_init__(self) -> None:
        columns = {
            "prediction": self.prediction,
            "score": self.score,
            "twin_prediction": self.twin_prediction,
            "twin_score": self.twin_score,
            **{f"groups[{name!r}]": codes for name, (_, codes) in self.groups.items()},
        }
        for name, column in columns.items():
            if column is not None and len(column) != len(self.label):
                raise InputError(
                    f"Evidence has {len(self.label)} labels, but {name} has "
                    f"{len(column)} rows; every column needs one value per row."
                )
        if len(self.label) == 0:
            raise InputError("Evidence has no rows, nothing can be judged on it.")

    @property
    def judged_classes(self) -> tuple[int, ...]:
        """Codes of the classes that rates are taken of."""
        return judged_classes(self.classes, self.positive)

    def group(self, name: str) -> tuple[tuple[str, ...], IntArray]:
        """Returns the values and codes of a group column.

        Raises:
            InputError: no such group.
        """
        if name not in self.groups:
            raise InputError(
                f"The evidence has no group {name!r}, {one_of(self.groups, name)}."
            )
        return self.groups[name]


def judged_classes(classes: int, positive: int | None) -> tuple[int, ...]:
    """Returns the codes of the classes that rates are taken of."""
    if positive is not None:
        return (positive,)
    # Rates of class 0 mirror those of class 1 and would double the comparisons.
    return (1,) if classes == 2 else tuple(range(classes))


def evidence_file(evidence: Evidence, rows: np.ndarray) -> bytes:
    """Returns the evidence table as a Parquet file; nothing is written to a disk.

    Args:
        evidence: labels, predictions, scores and group codes of n rows.
        rows: raw-row hashes, (n,) of 16 bytes each or (n, 16) uint8.
    """
    # The hashes' bytes are the column's buffer: no row becomes a Python object.
    hashes = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(ROW_BYTES), len(evidence.label), [None, pa.py_buffer(rows.tobytes())]
    )
    columns: dict[str, Any] = {"row": hashes}
    for name in list(_COLUMNS)[1:]:
        columns[name] = pa.array(getattr(evidence, name), type=_COLUMNS[name])
    for name, (values, codes) in evidence.groups.items():
        # Values, not codes: the file is read without the verdict that numbers them.
        columns[GROUP + name] = pa.array(np.array(values, dtype=object)[codes])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue())


def write_evidence(path: Path, evidence: Evidence, rows: np.ndarray) -> None:
    """Writes the evidence table; see `evidence_file`."""
    path.write_bytes(evidence_file(evidence, rows))


def evidence_digest(evidence: Evidence, rows: np.ndarray) -> str:
    """Returns the digest of what the evidence says, row by row.

    Unlike that of the file it stays the same if another version of the library
    writes the file: the ledger binds a use by it.
    """
    parts: dict[str, Any] = {"row": digest_bytes(rows.tobytes())}
    for name, kind in list(_COLUMNS.items())[1:]:
        column = np.asarray(getattr(evidence, name), kind.to_pandas_dtype())
        parts[name] = digest_bytes(column.tobytes())
    for name, (values, codes) in evidence.groups.items():
        spelled = np.asarray(codes, np.int64).tobytes()
        parts[GROUP + name] = [list(values), digest_bytes(spelled)]
    return digest_json(parts)


def read_evidence(
    path: Path,
    groups: Mapping[str, tuple[str, ...]],
    *,
    classes: tuple[str, ...],
    positive: str,
    rows: int | None = None,
) -> tuple[Evidence, np.ndarray]:
    """Reads the evidence table.

    Args:
        path: the Parquet file.
        groups: group name -> its values; a value's position is its code.
        classes: class names by code.
        positive: the positive class, or "".
        rows: how many rows the verdict speaks of; None = not known.

    Returns:
        The evidence and the raw-row hashes, (n, 16) uint8.

    Raises:
        IntegrityError: no evidence table, another number of rows, a column is missing
            or of another type, or a row's group is none of the stated values.
        DataError: its rows do not fit in memory.
    """
    table = evidence_table(path, groups, rows)
    columns = {n: table[n].to_numpy() for n in list(_COLUMNS)[1:]}
    coded = {}
    for name, values in groups.items():
        known = pa.array(values, pa.string())
        codes = [
            np.asarray(pc.index_in(chunk.dictionary, known))[chunk.indices]
            for chunk in table[GROUP + name].chunks
        ]
        coded[name] = tuple(values), np.concatenate([[], *codes]).astype(np.int64)
    hashes = np.frombuffer(b"".join(table["row"].to_pylist()), np.uint8)
    evidence = Evidence(
        groups=coded,
        classes=len(classes),
        positive=classes.index(positive) if positive else None,
        **columns,
    )
    return evidence, hashes.reshape(-1, ROW_BYTES)


def evidence_table(
    path: Path, groups: Mapping[str, tuple[str, ...]], rows: int | None
) -> pa.Table:
    """Reads the columns of evidence, checked; the errors of `read_evidence`."""
    try:
        with parquet_file(path) as file:
            # By the footer, before a value is read.
            check_types(path, file.schema_arrow, groups)
            if rows not in (None, file.metadata.num_rows):
                raise IntegrityError(
                    f"The verdict beside {path} does not follow from its evidence: it "
                    f"speaks of {rows:,} rows, found {file.metadata.num_rows:,}."
                )
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(
            f"{path} cannot be read as evidence ({type(error).__name__}); a verdict "
            "counts only with its evidence."
        ) from None
    check_values(path, table, groups)
    return table


def distinct_rows(hashes: bytes | NDArray[Any]) -> NDArray[np.bytes_]:
    """Returns the set of row hashes that lie one after another, sorted, S16 (m,).

    Evidence and ledger digest this set: neither the order of rows nor a row drawn
    twice makes another use of them.
    """
    # Sorting is 7 times as fast as np.unique on a million of these.
    rows = np.sort(np.frombuffer(hashes, f"S{ROW_BYTES}"))
    # By parts: comparing all at once takes another copy of them.
    new = np.ones(len(rows), np.bool_)
    for at in range(1, len(rows), PART_ROWS):
        end = min(at + PART_ROWS, len(rows))
        new[at:end] = rows[at:end] != rows[at - 1 : end - 1]
    return rows if new.all() else rows[new]


def rows_digest(rows: np.ndarray) -> str:
    """Returns the digest of the set of row hashes, as the ledger takes it."""
    return digest_bytes(distinct_rows(rows).view(np.uint8).data)


def check_types(
    path: Path, schema: pa.Schema, groups: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuses columns that are not those of a verdict with these groups."""
    expected = {**_COLUMNS, **{GROUP + name: pa.string() for name in groups}}
    present = {
        field.name: field.type.value_type
        if pa.types.is_dictionary(field.type)
        else field.type
        for field in schema
    }
    for name in sorted(expected.keys() | present.keys()):
        if expected.get(name) != present.get(name):
            raise IntegrityError(
                f"Column {name!r} of {path} has type {present.get(name, 'absent')}, "
                f"the verdict's evidence has {expected.get(name, 'no such column')}."
            )


def check_values(
    path: Path, table: pa.Table, groups: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuses gaps, and values of groups that the verdict does not state."""
    # A null makes floats of integers when numpy reads them.
    for name in table.column_names:
        if table[name].null_count:
            raise IntegrityError(
                f"Column {name!r} of {path} lacks {table[name].null_count} values; "
                "evidence has one for every row."
            )
    for name, values in groups.items():
        chunks = table[GROUP + name].chunks
        present = {v for chunk in chunks for v in chunk.dictionary.to_pylist()}
        strange = present - set(values)
        if strange:
            raise IntegrityError(
                f"{path} holds {len(strange)} values in group {name!r} that the "
                f"verdict does not state, {one_of(values)}."
            )
