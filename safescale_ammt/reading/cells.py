"""A cell as two 64-bit words that do not depend on who wrote the file, or read it.

What a config says (missing values, kinds, labels' names) has no part in it: a row is
to be known again under any config. `39`, `39.0`, `+39` and `3.9e1` are one value, as
are `true`, `TRUE` and `yes`, a day and its midnight, all spellings of a gap, and texts
that differ in white space, in Unicode's forms or in dots at their end (Adult's test
file writes `>50K.`). Texts that one column tells apart may become one here: a key may
find two rows equal that are not, and must not find a row new because it was written
anew. Case is kept: `F` and `f` may be two levels.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.reading.columns import Column
from safescale_ammt.reading.number_forms import PLAIN
from safescale_ammt.reading.spelling import canonical_alone, spelled, without_marks

Words = NDArray[np.uint64]
# `?` and `-` are words of old files, `nan` and the like are writers'.
_WORDS = dict.fromkeys(("nan", "na", "n/a", "<na>", "null", "none", "?", "-", "--"), "")
_WORDS |= dict.fromkeys(("true", "yes", "t", "y"), "1")
_WORDS |= dict.fromkeys(("false", "no", "f", "n"), "0")
_KEYS, _MEANT = pa.array(list(_WORDS)), pa.array(list(_WORDS.values()))
_LONGEST = max(map(len, _WORDS))
# Whole numbers of so many digits are doubles, and so are their parts after a point.
_DIGITS = 15
_SALTS = np.frombuffer(hashlib.sha256(b"safescale numbers").digest(), np.uint64)
_SALTS = _SALTS.reshape(2, 2)
_UNTIDY = r"[^ -~]|\s\s|\.$"
_COUNTED = r"^\D*?0*(\d{1,15})\D*$"
# A sequence with gaps and a few repeats is one still; random whole numbers in so
# narrow a range would repeat far more often.
_SPREAD = 10
_DISTINCT = 0.99


@dataclass(frozen=True)
class Cells:
    """The cells of one column.

    Attributes:
        codes: int32 (n,), the value of each row.
        words: uint64 (values, 2), hashes of the value's canonical text.
        numbers, texts: bool (values,); a gap is neither.
        counter: whether the column only numbers the rows (1 to n, `A0001` and on).
    """

    codes: NDArray[np.int32]
    words: Words
    numbers: NDArray[np.bool_]
    texts: NDArray[np.bool_]
    counter: bool

    @classmethod
    def of(cls, column: Column) -> Cells:
        """Hashes the cells of a column, each distinct text once."""
        column = canonical_cells(column)
        values = column.values
        number = pc.match_substring_regex(values, PLAIN)
        # Most columns of many distinct values hold numbers that a double tells apart:
        # to call sha256 for each of them would take longer than all the rest.
        short = np.asarray(
            pc.and_(number, pc.less_equal(pc.binary_length(values), _DIGITS)), bool
        )
        words = np.empty((len(values), 2), np.uint64)
        words[short] = number_words(values.filter(pa.array(short)))
        texts = values.filter(pa.array(~short)).cast(pa.binary()).to_pylist()
        data = b"".join([hashlib.sha256(text).digest()[:16] for text in texts])
        words[~short] = np.frombuffer(data, np.uint64).reshape(-1, 2)
        is_number = np.asarray(number, bool)
        is_text = ~is_number & np.asarray(pc.not_equal(values, ""), bool)
        return cls(column.codes, words, is_number, is_text, is_counter(column))

    @property
    def constant(self) -> bool:
        """Says whether all rows have one value: a column that tells no row apart."""
        return len(self.words) < 2

    def named(self, name: str) -> Words:
        """Returns words (values, 2) that only a column of this name has."""
        return salted(self.words, name)


def salted(words: Words, name: str) -> Words:
    """Makes words (n, 2) those of a column of this name alone.

    Of names, letters and digits count, in any case: `Marital Status` is
    `marital_status`.
    """
    name = re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", name).casefold())
    salt = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], np.uint64)
    return mixed(words + salt)


def number_words(texts: pa.StringArray) -> Words:
    """Returns words (n, 2) of canonical numbers, by the doubles that they spell."""
    bits = pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False).view(np.uint64)
    # The sum of two permutations has no inverse to write down, as one would have.
    return mixed(bits[:, None] + _SALTS[0]) + mixed(bits[:, None] ^ _SALTS[1])


def mixed(words: Words) -> Words:
    """Scatters words: the finaliser of splitmix64 (Steele, Lea & Flood 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(words ^ (words >> np.uint64(31)), dtype=np.uint64)


def cells_of(columns: Mapping[str, Column]) -> dict[str, Cells]:
    """Hashes the cells of every column."""
    return {name: Cells.of(column) for name, column in columns.items()}


def row_sums(columns: Iterable[tuple[Words, NDArray[np.int32]]]) -> Words:
    """Sums the words of every row, uint64 (n,) or (n, 2).

    Args:
        columns: words of the values and codes of the rows, of each column.
    """
    return reduce(add, (words[codes] for words, codes in columns))


def canonical_cells(column: Column) -> Column:
    """Spells every text of a column by itself."""
    values = column.values
    if pc.any(pc.match_substring_regex(values, _UNTIDY)).as_py():
        values = pc.utf8_normalize(values, "NFKC")
        values = pc.replace_substring_regex(values, r"\s+", " ")
        values = pc.utf8_rtrim(values, ". ")
    short = pc.less_equal(pc.binary_length(values), _LONGEST)
    known = pc.index_in(pc.utf8_lower(values.filter(short)), value_set=_KEYS)
    if known.null_count < len(known):
        words = pc.coalesce(_MEANT.take(known), values.filter(short))
        values = pc.replace_with_mask(values, short, words)
    if values is not column.values:
        column = column.mapped(values)
    return spelled(without_marks(column), canonical_alone)


def is_counter(column: Column) -> bool:
    """Says whether a column only numbers the rows, by a sequence of whole numbers.

    Such numbers are the same in tables that have nothing to do with each other.
    """
    values = column.values
    if len(values) < max(2, _DISTINCT * column.counts.sum()):
        return False
    if not pc.all(pc.match_substring_regex(values, _COUNTED)).as_py():
        return False
    digits = pc.replace_substring_regex(values, _COUNTED, r"\1")
    numbers = pc.unique(pc.cast(digits, pa.int64()))
    spread = pc.max(numbers).as_py() - pc.min(numbers).as_py() + 1
    return bool(
        spread <= _SPREAD * len(numbers) and len(numbers) >= _DISTINCT * len(values)
    )
