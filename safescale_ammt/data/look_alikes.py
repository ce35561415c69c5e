"""Levels that look like one value in two spellings: `F`, `f` and `female`.

They are counted and named to people, never merged: whether `M` is `male` or `married`
only they know. `data.merges` and `data.label_map` say so.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from safescale_ammt.data.shown import values_to_show
from safescale_ammt.reading.columns import Column

SHORT = 3
"""Letters of an abbreviation, at most."""
_BETWEEN = re.compile(r"(?<=[^\W\d_])[\s\-_/.,']+(?=[^\W\d_])")
# Blanks beside a sign: `30 %`, `< 50` and `18 - 30` are `30%`, `<50` and `18-30`.
_BESIDE_SIGNS = re.compile(r"(?<=[^\w\s])\s+|\s+(?=[^\w\s])")
# Signs and letters of other scripts that are drawn alike, once case is folded.
_DRAWN_ALIKE = str.maketrans(
    "\u2010\u2011\u2012\u2013\u2014\u2212\u2018\u2019"
    "\u0430\u0435\u043a\u043c\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458"
    "\u03b1\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c7",
    "------''aekmopctyxijaeikvoptx",
)
# Two letters are a word's abbreviation in no language but here.
_SHORT_WORDS = ("no",)


def folded(text: str) -> str:
    """Leaves of a text what is heard: no case, accents, or signs between letters.

    Nor characters that are not drawn, and letters that are drawn like others become
    these. Signs beside digits and at the end stay: `A-` is no `A`, and `<50` no `50`.
    """
    parts = unicodedata.normalize("NFKD", text.casefold()).translate(_DRAWN_ALIKE)
    plain = "".join(c for c in parts if unicodedata.category(c) not in ("Mn", "Cf"))
    plain = _BESIDE_SIGNS.sub("", " ".join(plain.split()))
    return re.sub(r"\.$", "", re.sub(_BETWEEN, "", plain))


def alike_pairs(levels: list[str]) -> tuple[int, list[str]]:
    """Counts pairs of levels that look alike, and lists the levels in such pairs.

    Two do if they are equal once folded, or if one has at most three letters and is the
    beginning of the other and of no other word.

    Args:
        levels: distinct texts.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for level in levels:
        groups[folded(level)].append(level)
    longer: dict[str, list[str]] = defaultdict(list)
    for word in groups:
        if word.isalpha() and (len(word) >= SHORT or word in _SHORT_WORDS):
            for size in range(1, min(SHORT, len(word) - 1) + 1):
                longer[word[:size]].append(word)
    pairs = sum(len(same) * (len(same) - 1) // 2 for same in groups.values())
    found = [same for same in groups.values() if len(same) > 1]
    for short, same in groups.items():
        words = longer.get(short, [])
        if len(words) == 1:
            pairs += len(same) * len(groups[words[0]])
            found += [same, groups[words[0]]]
    return pairs, sorted({level for same in found for level in same})


def look_alikes(
    columns: Mapping[str, Column], declared: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Counts by column the pairs of levels that look alike.

    Args:
        columns: development rows of label, groups and categorical inputs.
        declared: names of the columns whose values the config calls levels.

    Returns:
        By column that has such pairs: `pairs`, and `levels` where they may be shown.
    """
    noted: dict[str, dict[str, Any]] = {}
    for name, column in columns.items():
        levels = column.values.to_pylist()
        pairs, alike = alike_pairs(levels)
        if pairs:
            rows = column.counts.tolist()
            shown = values_to_show(dict(zip(levels, rows, strict=True)))
            noted[name] = {"pairs": pairs}
            if names := [level for level in alike if level in shown]:
                noted[name] |= {"levels": names} if name in declared else {}
    return noted
