"""Development and sealed rows together: labels, copies, and which row goes where."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import SPLITS, DataConfig
from safescale_ammt.data.shown import shown_values
from safescale_ammt.data.splitting import (
    contained,
    draw_splits,
    occurrences,
    one_of_each,
)
from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column, RawTable

SEALED = "sealed"
ALL_SPLITS = (*SPLITS, SEALED)
MOST_CLASSES = 100
"""More label values than this are numbers or names, not classes."""
_REMOVED = -1


@dataclass(frozen=True)
class Joined:
    """All rows in one table, so that one code path treats them all.

    Attributes:
        table: development rows, then sealed rows; label spellings are merged.
        border: rows before it come from the source, the others are sealed.
        sealed_origin: URI of the sealed rows, for sentences.
        label: the label as the files spell it.
        numbers: position in its file (from 0) of each row, once some are left out.
        unlabelled: rows that were left out, of the source and of the sealed rows.
        strangers: names of `data.label_map` that no row has, if every other label is
            `data.label_other`: a misspelt one gives its rows to that class.
    """

    table: RawTable
    border: int
    sealed_origin: str
    label: Column
    numbers: NDArray[np.int64] | None = None
    unlabelled: tuple[int, int] = (0, 0)
    strangers: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, config: DataConfig, source: RawTable, sealed: RawTable | None
    ) -> Joined:
        """Joins the tables and merges the label's spellings.

        Raises:
            DataError: unknown or unequal columns.
        """
        roles = {
            "label": (config.label,),
            "sensitive": config.sensitive,
            "drop": config.drop,
            "ids": config.ids,
            "entity": (config.entity,) if config.entity else (),
            "numeric": config.numeric,
            "categorical": config.categorical,
            "allow_leak": config.allow_leak,
            "numbers": config.numbers,
            "dates": config.dates,
        }
        for role, names in roles.items():
            for name in names:
                source.column(name, f"data.{role}", config.named_columns)
        columns = dict(source.columns)
        if sealed is not None:
            if odd := set(source.columns) ^ set(sealed.columns):
                # A name that the config has too is safe to show, whatever it is.
                safe = source.names_are_safe and sealed.names_are_safe
                shown = sorted(odd if safe else odd & config.named_columns)
                raise DataError(
                    f"{source.origin} and {sealed.origin} do not have the same "
                    f"columns: {len(odd)} of them are in one only"
                    f"{', such as ' if shown else ''}{', '.join(map(repr, shown))}; "
                    "if one has no header, data.columns names them."
                )
            columns = {
                name: column.extended(sealed.columns[name])
                for name, column in columns.items()
            }
        # A copy of a row that spells its label otherwise is a copy all the same, and
        # must not lie on both sides.
        absent = {text: text for text in config.missing}
        known = set(columns[config.label].values.to_pylist())
        strangers = tuple(sorted(set(config.label_map) - known))
        written = columns[config.label]
        columns[config.label] = written.renamed(
            absent | config.label_map, config.label_other or None
        )
        extra = sealed.rows if sealed else 0
        table = RawTable(columns, source.rows + extra, source.origin, source.digests)
        joined = cls(
            table,
            source.rows,
            sealed.origin if sealed else "",
            written,
            strangers=strangers if config.label_other else (),
        )
        return joined.labelled(config) if config.unlabelled == "drop" else joined

    def labelled(self, config: DataConfig) -> Joined:
        """Leaves out the rows without a label; sentences number the rest as before.

        Raises:
            DataError: no row of the source, or none of the sealed rows, has one.
        """
        absent = self.table.columns[config.label].among(config.missing)
        kept = np.flatnonzero(~absent)
        border = int(np.searchsorted(kept, self.border))
        sides = {self.table.origin: border}
        if self.sealed_origin:
            sides[self.sealed_origin] = len(kept) - border
        for origin, rows in sides.items():
            if not rows:
                raise DataError(
                    f"No row of {origin} has a label {config.label!r}; with "
                    "data.unlabelled: drop nothing is left."
                )
        gone = int(absent[: self.border].sum())
        return replace(
            self,
            table=self.table.take(kept),
            border=border,
            label=self.label.take(kept),
            numbers=kept.astype(np.int64),
            unlabelled=(gone, int(absent.sum()) - gone),
        )

    @property
    def source(self) -> RawTable:
        """The rows of the source."""
        return self.table.take(np.arange(self.border))

    def source_rows(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns the positions in the source, as it was read, of rows (n,) of it."""
        rows = np.flatnonzero(mask[: self.border])
        return rows if self.numbers is None else self.numbers[rows]

    def row_name(self, row: int) -> str:
        """Names a row for a sentence, counting the data rows of its file from 1."""
        number = row if self.numbers is None else int(self.numbers[row])
        if row < self.border:
            return f"data row {number + 1} of {self.table.origin}"
        number -= self.border + self.unlabelled[0]
        return f"data row {number + 1} of {self.sealed_origin}"

    def check_complete(
        self, role: str, name: str, missing: Collection[str], advice: str = ""
    ) -> None:
        """Refuses a column in which rows lack a value.

        Args:
            role: what the column is for, for the sentence.
            name: of the column.
            missing: spellings of a missing value.
            advice: end of the sentence.

        Raises:
            DataError: rows without a value.
        """
        absent = self.table.columns[name].among(missing)
        if absent.any():
            raise DataError(
                f"{int(absent.sum())} rows have no {role} {name!r}, the first is "
                f"{self.row_name(int(np.argmax(absent)))}{advice}."
            )


