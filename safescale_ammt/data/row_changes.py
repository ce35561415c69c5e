"""Row changes: what a table threat permits of the rows of a schema, cell by cell.

Each column that may be changed has *options*: moves of a number, or values of a
category, in a fixed order. A *choice* is one option of some columns, -1 where a column
stays as it is. Rows are changed by choices, many at once, and nothing else of them is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.table_threats import (
    ENUMERATED,
    Change,
    NumberChange,
    TableThreat,
    ValueChange,
)
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    Feature,
    NumericFeature,
    Schema,
)
from safescale_ammt.errors import ConstitutionError, one_of

Choices = NDArray[np.int64]
"""Option of each column that may be changed, (m, columns); -1 = as it is."""
MOST_OF_A_ROW = 1_000_000
"""Changes of one row that are tried at most."""
_NEAR = 1e-9
"""A move that ends so little beyond a bound, as a share of it, ends on the bound."""


def check_threats(constitution: Constitution, schema: Schema) -> None:
    """Refuses promises whose threats a dataset's columns do not fit; `check_threat`."""
    for principle in constitution.principles:
        if threat := principle.constraint.table_threat:
            check_threat(threat, schema, principle.id)
        c = principle.constraint
        of_images = c.image_threat or c.corruptions
        if of_images and schema.image is None:
            raise ConstitutionError(
                f"Principle {principle.id!r} changes pixels ({of_images.name}), "
                "but the data have none: rows of a table are changed by column, as "
                "{changes: 1, columns: {age: {by: 2, step: 1}}}, and inputs of modules "
                "are attacked by train_model of the Python API alone."
            )


def check_threat(threat: TableThreat, schema: Schema, principle: str) -> None:
    """Refuses changes of columns that a dataset does not have, or not so.

    Args:
        threat: what may be changed.
        schema: of the dataset.
        principle: id of the promise, for sentences.

    Raises:
        ConstitutionError: an unknown column, a sensitive one that is not named as
            such, a number's change of a category or the reverse, or an unknown value.
    """
    where = f"Principle {principle!r} changes"
    features = {feature.name: feature for feature in schema.features}
    for name, change in threat.columns:
        if name not in features and name in schema.sensitive:
            raise ConstitutionError(
                f"{where} {name!r}, which the data declare sensitive and the model "
                "does not read; leave it out, or prepare with data.sensitive_in_model."
            )
        if name not in features:
            raise ConstitutionError(
                f"{where} the column {name!r}, which the model does not read, "
                f"{one_of(features, name)}."
            )
        if name in schema.sensitive and name not in threat.sensitive:
            raise ConstitutionError(
                f"{where} {name!r}, which the data declare sensitive; if that is "
                f"meant, say threat.sensitive: [{name}], else leave it out."
            )
        check_change(features[name], change, f"{where} {name!r}")
    for name in threat.sensitive:
        if name not in schema.sensitive:
            raise ConstitutionError(
                f"{where} {name!r} as a sensitive column, which the data do not "
                "declare; leave it out of threat.sensitive."
            )
    sizes = [np.array(len(options)) for options in options_of(threat, schema)]
    if (most := int(changes_of(sizes, threat.changes))) > MOST_OF_A_ROW:
        raise ConstitutionError(
            f"{where} a row in up to {most:,} ways, at most {MOST_OF_A_ROW:,} can be "
            "tried; make steps larger, or name fewer columns or values."
        )


def check_change(feature: Feature, change: Change, where: str) -> None:
    """Refuses a change that is none of a column's kind, or to an unknown value.

    Args:
        feature: the column.
        change: what it may become.
        where: beginning of the sentence.

    Raises:
        ConstitutionError: it is refused.
    """
    if isinstance(feature, DateFeature):
        raise ConstitutionError(
            f"{where}, a column of dates; numbers and categories alone can be changed, "
            "so leave it out."
        )
    if isinstance(change, NumberChange):
        if not isinstance(feature, NumericFeature):
            raise ConstitutionError(
                f"{where} as a number, but it is a column of text; list the values "
                "that it may become, or say any."
            )
        return
    if not isinstance(feature, CategoricalFeature):
        raise ConstitutionError(
            f"{where} to values, but it is a column of numbers; say how far they may "
            "move, as {by: 2, step: 1}."
        )
    if not change.values and not feature.known:
        raise ConstitutionError(
            f"{where} to any value that the model knows by name, and it knows none, as "
            "each is rare; list values that it may become, or leave it out."
        )
    # Rare values are one input together, and have no names in the schema.
    nameless = feature.pooled and not feature.frequency
    unknown = [value for value in change.values if value not in feature.known]
    if unknown and not nameless:
        raise ConstitutionError(
            f"{where} to {unknown[0]!r}, a value that no row of training has, "
            f"{one_of(sorted(feature.known)[:20], unknown[0])}."
        )


