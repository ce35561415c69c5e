"""Values that a model has never seen: counted, and refused where most are.

A net answers any row: an unknown level is all zeros or "(other)", and no error. If
most rows of a column are unknown, the column was spelled by another hand, and every
figure that follows is about the spelling. Sentences name the column, the share and
the kind of difference, never a value.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.data.audit_warnings import percent
from safescale_ammt.data.counts import told_part
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    ImageFeature,
    Schema,
)
from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.spelling import canonical_alone

MOSTLY = 0.5
"""Share of the rows that should be known, above which a column is refused."""
ENOUGH = 20
"""Rows from which a share says something by itself."""
_MOST_KINDS = 3
_BOOLEAN = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "on"), "true"),
    **dict.fromkeys(("false", "f", "no", "n", "0", "off"), "false"),
}


def _boolean_word(text: str) -> str | None:
    return _BOOLEAN.get(canonical_alone(text).lower())


def _with_point(text: str) -> str | None:
    # A decimal comma, or zeros after the point.
    if not re.fullmatch(r"[+-]?[0-9.,]+(?:[eE][+-]?[0-9]+)?", text):
        return None
    return canonical_alone(text.replace(",", "."))


def _time(text: str) -> str | None:
    return canonical_alone(text) if re.match(r"\d{4}-\d\d-\d\d", text) else None


# By the kind of a difference: a sign that a text on either side shows, and what two
# spellings of one value have in common; None where the kind says nothing of a text.
_ALIKE: Mapping[str, tuple[re.Pattern[str], Callable[[str], str | None]]] = {
    "case": (re.compile(r"[^\W\d_]"), str.casefold),
    "white space": (re.compile(r"\s"), lambda text: "".join(text.split())),
    "leading zeros": (
        re.compile(r"^[+-]?0\d"),
        lambda text: canonical_alone(re.sub(r"^([+-]?)0+(?=\d)", r"\1", text)),
    ),
    "decimal point": (re.compile(r"\d[.,]|[.,]\d"), _with_point),
    "boolean word": (re.compile(""), _boolean_word),
    "form of a time": (re.compile(r"^\d{4}-"), _time),
}


def differences(known: Collection[str], strange: Collection[str]) -> tuple[str, ...]:
    """Names the kinds in which unseen texts differ from known ones, at most three."""
    kinds = []
    for kind, (sign, alike) in _ALIKE.items():
        if any(sign.search(text) for text in (*known, *strange)):
            forms = {alike(text) for text in known} - {None}
            # One text that happens to look like a known one is no kind.
            if 2 * sum(alike(text) in forms for text in strange) > len(strange):
                kinds.append(kind)
    return tuple(kinds[:_MOST_KINDS])


@dataclass(frozen=True)
class Unseen:
    """How many rows have a value that is not known.

    Attributes:
        column: name of the column.
        present: rows with a value.
        rows: those of them whose value is unknown.
        expected: share of unknown values that the development rows lead to expect.
        kinds: kinds of difference between unknown and known values.
    """

    column: str
    present: int
    rows: int
    expected: float
    kinds: tuple[str, ...]

    @property
    def mostly(self) -> bool:
        """Says whether the column is spelled by another hand."""
        # Where most values occur once, as names do, new ones are no surprise.
        if self.expected > MOSTLY:
            return False
        share = (self.rows / self.present - self.expected) / (1 - self.expected)
        if self.present >= ENOUGH:
            return share > MOSTLY
        # A few new rows may well come from a new place; another spelling gives itself
        # away by its kind.
        return self.rows == self.present and bool(self.kinds)

    @property
    def shown(self) -> int | str:
        """The number of rows, as it may be told of sealed ones."""
        return told_part(self.rows, self.present)

    def clause(self, sealed: bool = False) -> str:
        """Returns a clause: column, count, share and kinds of difference.

        Args:
            sealed: whether it is about sealed rows, of which few are not counted.
        """
        share = percent(self.rows / self.present)
        told = f"{self.rows} of {self.present} values ({share}) that are unknown"
        if sealed:
            # Beside one of 20 values that is known, a share is a count.
            exact = isinstance(self.shown, int) or self.rows == self.present
            told = f"{share if exact else 'over half'} of its values unknown"
        if self.kinds:
            told += f" (known ones differ from them in {', '.join(self.kinds)})"
        return f"column {self.column!r} has {told}"

    def __str__(self) -> str:
        """Returns the clause as it is told of rows to predict."""
        return self.clause()


def count_unseen(
    name: str,
    values: pa.Array | pa.ChunkedArray,
    known: Collection[str],
    expected: float = 0.0,
) -> Unseen | None:
    """Counts the rows whose value is not known; None if there are none.

    Args:
        name: of the column.
        values: texts (n,), null where missing.
        known: the values that are known.
        expected: share of unknown values among rows like the known ones.
    """
    counted = pc.value_counts(pc.drop_null(pc.cast(values, pa.string())))
    counts = {entry["values"]: entry["counts"] for entry in counted.to_pylist()}
    return unseen_among(name, counts, known, expected)


def unseen_among(
    name: str, counts: Mapping[str, int], known: Collection[str], expected: float
) -> Unseen | None:
    """Counts the rows whose value is not known, by the rows of each value."""
    strange = set(counts) - set(known)
    if not strange:
        return None
    rows = sum(counts[text] for text in strange)
    kinds = differences(known, strange)
    return Unseen(name, sum(counts.values()), rows, expected, kinds)


def expected_unseen(column: Column, missing: Collection[str]) -> float:
    """Returns the share of rows whose value no other row has.

    By Good and Turing (Good 1953) a new row has a value never seen about as often.
    """
    present = ~column.among(missing)
    counts = column.take(present).counts
    return float((counts == 1).sum() / max(counts.sum(), 1))


def refuse_near_unique(
    name: str, column: Column, missing: Collection[str], why: str = ""
) -> None:
    """Refuses a column of texts most of which occur once, as names and ids do.

    Args:
        name: of the column.
        column: the development rows.
        missing: spellings of a missing value.
        why: what else the column may be, as the end of a sentence.

    Raises:
        DataError: over half of at least `ENOUGH` rows have a text of their own.
    """
    share = expected_unseen(column, missing)
    if share > MOSTLY and column.rows(~column.among(missing)) >= ENOUGH:
        raise DataError(
            f"Column {name!r} has a text of its own in {100 * share:.0f} % of the "
            "rows, as names and ids have, and is no input; data.drop leaves it out, "
            "and data.categorical keeps it"
            f"{f' (or {why})' if why else ''}."
        )


def unseen_inputs(schema: Schema, features: pa.Table) -> list[Unseen]:
    """Counts the rows whose level the model does not know, by column.

    Of a column with pooled levels and no frequencies the schema does not hold the
    pooled ones: they count as unknown, and `expected_unseen` says how many to expect.

    Args:
        schema: the model's schema.
        features: its feature columns, typed.
    """
    counts = (
        count_unseen(f.name, features[f.name], f.known, f.expected_unseen)
        for f in schema.features
        if isinstance(f, CategoricalFeature)
    )
    return [unseen for unseen in counts if unseen]


@dataclass
class UnseenTally:
    """Counts the rows whose level the model does not know, batch by batch.

    Attributes:
        schema: the model's schema.
        present: column -> rows with a value.
        unknown: column -> those of them whose value is unknown.
    """

    schema: Schema
    present: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, features: pa.Table) -> None:
        """Counts the rows of a table of feature columns, typed."""
        for f in self.schema.features:
            if isinstance(f, CategoricalFeature):
                texts = pc.drop_null(pc.cast(features[f.name], pa.string()))
                known = pa.array(sorted(f.known), pa.string())
                seen = pc.sum(pc.is_in(texts, known)).as_py() or 0
                self.present[f.name] += len(texts)
                self.unknown[f.name] += len(texts) - seen

    def told(self) -> dict[str, int | str]:
        """Returns the number of rows of each column that has any, as `Unseen.shown`."""
        found = {name: n for name, n in self.unknown.items() if n}
        return {name: told_part(n, self.present[name]) for name, n in found.items()}


def refuse_mostly_unseen(
    found: Collection[Unseen], origin: str, known: str, sealed: bool = False
) -> None:
    """Refuses rows of which a column is mostly unknown.

    Args:
        found: counts by column.
        origin: of the rows, for the sentence.
        known: where the known values are from, for the sentence.
        sealed: whether the rows are sealed ones.

    Raises:
        DataError: such a column.
    """
    for unseen in found:
        if unseen.mostly:
            raise DataError(
                f"In {origin} {unseen.clause(sealed)}; spell its values as {known} do, "
                "or leave the column out (data.drop)."
            )


def refuse_mostly_missing(
    schema: Schema, features: pa.Table, origin: str, known: str
) -> None:
    """Refuses a table of feature columns as `refuse_gaps` does."""
    gaps = {name: features[name].null_count for name in schema.names}
    refuse_gaps(schema, gaps, features.num_rows, origin, known)


def refuse_gaps(
    schema: Schema, gaps: Mapping[str, int], rows: int, origin: str, known: str
) -> None:
    """Refuses rows of which most lack a value that no row of train lacks.

    They would all be the median, and every figure about a column that is not there.

    Args:
        schema: the model's schema.
        gaps: rows without a value, by feature.
        rows: all of them.
        origin: of the rows, for the sentence.
        known: the rows of train, for the sentence.

    Raises:
        DataError: such a column, of at least `ENOUGH` rows.
    """
    for feature in schema.features:
        # The first part of a date says whether the date is missing.
        first = feature.parts[0] if isinstance(feature, DateFeature) else feature
        many = gaps[feature.name] > MOSTLY * rows
        has_missing = not isinstance(first, ImageFeature) and first.has_missing
        if not has_missing and rows >= ENOUGH and many:
            raise DataError(
                f"In {origin} most rows have no value of column {feature.name!r}, "
                f"which all of {known} have; fill it, or leave the column out "
                "(data.drop)."
            )
