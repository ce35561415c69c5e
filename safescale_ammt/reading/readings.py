"""How columns of text are read: as numbers or dates, where one reading is certain.

The development rows decide, by distinct texts; sealed rows, other files and rows to
predict are read by the same forms, which travel in `schema.json`. What two readings
fit stays text, and a sentence says which key of the config would settle it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.date_forms import (
    ORDERS,
    DateForm,
    date_form,
    date_share,
)
from safescale_ammt.reading.number_forms import (
    AMBIGUOUS,
    SIGNS,
    NumberForm,
    number_form,
    number_share,
)
from safescale_ammt.reading.spelling import Kinds, spelled_as, without_marks

Form = NumberForm | DateForm
_NEARLY = 0.9
"""Share of the rows that are numbers from which the others are worth a word."""


@dataclass(frozen=True)
class Readings:
    """What the development rows say about columns of text.

    Attributes:
        forms: by column that is read as numbers or dates.
        unclear: why a column stays text that nearly is something else, by column; the
            end of a sentence, with the remedy.
    """

    forms: Mapping[str, Form] = field(default_factory=dict)
    unclear: Mapping[str, str] = field(default_factory=dict)


def learn_readings(config: DataConfig, table: RawTable, kinds: Kinds) -> Readings:
    """Finds the columns of a development table that are numbers or dates.

    Args:
        config: declared forms, and the columns that stay text.
        table: spelled by kinds.
        kinds: of its columns.
    """
    forms: dict[str, Form] = {}
    unclear = {}
    for name, column in table.columns.items():
        kind = kinds.get(name, "text")
        declared = name in config.numbers or name in config.dates
        if not declared and (name in config.text_columns or kind != "text"):
            # A label, a group or a level is told by its text.
            if kind != "time" or name in {*config.text_columns, *config.numeric}:
                continue
            found: Form | str | None = iso_form(column, config.missing)
        else:
            found = column_form(config, name, column)
        if isinstance(found, str):
            unclear[name] = found
        elif found:
            forms[name] = found
    return Readings(forms, unclear)


def iso_form(column: Column, missing: Collection[str]) -> DateForm | str | None:
    """The form of a column of ISO times, or why it has none."""
    zoned = pc.unique(pc.ends_with(present(column, missing), "Z")).to_pylist()
    if len(zoned) > 1:
        return (
            "some of its times name a zone and some do not; write all with one or none"
        )
    return DateForm(zoned=zoned[0]) if zoned else None


def column_form(config: DataConfig, name: str, column: Column) -> Form | str | None:
    """Finds the form of a column of text, or why it is unclear and what settles it."""
    texts = present(column, config.missing)
    if name in config.numbers:
        sign = config.numbers[name]
        form = number_form(texts, sign)
        # What does not fit a declared form is counted where the column is typed.
        return form if isinstance(form, NumberForm) else NumberForm(sign)
    if name in config.dates:
        order = config.dates[name]
        dates = date_form(texts.to_pylist(), order)
        return dates if isinstance(dates, DateForm) else DateForm(order)
    number = number_form(texts, config.decimal)
    if isinstance(number, str):
        settles = f'data.numbers: {{{name}: "."}} or {{{name}: ","}} says which'
        if number != AMBIGUOUS:
            settles = "write them all with one sign or none"
        return f"{number}; {settles}, or data.categorical that it is text"
    if number or name in config.numeric:
        return number
    date = date_form(texts.to_pylist())
    if isinstance(date, str):
        return (
            f"{date}; data.dates: {{{name}: dmy}}, mdy or ymd says which, or "
            "data.categorical that it is text"
        )
    return date or nearly_read(config, column)


def nearly_read(config: DataConfig, column: Column) -> str | None:
    """Says that a column is text because of a few of its rows, or of two forms."""
    absent = column.among(config.missing)
    for what, share in (("numbers", number_share), ("dates", date_share)):
        like = np.asarray(share(column.values), bool)[column.codes]
        rows, present = column.rows(like & ~absent), column.rows(~absent)
        # Of numbers as programs write them, some texts may be versions: 1.10 and 1.1.
        if 0 < present == rows and column.numbers(config.missing) is None:
            return (
                f"all of its values are {what}, and no one form reads them all; write "
                "them in one, or data.categorical says that it is text"
            )
        # A leading zero or one text in all is a code and no slip.
        if present and _NEARLY * present <= rows < present:
            return (
                f"{rows} of its {present} values are {what} and the others are not; "
                "data.missing names what is a missing value, and data.categorical says "
                "that it is text"
            )
    return None


def present(column: Column, missing: Collection[str]) -> pa.StringArray:
    """Returns the distinct texts of a column that are no missing value."""
    absent = pc.is_in(column.values, value_set=pa.array(list(missing), pa.string()))
    return column.values.filter(pc.invert(absent))


def form_of(fields: Mapping[str, Any]) -> Form:
    """Makes a form of its fields, as `schema.json` has them.

    Raises:
        TypeError: a key that no form has.
        KeyError: a value that no form has.
    """
    form: Form = DateForm(**fields) if "order" in fields else NumberForm(**fields)
    known = SIGNS if isinstance(form, NumberForm) else ORDERS
    first = form.decimal if isinstance(form, NumberForm) else form.order
    if first not in known:
        raise KeyError(first)
    return form


def read_as(
    column: Column, form: Form, missing: Collection[str]
) -> tuple[Column, NDArray[np.bool_]]:
    """Reads a column by a form.

    Args:
        column: spelled by the kind of its column.
        form: of the development rows.
        missing: spellings of a missing value.

    Returns:
        The column as programs write numbers or ISO times, and a mask (n,) of the rows
        whose text has another form; these keep it.
    """
    absent = pc.is_in(column.values, value_set=pa.array(list(missing), pa.string()))
    parsed = form.parse(column.values)
    wrong = pc.and_(pc.is_null(parsed), pc.invert(absent))
    kept = pc.or_(absent, pc.is_null(parsed))
    read = column.mapped(pc.if_else(kept, column.values, parsed))
    if isinstance(form, NumberForm):
        read = spelled_as(read, "number")
    return read, np.asarray(wrong, dtype=bool)[column.codes]


def settled_commas(
    sealed: RawTable, source: RawTable, missing: Collection[str]
) -> RawTable:
    """Reads commas of sealed rows that may be decimal signs as those of the source.

    Where no comma parts the fields of either, the source's clear columns decide.
    """
    names = sealed.unclear & source.commas
    return read_columns(sealed, dict.fromkeys(names, NumberForm(",")), missing)


def read_columns(
    table: RawTable, forms: Mapping[str, Form], missing: Collection[str]
) -> RawTable:
    """Reads every column that has a form; texts of another form stay as they are."""
    columns = {
        name: read_as(column, forms[name], missing)[0]
        if name in forms
        else without_marks(column)
        for name, column in table.columns.items()
    }
    return replace(table, columns=columns)
