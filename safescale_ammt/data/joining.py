"""Development and sealed rows together: labels, copies, and which row goes where."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.data.relations import ALL_SPLITS
from safescale_ammt.data.shelf import KeptColumns, Shelf
from safescale_ammt.data.shown import shown_values
from safescale_ammt.data.table import Left, Table
from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column, RawTable

MOST_CLASSES = 100
"""More label values than this are numbers or names, not classes."""


@dataclass(frozen=True)
class Joined:
    """Entries of all rows in one table, so that one code path treats them all.

    Attributes:
        table: entries of the source, then of the sealed rows; label spellings are
            merged. A column's weights are the rows that stay; an entry may have none.
        rows: all of them.
        sealed_origin: URI of the sealed rows, for sentences.
        name: of the label.
        label: the label as the files spell it.
        unlabelled: rows that are left out, of the source and of the sealed rows.
        left: entries of the label whose rows are; None = every row stays.
        strangers: names of `data.label_map` that no row has, if every other label is
            `data.label_other`: a misspelt one gives its rows to that class.
    """

    table: RawTable
    rows: Table
    sealed_origin: str
    name: str
    label: Column
    unlabelled: tuple[int, int] = (0, 0)
    left: Left | None = None
    strangers: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        config: DataConfig,
        rows: Table,
        tables: tuple[RawTable, RawTable | None],
        shelf: Shelf,
    ) -> Joined:
        """Joins the tables and merges the label's spellings.

        Args:
            config: spelled by kinds.
            rows: all of them.
            tables: entries of both sides, spelled by kinds.
            shelf: for columns.

        Raises:
            DataError: unknown or unequal columns.
        """
        source, sealed = tables
        check_columns(config, source, sealed)

        def both(name: str) -> Column:
            column = source.columns[name]
            return column.extended(sealed.columns[name]) if sealed else column

        # A copy of a row that spells its label otherwise is a copy all the same, and
        # must not lie on both sides.
        names = {text: text for text in config.missing} | config.label_map
        written = both(config.label)
        known = set(written.values.to_pylist())
        strangers = tuple(sorted(set(config.label_map) - known))
        label = written.renamed(names, config.label_other or None)
        columns = KeptColumns(
            source.columns, lambda n: label if n == config.label else both(n), shelf
        )
        joined = cls(
            RawTable(
                columns,
                rows.rows,
                source.origin,
                source.digests,
                contents={**source.contents, **(sealed.contents if sealed else {})},
            ),
            rows,
            sealed.origin if sealed else "",
            config.label,
            written,
            strangers=strangers if config.label_other else (),
        )
        drops = config.unlabelled == "drop"
        return joined.labelled(config, shelf) if drops else joined

    def labelled(self, config: DataConfig, shelf: Shelf) -> Joined:
        """Leaves out the rows without a label; sentences number the rest as before.

        Raises:
            DataError: no row of the source, or none of the sealed rows, has one.
        """
        label = self.table.columns[config.label]
        absent = label.among(config.missing)
        if not label.rows(absent):
            return self
        # Each entry is of one side, those of the source come first.
        later = np.arange(len(label)) >= self.rows.entries(config.label)
        for side, origin in zip(
            (~later, later), filter(None, self.origins), strict=False
        ):
            if not label.rows(side & ~absent):
                raise DataError(
                    f"No row of {origin} has a label {config.label!r}; with "
                    "data.unlabelled: drop nothing is left."
                )
        source, sealed = (label.rows(side & absent) for side in (~later, later))
        old, left = self.table.columns, Left(config.label, absent)
        without = replace(self, left=left, unlabelled=(source, sealed))

        def kept(name: str) -> Column:
            return replace(old[name], weights=self.rows.kept(name, left))

        columns = KeptColumns(old, kept, shelf)
        return replace(
            without,
            table=replace(self.table, columns=columns),
            label=replace(self.label, weights=columns[config.label].weights),
        )

    @property
    def origins(self) -> tuple[str, str]:
        """Where the rows are from; "" of sealed rows that are none."""
        return self.table.origin, self.sealed_origin

    @property
    def written(self) -> Joined:
        """The same rows with the label as the files spell it."""
        old = self.table.columns
        columns = KeptColumns(old, lambda n: self.label if n == self.name else old[n])
        return replace(self, table=replace(self.table, columns=columns))

    @property
    def source(self) -> Mapping[str, Column]:
        """The entries of the source's rows that stay, by column."""
        return KeptColumns(self.table.columns, self.of_source)

    @property
    def size(self) -> int:
        """The rows of the source that stay."""
        return self.rows.border - self.unlabelled[0]

    def of_source(self, name: str) -> Column:
        """Returns the entries of the source's rows that stay."""
        column = self.table.columns[name]
        weights = column.stands_for.copy()
        weights[self.rows.entries(name) :] = 0
        return column.weighed(weights)

    def row_name(self, name: str, entries: NDArray[np.bool_]) -> str:
        """Names the first row with one of some entries of a column, for a sentence.

        The data rows of its file are counted from 1.
        """
        row = self.rows.first_row(name, entries, self.left)
        if row < self.rows.border:
            return f"data row {row + 1} of {self.table.origin}"
        return f"data row {row - self.rows.border + 1} of {self.sealed_origin}"

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
        column = self.table.columns[name]
        absent = column.among(missing)
        if rows := column.rows(absent):
            raise DataError(
                f"{rows} rows have no {role} {name!r}, the first is "
                f"{self.row_name(name, absent)}{advice}."
            )