def class_codes(
    config: DataConfig, joined: Joined
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Returns the class names in code order and the class code of every row.

    Binary: code 1 is the positive class. Classes are those of the source.

    Raises:
        DataError: missing labels, one class, too many, or an unknown positive.
    """
    advice = "; label them, or leave them out by data.unlabelled: drop"
    joined.check_complete("label", config.label, config.missing, advice)
    column = joined.table.columns[config.label]
    # The sealed rows must not decide which classes the model can say.
    classes, codes = column.take(np.arange(joined.border)).ranked()
    counts = dict(zip(classes, np.bincount(codes), strict=True))
    _check_classes(config, counts, joined)
    if config.positive and len(classes) == 2 and classes[0] == config.positive:
        classes = classes[::-1]
    texts, codes = column.ranked()
    class_code = {name: code for code, name in enumerate(classes)}
    label = np.array([class_code.get(text, -1) for text in texts])[codes]
    if label.min() < 0:
        first = joined.row_name(int(np.argmin(label)))
        raise DataError(
            f"The label of {first} is a class that the source does not have"
            f"{shown_values(counts)}; data.label_map merges spellings."
        )
    return classes, label


def _check_classes(
    config: DataConfig, counts: Mapping[str, int], joined: Joined
) -> None:
    classes = tuple(counts)
    where = f"Label {config.label!r} of {joined.table.origin}"
    if len(classes) < 2:
        named = {config.positive, config.label_other, *config.label_map.values()}
        name = f", {classes[0]!r}" if classes[0] in named else ""
        lost = ", ".join(map(repr, joined.strangers))
        why = f"; data.label_map names {lost}, which no row has" if lost else ""
        raise DataError(
            f"{where} has a single class{name}; there is nothing to learn{why}."
        )
    # Texts that are different in every other row are no classes, in a small file too.
    most = min(MOST_CLASSES, max(2, joined.border // 2))
    if len(classes) > most:
        raise DataError(
            f"{where} has {len(classes)} distinct values in {joined.border} rows, at "
            f"most {most} are classes; bin it, give those that data.label_map does not "
            "name one class by data.label_other, or name another label."
        )
    # The last label of a truncated file looks like a new class with one row.
    fewest = min(counts.values())
    if fewest < len(ALL_SPLITS):
        raise DataError(
            f"{where} has only {fewest} rows of a class, fewer than the "
            f"{len(ALL_SPLITS)} splits; the file is truncated, or data.label_map (and "
            "data.label_other, for all that it does not name) must merge the class."
        )
    if config.positive and config.positive not in classes:
        raise DataError(
            f"data.positive is {config.positive!r}, but {where} has no such class"
            f"{shown_values(counts, config.positive)}."
        )


@dataclass(frozen=True)
class Cut:
    """Where every joined row goes.

    Attributes:
        split: int64 (n,), code into `ALL_SPLITS`; -1 for a removed row.
        rows: hashes, V16 (n,), equal for copies.
        copies: development rows removed because the sealed file has them too.
        repeated: development rows that repeat an earlier one; they stay.
        dropped: rows of the source and sealed rows that `data.drop_duplicates` leaves
            out.
        thinned: sealed rows left out, as another row of their entity is judged.
        entity: entity code (n,) of each row; None without `data.entity`.
    """

    split: NDArray[np.int64]
    rows: NDArray[np.void]
    copies: int
    repeated: int
    dropped: tuple[int, int] = (0, 0)
    thinned: int = 0
    entity: NDArray[np.int64] | None = None

    def among(self, *names: str) -> NDArray[np.bool_]:
        """Returns a mask of the rows of these splits."""
        return np.isin(self.split, [ALL_SPLITS.index(name) for name in names])


def cut(
    config: DataConfig,
    joined: Joined,
    label: NDArray[np.int64],
    groups: Mapping[str, Column],
    rows: NDArray[np.void],
) -> Cut:
    """Assigns rows to splits; a development row that is also sealed is removed.

    Of equal rows one stays with `data.drop_duplicates`. Of a sealed entity one row is
    kept, so that what is judged are independent draws; the others go nowhere.

    Args:
        config: splits, seed, roles of columns.
        joined: all rows.
        label: class codes (n,).
        groups: columns by name; the first sensitive one makes strata.
        rows: hashes V16 (n,), equal for equal rows, however a file spells their label.

    Raises:
        DataError: rows without an entity, an entity on both sides, or a split without
            rows.
    """
    split = np.full(joined.table.rows, ALL_SPLITS.index(SEALED))
    sealed = np.arange(len(rows)) >= joined.border
    repeats = np.zeros(len(rows), dtype=np.bool_)
    if config.drop_duplicates:
        # Each side by itself: a sealed row stays, whatever the source holds.
        sides = np.split(rows, [joined.border])
        repeats = np.concatenate([occurrences(side) for side in sides]) > 0
    # A sealed row that was trained on measures memory. It is taken from development:
    # an official test set stays what others judge on.
    copies = ~sealed & ~repeats & contained(rows, rows[sealed])
    split[copies | repeats] = _REMOVED
    free = np.flatnonzero(~sealed & ~copies & ~repeats)
    strata = label[free]
    if config.sensitive:
        _, first = groups[config.sensitive[0]].ranked()
        strata = first[free] * (int(label.max()) + 1) + strata
    fractions = [config.splits.get(name, 0.0) for name in ALL_SPLITS]
    column, entity, thinned = None, None, 0
    if config.entity:
        # Rows without an entity would be one: all of them in one split.
        joined.check_complete("entity", config.entity, config.missing)
        column = joined.table.columns[config.entity]
        shared = np.intersect1d(column.codes[free], column.codes[sealed])
        if len(shared):
            raise DataError(
                f"{len(shared)} entities of {config.entity!r} are in "
                f"{joined.table.origin} and in {joined.sealed_origin}; an entity "
                "belongs to one split."
            )
    split[free] = draw_splits(
        rows[free],
        strata,
        fractions,
        config.seed,
        column.take(free) if column else None,
    )
    if column:
        entity = column.codes.astype(np.int64)
        judged = np.flatnonzero(split == ALL_SPLITS.index(SEALED))
        others = judged[~one_of_each(entity[judged], rows[judged])]
        split[others], thinned = _REMOVED, len(others)
    development = rows[(split != _REMOVED) & (split != ALL_SPLITS.index(SEALED))]
    repeated = int(np.count_nonzero(occurrences(development)))
    dropped = int(repeats[~sealed].sum()), int(repeats[sealed].sum())
    result = Cut(split, rows, int(copies.sum()), repeated, dropped, thinned, entity)
    _check_splits(result, label, joined)
    return result


def _check_splits(result: Cut, label: NDArray[np.int64], joined: Joined) -> None:
    for name in ALL_SPLITS:
        if not result.among(name).any():
            advice = "give it a larger fraction or more rows"
            if result.copies:
                advice += (
                    f"; {result.copies} equal a sealed row and are left out, but for a "
                    "column that tells people apart, such as an id in data.drop"
                )
            raise DataError(
                f"Split {name!r} gets no row of the {joined.border} in "
                f"{joined.table.origin}; {advice}."
            )
    train = np.bincount(label[result.among("train")], minlength=int(label.max()) + 1)
    if train.min() == 0:
        raise DataError(
            f"Split 'train' of {joined.table.origin} lacks a class altogether; the "
            "source has too few rows of it."
        )
