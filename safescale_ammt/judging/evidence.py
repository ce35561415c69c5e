"""Evidence: the rows from which every figure of a verdict is derived again.

One Parquet file with a row per judged row: its raw-row hash, label, prediction
and score of the model and of its unconstrained twin, the value of each group, what
became of the row under each attack, and whether it lies in each confirmed slice. No
features. The file is personal data (label, group and prediction of a person): it lies
apart from its verdict (`store.protected`) and, of what is registered, in the bundle;
keep it as long as an audit needs it and let few people read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from safescale_ammt.binomial.cells import Array
from safescale_ammt.errors import InputError, IntegrityError, one_of
from safescale_ammt.files.canonical import digest_json
from safescale_ammt.files.memory import check_fits
from safescale_ammt.files.parquet import fitting, fixed_bytes
from safescale_ammt.files.regular import open_regular
from safescale_ammt.judging.batteries import METADATA, BatteryRecord, read, written

IntArray = NDArray[Any]
"""Whole numbers: counts, or codes in the smallest type that holds them."""
EVIDENCE = "evidence.parquet"
ROW_BYTES = 16
PART_ROWS = 1 << 20
"""Rows of which figures are made at once, and of a row group."""
READ_ROWS = 1 << 17
"""Rows that are read at once."""
ROOM = 28
"""Bytes of a row that must fit (`files.memory`): twice as many are held at most."""
# Groups are named by the user: the prefix keeps a group `label` apart from the label.
GROUP, ATTACK = "group:", "attack:"
SLICE = "slice:"
"""Prefix of the number, from 1 on, of a confirmed slice: whether a row lies inside."""
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
        attacks: key of a threat -> (outcomes in words, codes (n,) into them).
        slices: rows of each confirmed slice (n,), bool.
        batteries: key of a threat -> how images were attacked under it.
    """

    label: IntArray
    prediction: IntArray
    score: Array
    groups: Mapping[str, tuple[tuple[str, ...], IntArray]]
    twin_prediction: IntArray | None = None
    twin_score: Array | None = None
    classes: int = 2
    positive: int | None = 1
    attacks: Mapping[str, tuple[tuple[str, ...], IntArray]] = field(
        default_factory=dict
    )
    slices: tuple[NDArray[np.bool_], ...] = ()
    batteries: Mapping[str, BatteryRecord] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = {
            "prediction": self.prediction,
            "score": self.score,
            "twin_prediction": self.twin_prediction,
            "twin_score": self.twin_score,
            **{f"groups[{name!r}]": codes for name, (_, codes) in self.groups.items()},
            **{f"attacks[{n!r}]": codes for n, (_, codes) in self.attacks.items()},
            **{f"slices[{i}]": inside for i, inside in enumerate(self.slices)},
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

    @property
    def worded(self) -> dict[str, tuple[tuple[str, ...], IntArray]]:
        """Columns of words as their file names them: groups, outcomes of attacks."""
        groups = {GROUP + name: column for name, column in self.groups.items()}
        return groups | {ATTACK + key: column for key, column in self.attacks.items()}

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


def code_type(size: int) -> np.dtype[Any]:
    """Returns the smallest type of codes below `size`, and of -1."""
    return np.dtype(np.int8 if size <= 1 << 7 else np.int16 if size <= 1 << 15 else int)


def parts_of(column: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yields a column by parts, of which no figure takes much memory."""
    for at in range(0, len(column), PART_ROWS):
        yield column[at : at + PART_ROWS]


def write_evidence(
    sink: Path | BinaryIO, evidence: Evidence, rows: NDArray[Any]
) -> None:
    """Writes the evidence table as a Parquet file, row group by row group.

    Args:
        sink: the file.
        evidence: labels, predictions, scores and group codes of n rows.
        rows: raw-row hashes, (n,) of 16 bytes each or (n, 16) uint8.
    """
    columns = {name: getattr(evidence, name) for name in list(_COLUMNS)[1:]}
    texts = {
        n: pa.array(values, pa.string()) for n, (values, _) in evidence.worded.items()
    }
    kinds = kinds_of(texts, len(evidence.slices))
    # Of what is no column of rows the file's head tells; most evidence has none.
    head = {METADATA: written(evidence.batteries)} if evidence.batteries else None
    layout = pa.schema(kinds, metadata=head)
    with pq.ParquetWriter(sink, layout, compression="zstd") as writer:
        for at in range(0, len(evidence.label), PART_ROWS):
            own = slice(at, at + PART_ROWS)
            # The hashes' bytes are the column's buffer: no row becomes an object.
            count, data = len(evidence.label[own]), pa.py_buffer(rows[own].tobytes())
            hashes = pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(ROW_BYTES), count, [None, data]
            )
            table = {"row": hashes}
            for name, column in columns.items():
                kind = _COLUMNS[name]
                table[name] = pa.array(column[own].astype(kind.to_pandas_dtype()))
            # Values, not codes: the file is read without the verdict that numbers them.
            for name, (_, codes) in evidence.worded.items():
                table[name] = texts[name].take(pa.array(codes[own]))
            for i, inside in enumerate(evidence.slices):
                table[f"{SLICE}{i + 1}"] = pa.array(inside[own])
            writer.write_table(pa.table(table, metadata=head))


def evidence_digest(evidence: Evidence, rows: NDArray[Any]) -> str:
    """Returns the digest of what the evidence says, row by row.

    Unlike that of the file it stays the same if another version of the library
    writes the file: the ledger binds a use by it.
    """
    parts: dict[str, Any] = {"row": _column_digest(rows, rows.dtype)}
    for name, kind in list(_COLUMNS.items())[1:]:
        column = getattr(evidence, name)
        parts[name] = _column_digest(column, kind.to_pandas_dtype())
    for name, (values, codes) in evidence.worded.items():
        parts[name] = [list(values), _column_digest(codes, np.int64)]
    if evidence.batteries:
        parts["batteries"] = written(evidence.batteries).decode()
    return digest_json(parts)


def _column_digest(column: NDArray[Any], kind: Any) -> str:
    sha = hashlib.sha256()
    for part in parts_of(column):
        sha.update(np.ascontiguousarray(part, kind).view(np.uint8).reshape(-1).data)
    return f"sha256:{sha.hexdigest()}"


def read_evidence(
    path: Path,
    groups: Mapping[str, tuple[str, ...]],
    *,
    classes: tuple[str, ...],
    positive: str,
    rows: int | None = None,
    attacks: Mapping[str, tuple[str, ...]] | None = None,
    slices: int = 0,
) -> tuple[Evidence, np.ndarray]:
    """Reads the evidence table.

    Args:
        path: the Parquet file.
        groups: group name -> its values; a value's position is its code.
        classes: class names by code.
        positive: the positive class, or "".
        rows: how many rows the verdict speaks of; None = not known.
        attacks: key of a threat -> its outcomes in words, likewise.
        slices: how many slices the verdict confirms.

    Returns:
        The evidence and the raw-row hashes, (n, 16) uint8.

    Raises:
        IntegrityError: no evidence table, another number of rows, a column is missing
            or of another type, or a row's group is none of the stated values.
        DataError: its rows do not fit in memory.
    """
    sizes = {name: len(classes) for name in ("label", "prediction", "twin_prediction")}
    worded = {GROUP + name: tuple(values) for name, values in groups.items()}
    worded |= {ATTACK + key: tuple(words) for key, words in (attacks or {}).items()}
    sizes |= {name: len(values) for name, values in worded.items()}
    known = {n: pa.array(values, pa.string()) for n, values in worded.items()}
    at, inside = 0, [f"{SLICE}{i + 1}" for i in range(slices)]
    with opened(path, worded, rows, slices) as file:
        count = file.metadata.num_rows
        head = (file.schema_arrow.metadata or {}).get(METADATA, b"{}")
        check_fits(count * ROOM, str(path))
        hashes = np.empty(count, f"V{ROW_BYTES}")
        columns: dict[str, NDArray[Any]] = {
            name: np.empty(count, code_type(sizes[name]) if name in sizes else float)
            for name in (*list(_COLUMNS)[1:], *worded)
        }
        columns |= {name: np.empty(count, np.bool_) for name in inside}
        for batch in file.iter_batches(READ_ROWS):
            table = pa.Table.from_batches([batch])
            check_values(path, table, worded)
            own = slice(at, at := at + len(table))
            if at > count:
                break
            hashes[own] = fixed_bytes(table["row"], hashes.dtype)
            for name, column in columns.items():
                values = table[name].combine_chunks()
                if name in worded:
                    found = pc.index_in(values.dictionary, known[name])
                    values = found.take(values.indices)
                columns[name] = filled(
                    column, own, values.to_numpy(zero_copy_only=False)
                )
    if at != count:
        raise IntegrityError(f"{path} states {count:,} rows and holds others.")
    coded = {name: (values, columns.pop(name)) for name, values in worded.items()}
    members = tuple(columns.pop(name) for name in inside)
    evidence = Evidence(
        groups={n: coded[GROUP + n] for n in groups},
        attacks={key: coded[ATTACK + key] for key in attacks or {}},
        classes=len(classes),
        positive=classes.index(positive) if positive else None,
        slices=members,
        batteries=read(head, str(path)),
        **columns,
    )
    return evidence, hashes.view(np.uint8).reshape(-1, ROW_BYTES)


def filled(column: NDArray[Any], own: slice, values: NDArray[Any]) -> NDArray[Any]:
    """Puts values into a part of a column, in a wider type if they need one."""
    if np.issubdtype(column.dtype, np.integer) and len(values):
        kind = np.iinfo(column.dtype)
        if values.min() < kind.min or values.max() > kind.max:
            column = column.astype(np.int64)
    column[own] = values
    return column


@contextmanager
def opened(
    path: Path,
    worded: Mapping[str, tuple[str, ...]],
    rows: int | None,
    slices: int = 0,
) -> Iterator[pq.ParquetFile]:
    """Opens evidence, its columns and number of rows checked by the footer.

    Raises:
        IntegrityError, DataError: as `read_evidence`.
    """
    try:
        with open_regular(path, follow=False) as source:
            file = fitting(source, str(path), whole=False)
            check_types(path, file.schema_arrow, worded, slices)
            if rows not in (None, file.metadata.num_rows):
                raise IntegrityError(
                    f"The verdict beside {path} does not follow from its evidence: it "
                    f"speaks of {rows:,} rows, found {file.metadata.num_rows:,}."
                )
            yield file
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(
            f"{path} cannot be read as evidence ({type(error).__name__}); a verdict "
            "counts only with its evidence."
        ) from None


def ordered(
    hashes: bytes | NDArray[Any], *, in_place: bool = False
) -> NDArray[np.bytes_]:
    """Returns row hashes that lie one after another, sorted, S16 (n,).

    Args:
        hashes: (n,) of 16 bytes each, (n, 16) uint8, or all their bytes.
        in_place: whether the array may be sorted itself; else a copy is.
    """
    if in_place and isinstance(hashes, np.ndarray):
        rows: NDArray[np.bytes_] = hashes.reshape(-1).view(f"S{ROW_BYTES}")
        rows.sort()
        return rows
    # Sorting is 7 times as fast as np.unique on a million of these.
    return np.sort(np.frombuffer(hashes, f"S{ROW_BYTES}"))


def distinct_parts(rows: NDArray[np.bytes_]) -> Iterator[NDArray[np.bytes_]]:
    """Yields sorted hashes (n,) by parts, each hash once."""
    last = rows[:0]
    for part in parts_of(rows):
        new = np.append(part[:1] != last if len(last) else True, part[1:] != part[:-1])
        last = part[-1:]
        yield part if new.all() else part[new]


def distinct_rows(hashes: bytes | NDArray[Any]) -> NDArray[np.bytes_]:
    """Returns the set of row hashes that lie one after another, sorted, S16 (m,).

    Evidence and ledger digest this set: neither the order of rows nor a row drawn
    twice makes another use of them.
    """
    rows = ordered(hashes)
    if sum(map(len, distinct_parts(rows))) == len(rows):
        return rows
    return np.concatenate([*distinct_parts(rows)])


def distinct_count(rows: NDArray[Any], *, in_place: bool = False) -> int:
    """Counts the set of row hashes; the arguments of `ordered`."""
    return sum(map(len, distinct_parts(ordered(rows, in_place=in_place))))


def rows_digest(rows: NDArray[Any], *, in_place: bool = False) -> str:
    """Returns the digest of the set of row hashes, as the ledger takes it.

    The arguments are those of `ordered`.
    """
    sha = hashlib.sha256()
    for part in distinct_parts(ordered(rows, in_place=in_place)):
        sha.update(part.view(np.uint8).data)
    return f"sha256:{sha.hexdigest()}"


def kinds_of(worded: Iterable[str], slices: int) -> dict[str, pa.DataType]:
    """Returns the columns of evidence with these of words and so many slices."""
    kinds = {**_COLUMNS, **dict.fromkeys(worded, pa.string())}
    return {**kinds, **{f"{SLICE}{i + 1}": pa.bool_() for i in range(slices)}}


def check_types(
    path: Path,
    schema: pa.Schema,
    worded: Mapping[str, tuple[str, ...]],
    slices: int = 0,
) -> None:
    """Refuses columns that are not those of a verdict with these columns of words."""
    expected = kinds_of(worded, slices)
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
    path: Path, table: pa.Table, worded: Mapping[str, tuple[str, ...]]
) -> None:
    """Refuses gaps, and values of groups or outcomes that the verdict has not."""
    # A null makes floats of integers when numpy reads them.
    for name in table.column_names:
        if table[name].null_count:
            raise IntegrityError(
                f"Column {name!r} of {path} lacks {table[name].null_count} values; "
                "evidence has one for every row."
            )
    for name, values in worded.items():
        chunks = table[name].chunks
        present = {v for chunk in chunks for v in chunk.dictionary.to_pylist()}
        strange = present - set(values)
        if strange:
            what = f"group {name.removeprefix(GROUP)!r}"
            if name.startswith(ATTACK):
                what = f"{name.removeprefix(ATTACK)!r}, the outcomes of an attack,"
            raise IntegrityError(
                f"{path} holds {len(strange)} values in {what} that the "
                f"verdict does not state, {one_of(values)}."
            )
