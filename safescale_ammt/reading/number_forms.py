"""Texts that are numbers in another dress: `1.234,56 EUR`, `12 %`, `(5)`, `1'234`.

A form is learnt from all distinct development texts of a column, and only where no
other form reads one of them as another number: `1,234` alone may be either. Signs of
currency are those of ISO 4217 and Unicode's class Sc; nothing depends on a locale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

PLAIN = r"^[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?$"
"""A number as programs write it: its point is the decimal sign in every column."""
SCALES = {"%": "e-2", "‰": "e-3"}
"""Parts of a whole as exponents: 12 % is 0.12."""
SIGNS = {".": "decimal point", ",": "decimal comma"}
"""Decimal signs by name, for sentences."""
# Codes that stand close to the digits as well; the others need a space before them,
# since `TOP123` is rather an article than an amount of pa'anga.
_CLOSE = "USD|EUR|GBP|JPY|CHF|CNY|INR|AUD|SEK|NOK|DKK|PLN"
_CODES = (
    "AED|AFN|ALL|AMD|ANG|AOA|ARS|AWG|AZN|BAM|BBD|BDT|BGN|BHD|BIF|BMD|BND|BOB|BRL|BSD|"
    "BTN|BWP|BYN|BZD|CAD|CDF|CLP|COP|CRC|CUP|CVE|CZK|DJF|DOP|DZD|EGP|ERN|ETB|FJD|FKP|"
    "GEL|GHS|GIP|GMD|GNF|GTQ|GYD|HKD|HNL|HTG|HUF|IDR|ILS|IQD|IRR|ISK|JMD|JOD|KES|KGS|"
    "KHR|KMF|KPW|KRW|KWD|KYD|KZT|LAK|LBP|LKR|LRD|LSL|LYD|MAD|MDL|MGA|MKD|MMK|MNT|MOP|"
    "MRU|MUR|MVR|MWK|MXN|MYR|MZN|NAD|NGN|NIO|NPR|NZD|OMR|PAB|PEN|PGK|PHP|PKR|PYG|QAR|"
    "RON|RSD|RUB|RWF|SAR|SBD|SCR|SDG|SGD|SHP|SLE|SOS|SRD|SSP|STN|SVC|SYP|SZL|THB|TJS|"
    "TMT|TND|TOP|TRY|TTD|TWD|TZS|UAH|UGX|UYU|UZS|VES|VND|VUV|WST|XAF|XCD|XOF|XPF|YER|"
    "ZAR|ZMW|ZWG"
)
_SIGN = rf"[A-Z]{{0,3}}\p{{Sc}}|%|‰|zł|Kč|kr|Fr|{_CLOSE}"
# One sign and its code are one currency.
_SAME = {"€": "EUR", "£": "GBP", "₹": "INR", "US$": "USD", "zł": "PLN", "Kč": "CZK"}
# Where these are paid, a comma parts thousands and never three decimals.
_OF_POINT = "$|USD|GBP|AUD|A$|NZD|NZ$|HKD|HK$|SGD|S$|INR|JPY|CNY|¥|KRW|₩|ILS|₪"
_BODY = r"\d[\d.,' ]*\d|\d|[.,]\d+"
_FORM = (
    rf"^\(?[+-]? ?(?:(?:{_SIGN}|(?:{_CODES}) ) ?)?[+-]?\(?(?:{_BODY})"
    rf" ?\)?-? ?(?:{_SIGN}|{_CODES})?\)?$"
)
_UNIT = rf"^(?:{_SIGN}|{_CODES})?$"
# Thousands by threes, or as in India; without a leading zero, which is a code's.
_BY_SPACE, _BY_QUOTE, _BY_COMMA, _BY_POINT = (
    rf"[1-9]\d{{0,2}}(?:{sign}\d{{3}})+" for sign in (" ", "'", ",", "[.]")
)
_WHOLE = rf"0|[1-9]\d*|{_BY_SPACE}|{_BY_QUOTE}"
_INDIAN = r"[1-9]\d?(?:,\d\d)+,\d{3}"
_BODIES = {
    ".": rf"^(?:(?:{_WHOLE}|{_BY_COMMA}|{_INDIAN})(?:\.\d+)?|\.\d+)$",
    ",": rf"^(?:(?:{_WHOLE}|{_BY_POINT})(?:,\d+)?|,\d+)$",
}
MIXED = "its numbers do not all have one sign of currency or percent"
"""Why a column of `$5` and `€5`, or of `5%` and `5`, is none either."""
AMBIGUOUS = "a comma or point before three digits may be a decimal sign or not"
"""Why a column of `1,234` alone is no column of numbers."""
# A number that a reader has understood is not read again by a column's form.
_UNDERSTOOD = r"^([+-]?[1-9]\d{0,2}\.\d{3})$"
_MARKED = r"^([+-]?[1-9]\d{0,2}\.\d{3})e0$"


class _Parts(NamedTuple):
    """The parts of texts: `fits`, and for those that do sign, digits and unit."""

    fits: pa.BooleanArray
    minus: pa.BooleanArray
    body: pa.StringArray
    unit: pa.StringArray


def _parts(texts: pa.StringArray) -> _Parts:
    # Word processors write other spaces, apostrophes and minus signs than keyboards.
    for some, one in (("[\u00a0\u2000-\u200a\u202f\u205f]", " "), ("[’ʼ´`]", "'")):
        texts = pc.replace_substring_regex(texts, some, one)
    for some, one in (("\u2212", "-"), ("Fr.", "Fr")):
        texts = pc.replace_substring(texts, some, one)
    # By matching and leaving out alone: RE2 needs fifty times longer for groups.
    body = pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, r"[^\d.,' ]", ""))
    unit = pc.replace_substring_regex(texts, r"[\d.,' ()+-]", "")
    opened, closed = (pc.count_substring(texts, sign) for sign in "()")
    signs = pc.add(pc.count_substring_regex(texts, "[+-]"), opened)
    fits = pc.and_(pc.equal(opened, closed), pc.less_equal(signs, 1))
    for pattern, part in ((_FORM, texts), (_UNIT, unit)):
        fits = pc.and_(fits, pc.match_substring_regex(part, pattern))
    for sign, code in _SAME.items():
        unit = pc.if_else(pc.equal(unit, sign), code, unit)
    return _Parts(fits, pc.match_substring_regex(texts, "[-(]"), body, unit)


@dataclass(frozen=True)
class NumberForm:
    """How the numbers of a column are written.

    Attributes:
        decimal: the decimal sign; what parts thousands is clear from it.
        unit: sign or code of a currency, %, ‰; "" = none.
    """

    decimal: str
    unit: str = ""
    # As programs write numbers, they have no form.
    is_iso: ClassVar[bool] = False

    def parse(self, texts: pa.StringArray) -> pa.StringArray:
        """Spells texts as programs write numbers; null where they have another form."""
        return self.spell(texts, _parts(texts))

    def spell(self, texts: pa.StringArray, parts: _Parts) -> pa.StringArray:
        """Spells texts whose parts are known already."""
        fits = pc.match_substring_regex(parts.body, _BODIES[self.decimal])
        same = pc.equal(parts.unit, self.unit)
        if self.unit not in SCALES:
            # An amount without its sign is that amount; 12 without % is not 0.12.
            same = pc.or_(same, pc.equal(parts.unit, ""))
        fits = pc.and_(pc.and_(parts.fits, fits), same)
        digits = pc.replace_substring_regex(parts.body, f"[^0-9{self.decimal}]", "")
        digits = pc.replace_substring(digits, self.decimal, ".")
        sign = pc.if_else(parts.minus, "-", "")
        scale = SCALES.get(self.unit, "")
        spelled = pc.binary_join_element_wise(sign, digits, pa.scalar(scale), "")
        found = pc.if_else(fits, spelled, None)
        if self.unit in SCALES:
            return found
        plain = pc.match_substring_regex(texts, PLAIN)
        return pc.coalesce(found, pc.if_else(plain, texts, None))

    def writes(self, parts: _Parts) -> bool:
        """Says whether one hand that writes this form wrote all texts.

        `1.5` is a plain number in any column, but beside `1,5` of another hand.
        """
        own = pc.match_substring_regex(parts.body, _BODIES[self.decimal])
        return bool(pc.all(pc.or_(own, pc.invert(parts.fits))).as_py())

    def unsure(self, texts: pa.StringArray) -> pa.BooleanArray:
        """Says which texts of one file's column may have a decimal point: `1.234`.

        Where `0.5` or `1234.5` stand beside it, a program wrote the column, which
        parts no thousands; the reading of a text must not depend on its neighbours.
        """
        plain = pc.match_substring_regex(texts, PLAIN)
        point = pc.and_(plain, pc.match_substring(texts, "."))
        thousands = pc.match_substring_regex(texts, rf"^[+-]?{_BY_POINT}$")
        if self.decimal == "." or not pc.any(pc.and_not(point, thousands)).as_py():
            return pa.array(np.zeros(len(texts), bool))
        return pc.match_substring_regex(texts, _UNDERSTOOD)

    def __str__(self) -> str:
        """Says what was assumed, for a sentence."""
        said = f"numbers with a {SIGNS[self.decimal]}"
        scale = SCALES.get(self.unit)
        value = f" (1 {self.unit} is 1{scale})" if scale else ""
        return f"{said} and the sign {self.unit}{value}" if self.unit else said


def number_form(texts: pa.StringArray, declared: str = "") -> NumberForm | str | None:
    """Finds the one form in which all distinct texts of a column are numbers.

    Args:
        texts: distinct, without missing ones.
        declared: the decimal sign if the config says it.

    Returns:
        The form; or why it is not certain, as the end of a sentence; None if some text
        is no number, or all are as programs write them.
    """
    plain = pc.match_substring_regex(texts, PLAIN)
    parts = _parts(texts)
    likely = pc.all(pc.or_(plain, parts.fits)).as_py() and len(texts) > 0
    if not likely or pc.all(plain).as_py():
        return None
    units = {*pc.unique(parts.unit.filter(parts.fits)).to_pylist()}
    unit = max(units, default="")
    if len(units - {""}) > 1 or (unit in SCALES and "" in units):
        return MIXED
    read = {
        form: spelled
        for form in (NumberForm(sign, unit) for sign in declared or SIGNS)
        if not (spelled := form.spell(texts, parts)).null_count
        and (declared or form.writes(parts))
    }
    first = next(iter(read), None)
    if first is None or all(read[first].equals(other) for other in read.values()):
        return first
    points = pc.any(pc.match_substring(parts.body, ".")).as_py()
    return first if unit in _OF_POINT.split("|") and not points else AMBIGUOUS


def number_share(texts: pa.StringArray) -> pa.BooleanArray:
    """Says which texts are numbers in some form."""
    plain, parts = pc.match_substring_regex(texts, PLAIN), _parts(texts)
    # 31.12.2020 has signs of a number and is none.
    bodies = [pc.match_substring_regex(parts.body, form) for form in _BODIES.values()]
    return pc.or_(plain, pc.and_(parts.fits, pc.or_(*bodies)))


def marked(texts: pa.StringArray) -> pa.StringArray:
    """Marks numbers that a column's form would read as thousands: 1.234 as 1.234e0."""
    return pc.replace_substring_regex(texts, _UNDERSTOOD, r"\1e0")


def marked_codes(coded: pa.ChunkedArray) -> pa.ChunkedArray:
    """Marks the distinct texts of dictionary-coded numbers."""
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices, marked(chunk.dictionary))
        for chunk in coded.chunks
    ]
    return pa.chunked_array(chunks, coded.type)


def unmarked(texts: pa.StringArray) -> pa.StringArray:
    """Undoes `marked`."""
    return pc.replace_substring_regex(texts, _MARKED, r"\1")