def changes_of(options: Sequence[NDArray[Any]], changes: int) -> NDArray[np.int64]:
    """Counts the changes of one column, and of two where so many are permitted.

    Args:
        options: of each column, one array (...,) each.
        changes: columns that may be changed at once.
    """
    one: NDArray[np.int64] = np.asarray(np.sum(options, axis=0, dtype=np.int64))
    if changes < ENUMERATED:
        return one
    # Pairs of columns: (sum^2 - sum of squares) / 2.
    squares = np.sum([np.square(n, dtype=np.int64) for n in options], axis=0)
    return np.asarray(one + (one * one - squares) // 2)


def options_of(threat: TableThreat, schema: Schema) -> list[Sequence[float | str]]:
    """Returns the options of each column: moves, the furthest first, or values."""
    features = {feature.name: feature for feature in schema.features}
    found: list[Sequence[float | str]] = []
    for name, change in threat.columns:
        if isinstance(change, ValueChange):
            feature = features[name]
            assert isinstance(feature, CategoricalFeature)
            found.append(change.values or sorted(feature.known))
        else:
            # What moves a row furthest breaks it soonest, so that fewer are tried.
            moves = (k * change.step for k in range(change.steps, 0, -1))
            found.append([sign * move for move in moves for sign in (1.0, -1.0)])
    return found


def moved(change: NumberChange, own: NDArray[Any], move: NDArray[Any]) -> NDArray[Any]:
    """Returns numbers after their moves; of rounding beyond a bound, the bound."""
    end: NDArray[Any] = own + (own * move if change.share else move)
    for bound in change.range or ():
        end = np.where(abs(end - bound) <= _NEAR * max(1, abs(bound)), bound, end)
    return end


def moves_permitted(
    column: pa.ChunkedArray, change: NumberChange, options: Sequence[Any]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Returns a column's numbers (n,), and which moves each may take (n, options)."""
    own = pc.cast(column, pa.float64()).to_numpy().astype(np.float64)
    ends = moved(change, own[:, None], np.array(options)[None])
    # A missing number is NaN, which lies in no range and goes nowhere.
    allowed = np.isfinite(ends) & (ends != own[:, None])
    if change.range:
        allowed &= (ends >= change.range[0]) & (ends <= change.range[1])
    return own, allowed


def values_permitted(
    column: pa.ChunkedArray, options: Sequence[Any]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], pa.Array]:
    """Returns a column's codes (n,), -1 of none, and which values each may take.

    The last part are the texts of the codes: the options, then all others.
    """
    column = pc.cast(column, pa.string())
    present = pc.unique(column).drop_null().to_pylist()
    texts = pa.array([*dict.fromkeys([*options, *present])], pa.string())
    own = pc.fill_null(pc.index_in(column, texts), -1).to_numpy().astype(np.int64)
    allowed = (own[:, None] != np.arange(len(options))) & (own[:, None] >= 0)
    return own, allowed, texts


class ChangeableRows:
    """Rows of a table, and what a threat permits of each.

    Args:
        features: the schema's feature columns of n rows.
        threat: checked against the schema (`check_threat`).
        schema: of the rows.

    Attributes:
        permitted: of each column (n, options): whether a row may take an option.
    """

    def __init__(self, features: pa.Table, threat: TableThreat, schema: Schema) -> None:
        self._threat, self._options = threat, options_of(threat, schema)
        numbers = (pa.types.is_floating, pa.types.is_integer, pa.types.is_temporal)
        # Texts become codes into distinct ones: rows are copied by the thousand.
        columns = {
            name: column.combine_chunks()
            if any(is_kind(column.type) for is_kind in numbers)
            else pc.cast(column, pa.string()).combine_chunks().dictionary_encode()
            for name, column in zip(
                features.column_names, features.columns, strict=True
            )
        }
        self._table = pa.table(columns)
        self._own: list[NDArray[Any]] = []
        self._texts: list[pa.Array | None] = []
        self.permitted: list[NDArray[np.bool_]] = []
        for (name, change), options in zip(threat.columns, self._options, strict=True):
            own: NDArray[Any]
            texts = None
            if isinstance(change, NumberChange):
                own, allowed = moves_permitted(features[name], change, options)
            else:
                own, allowed, texts = values_permitted(features[name], options)
            self._own.append(own)
            self._texts.append(texts)
            self.permitted.append(allowed)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def changed(self, rows: NDArray[Any], choices: Choices) -> pa.Table:
        """Returns copies of rows, each changed by its choice.

        Args:
            rows: numbers of the rows (m,).
            choices: permitted options (m, columns).
        """
        table = self._table.take(pa.array(rows))
        for c, (name, change) in enumerate(self._threat.columns):
            chosen = choices[:, c]
            if not (moves := chosen >= 0).any():
                continue
            own, texts = self._own[c][rows], self._texts[c]
            if isinstance(change, NumberChange):
                ends = own.copy()
                options = np.array(self._options[c], np.float64)[chosen[moves]]
                ends[moves] = moved(change, own[moves], options)
                column = pa.array(ends, from_pandas=True)
            else:
                codes = np.where(moves, chosen, own)
                index = pa.array(codes, mask=codes < 0)
                column = pa.DictionaryArray.from_arrays(index, texts)
            table = table.set_column(table.column_names.index(name), name, column)
        return table

    def counts(self) -> list[NDArray[np.int64]]:
        """Returns how many options each row has in each column, (n,) a column."""
        return [allowed.sum(axis=1) for allowed in self.permitted]

    def choices(self, size: int) -> Iterator[tuple[int, ...]]:
        """Yields each choice of so many columns, in order."""
        columns = range(len(self._options))
        for chosen in combinations(columns, size):
            for options in product(*(range(len(self._options[c])) for c in chosen)):
                choice = [-1] * len(columns)
                for c, option in zip(chosen, options, strict=True):
                    choice[c] = option
                yield tuple(choice)

    def may_take(self, rows: NDArray[Any], choice: Sequence[int]) -> NDArray[np.bool_]:
        """Tells which rows (m,) may be changed by one choice."""
        may = np.ones(len(rows), dtype=bool)
        for allowed, option in zip(self.permitted, choice, strict=True):
            if option >= 0:
                may &= allowed[rows, option]
        return may
