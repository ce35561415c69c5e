"""One spelling for one value, whatever file it came in.

The same table is `True` in one CSV file, `true` in another and a boolean in
Parquet; a gap turns a column of whole numbers into `1.0`; midnight has a form for
every unit of time. What kind of value a column holds is decided by the texts of the
development table, never by the rows at hand, and travels in `schema.json`: a sealed
file, the files of one folder and a single row are then spelled by the same rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.config.sections import DataConfig, Merge
from safescale_ammt.errors import ConfigError
from safescale_ammt.reading.columns import Column, RawTable
from safescale_ammt.reading.number_forms import unmarked

Named = TypeVar("Named", str, float)
Kind = Literal["boolean", "number", "time", "text"]
Kinds = Mapping[str, Kind]
KINDS: tuple[Kind, ...] = ("boolean", "number", "time", "text")
_BOOLEANS = ("true", "false")
# A leading zero has a meaning (a postal code, an account) that a number loses.
_NUMBER = re.compile(
    r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
)
_NOT_FINITE = re.compile(r"([+-]?)(inf(?:inity)?|nan)", re.IGNORECASE)
_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)? ?(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)
_ZEROS_AT_THE_END = r"^[+-]?[0-9]*\.[0-9]*[1-9]0+$"
# For Arrow, which needs a tenth of Python's time for a column of distinct floats. RE2
# reads these patterns as Python does.
_FORMS: Mapping[Kind, str] = {
    "boolean": r"^(?i:true|false)$",
    "number": rf"^(?:{_NUMBER.pattern}|(?i:{_NOT_FINITE.pattern}))$",
    "time": rf"^(?:{_TIME.pattern})$",
}
# Spellings of a missing value that are none of the declared ones are few.
_MOST_OTHERS = 100
# Beyond so many digits nobody counts in whole numbers: 1e300 is a measurement.
_MOST_DIGITS = 40
# Most texts are no candidates, or plain numbers of at most 15 digits, which a double
# tells apart: they are canonical already, and Arrow sees it without a Python object.
_CANDIDATE = r"^[+\-.0-9]|^(?i:true|false|inf|infinity|nan)$"
_PLAIN = (
    r"^(?:0|-?[1-9]\d{0,38}|-?[1-9]\d{0,6}\.\d{0,7}[1-9]"
    r"|-?0\.0{0,3}[1-9](?:\d{0,9}[1-9])?)$"
)


def kind_of(texts: pa.StringArray, missing: Collection[str] = ()) -> Kind:
    """Says what kind of value the distinct texts of a column spell.

    Args:
        texts: distinct texts.
        missing: spellings of a missing value, canonical ones among them.
    """
    absent = pc.is_in(texts, value_set=pa.array(list(missing), pa.string()))
    present = texts.filter(pc.invert(absent))
    for kind, form in _FORMS.items():
        fits = pc.match_substring_regex(present, form)
        others = present.filter(pc.invert(fits))
        if len(others) == len(present) or len(others) > _MOST_OTHERS:
            continue
        # A gap beside it makes -999.0 of -999, which is missing all the same.
        if all(canonical_alone(text) in missing for text in others.to_pylist()):
            likely = present.filter(fits)
            # A 30th of February has the form of a time and is none.
            if kind == "time":
                days = map(instant, likely.to_pylist())
                return kind if all(day is not None for day in days) else "text"
            # A writer with fixed decimals ends all its texts in zeros, but none writes
            # 1.1 beside 1.10: these are versions.
            longer = likely.filter(pc.match_substring_regex(likely, _ZEROS_AT_THE_END))
            twins = pc.is_in(pc.utf8_rtrim(longer, "0"), value_set=likely)
            return "text" if pc.any(twins).as_py() else kind
    return "text"


def canonical(text: str, kind: Kind) -> str:
    """Returns the one spelling of a value; a text of another kind stays as it is."""
    if kind == "boolean" and text.lower() in _BOOLEANS:
        return text.lower()
    if kind == "number":
        return _number(text)
    return (instant(text) or text) if kind == "time" else text


def canonical_alone(text: str) -> str:
    """Returns the one spelling of a text whose column nobody knows."""
    if text.lower() in _BOOLEANS:
        return text.lower()
    number = _number(text)
    return number if number != text else instant(text) or text


def _number(text: str) -> str:
    """Spells a number by its value: 1 for 1.0, +1 and 1e0."""
    if not _NUMBER.fullmatch(text):
        special = _NOT_FINITE.fullmatch(text)
        return repr(float(text)) if special else text
    exact = Decimal(text)
    if exact.adjusted() < _MOST_DIGITS and exact != exact.to_integral_value():
        # The digits that tell this double from its neighbours; they may be whole.
        exact = Decimal(repr(float(text)))
    if exact == 0:
        return "0"
    if exact.adjusted() < _MOST_DIGITS and exact == exact.to_integral_value():
        # A whole number keeps its digits beyond 2**53, where doubles lose some.
        return format(exact.to_integral_value(), "f")
    return repr(float(text))


def instant(text: str) -> str | None:
    """Spells an ISO time: the day alone at midnight, UTC with Z; None if it is none."""
    match = _TIME.fullmatch(text)
    if not match:
        return None
    *parts, fraction, zone = match.groups()
    try:
        when = datetime(*(int(part or 0) for part in parts))  # type: ignore[arg-type] # noqa: DTZ001
        if zone and zone != "Z":
            minutes = int(zone[1:3]) * 60 + int(zone[3:].lstrip(":") or 0)
            when -= timedelta(minutes=minutes if zone[0] == "+" else -minutes)
    except (ValueError, OverflowError):
        return None
    # No unit of time writes zeros at the end of a fraction that another one keeps.
    fraction = (fraction or "").rstrip("0")
    clock = f"{when:%H:%M:%S}" + (f".{fraction}" if fraction else "")
    day = f"{when.year:04}-{when:%m-%d}"
    if zone:
        return f"{day} {clock}Z"
    return day if clock == "00:00:00" else f"{day} {clock}"


def spelled(column: Column, spell: Callable[[str], str]) -> Column:
    """Spells the values of a column anew."""
    able = pc.match_substring_regex(column.values, _CANDIDATE)
    plain = pc.match_substring_regex(column.values, _PLAIN)
    index = pc.indices_nonzero(pc.and_not(able, plain))
    texts = column.values.take(index)
    # Doubles in the fewest digits that tell them apart are canonical too.
    fractions = pc.match_substring_regex(texts, r"^-?(?:0|[1-9]\d*)\.\d*[1-9]$")
    x = pc.cast(pc.if_else(fractions, texts, None), pa.float64())
    # Arrow and Python print the same digits, and both without an exponent from here.
    ordinary = pc.and_(pc.greater(pc.abs(x), 1e-3), pc.less(pc.abs(x), 1e9))
    shortest = pc.and_(ordinary, pc.equal(pc.cast(x, pa.string()), texts))
    index = index.filter(pc.invert(pc.fill_null(shortest, False)))
    old = column.values.take(index).to_pylist()
    new = [spell(text) for text in old]
    if new == old:
        return column
    mask = np.zeros(len(column.values), np.bool_)
    mask[index.to_numpy()] = True
    replaced = pc.replace_with_mask(column.values, mask, pa.array(new, pa.string()))
    return column.mapped(replaced)


def spelled_as(column: Column, kind: Kind) -> Column:
    """Spells a column as values of one kind."""
    if kind == "text":
        return column
    if kind == "number":
        column = without_marks(column)
    return spelled(column, lambda text: canonical(text, kind))


def without_marks(column: Column) -> Column:
    """Undoes the marks of numbers that a reader has understood: 1.234e0 is 1.234.

    A column of doubles has so many that to spell them one by one takes seconds.
    """
    plain = unmarked(column.values)
    return column if plain.equals(column.values) else column.mapped(plain)


def missing_words(missing: Collection[str]) -> tuple[str, ...]:
    """Returns the declared spellings of a missing value, and how they are spelled."""
    return tuple(dict.fromkeys([*missing, *map(canonical_alone, missing)]))


def learn_kinds(table: RawTable, missing: Collection[str]) -> dict[str, Kind]:
    """Decides what kind of value every column of the development table holds."""
    words = missing_words(missing)
    return {name: kind_of(c.values, words) for name, c in table.columns.items()}


def spelled_table(table: RawTable, kinds: Kinds) -> RawTable:
    """Spells every column of a table by the kinds of the development table."""
    columns = {
        name: spelled_as(column, kinds.get(name, "text"))
        for name, column in table.columns.items()
    }
    return replace(table, columns=columns)


def spelled_config(config: DataConfig, kinds: Kinds) -> DataConfig:
    """Spells the values that a config names as the columns that hold them.

    Raises:
        ConfigError: one value under two spellings that mean different things.
    """
    label_kind = kinds.get(config.label, "text")
    merges: dict[str, Merge] = {}
    for name, merge in config.merges.items():
        merges[name] = merge
        values = merge.get("values")
        # Another form than a merge's is refused where groups are made.
        if isinstance(values, Mapping) and merge.get("column") in kinds:
            kind = kinds[merge["column"]]
            words = _spelled_keys(f"data.merges.{name}.values", values, kind)
            merges[name] = {**merge, "values": words}
    positive = config.positive
    # A name that the config itself gives is no text of the column.
    if positive not in {*config.label_map.values(), config.label_other}:
        positive = canonical(positive, label_kind)
    return replace(
        config,
        positive=positive,
        merges=merges,
        population={
            name: _spelled_keys(
                f"data.population.{name}", shares, kinds.get(name, "text")
            )
            for name, shares in config.population.items()
        },
        label_map=_spelled_keys("data.label_map", config.label_map, label_kind),
        missing=missing_words(config.missing),
    )


def _spelled_keys(
    where: str, names: Mapping[str, Named], kind: Kind
) -> dict[str, Named]:
    new: dict[str, Named] = {}
    for old, name in names.items():
        # Of 1 and 1.0 the later one would win without a word.
        if new.setdefault(canonical(str(old), kind), name) != name:
            raise ConfigError(
                f"{where} maps {old!r} to {name!r}, and another spelling of the same "
                "value to another name; keep one of them."
            )
    return new