def check_columns(
    config: DataConfig, source: RawTable, sealed: RawTable | None
) -> None:
    """Refuses columns that the config names and a table lacks, or one table alone has.

    Raises:
        DataError: such a column.
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
        "trusted_label": (config.trusted_label,) if config.trusted_label else (),
        "repeats": (*config.repeats, *config.repeats.values()),
    }
    for role, names in roles.items():
        for name in names:
            source.column(name, f"data.{role}", config.named_columns)
    if sealed is not None and (odd := set(source.columns) ^ set(sealed.columns)):
        # A name that the config has too is safe to show, whatever it is.
        safe = source.names_are_safe and sealed.names_are_safe
        shown = sorted(odd if safe else odd & config.named_columns)
        raise DataError(
            f"{source.origin} and {sealed.origin} do not have the same "
            f"columns: {len(odd)} of them are in one only"
            f"{', such as ' if shown else ''}{', '.join(map(repr, shown))}; "
            "if one has no header, data.columns names them."
        )


def class_codes(
    config: DataConfig, joined: Joined
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Returns the class names in code order and the class code of every label entry.

    Binary: code 1 is the positive class. Classes are those of the source. An entry
    without a row has the code -1.

    Raises:
        DataError: missing labels, one class, too many, or an unknown positive.
    """
    advice = "; label them, or leave them out by data.unlabelled: drop"
    joined.check_complete("label", config.label, config.missing, advice)
    column = joined.table.columns[config.label]
    # The sealed rows must not decide which classes the model can say.
    known = joined.of_source(config.label)
    rows = dict(zip(known.values.to_pylist(), known.counts.tolist(), strict=True))
    counts = {name: rows[name] for name in sorted(rows)}
    classes = tuple(counts)
    check_classes(config, counts, joined)
    if config.positive and len(classes) == 2 and classes[0] == config.positive:
        classes = classes[::-1]
    class_code = {name: code for code, name in enumerate(classes)}
    codes = np.array([class_code.get(text, -1) for text in column.values.to_pylist()])
    label = codes[column.codes]
    if column.rows(label < 0):
        first = joined.row_name(config.label, label < 0)
        raise DataError(
            f"The label of {first} is a class that the source does not have"
            f"{shown_values(counts)}; data.label_map merges spellings."
        )
    return classes, label


def check_classes(
    config: DataConfig, counts: Mapping[str, int], joined: Joined
) -> None:
    """Refuses a label whose values, with their rows, are no classes.

    Raises:
        DataError: a single one, too many, one of too few rows, or no positive one.
    """
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
    most = min(MOST_CLASSES, max(2, joined.size // 2))
    if len(classes) > most:
        raise DataError(
            f"{where} has {len(classes)} distinct values in {joined.size} rows, at "
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
