"""Forest: boosted trees as LightGBM writes them, answered without LightGBM.

The text is what LightGBM, and whatever reads its models, loads: there is no second
form of a model that could depart from it. Every tree of it counts. A row's raw score
is the sum of its leaves, in double precision and in the order of the trees, as
LightGBM adds them, so that both give the same bits.

The leaf of a row is found without a walk (after Lucchese et al. 2015, "QuickScorer"):
a tree has at most 64 leaves, and what an input has to say rules some of them out. For
each interval between an input's cuts there is a word with a bit for each leaf that is
left; the words of all inputs together leave one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.errors import InputError
from safescale_ammt.files.memory import free_memory, in_units
from safescale_ammt.model.arithmetic import Floats
from safescale_ammt.model.tree_genome import MOST_LEAVES

Words = NDArray[np.uint64]
ROWS = 8192
"""Rows that are answered at once, as a cache holds their words."""
_HEAD = {"version": "v4", "label_index": "0"}
"""What a forest says that this version reads."""
_HEAD_ORDER = (
    *("version", "num_class", "num_tree_per_iteration", "label_index"),
    *("max_feature_idx", "objective", "feature_names", "feature_infos", "tree_sizes"),
)
_BY_SET, _MISSING_LEFT, _MISSING = 1, 2, 12
"""Bits of a cut's kind: by a set of levels, where missing goes, what counts as missing
(0: nothing, 8: NaN)."""
_NAN = 8
_ALL = (1 << 64) - 1
_SPARE = {
    *("split_gain", "leaf_weight", "leaf_count"),
    *("internal_value", "internal_weight", "internal_count"),
}
"""What no answer needs; some of it counts training rows, which may be few."""
_TREE = re.compile(r"^Tree=(\d+)\n(.*?)\n\n", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Cut:
    """An inner node.

    Attributes:
        feature: the input.
        at: greatest number that goes left; None where a set of levels does.
        levels: codes that go left.
        lacking: whether a missing value goes left.
        left: bits of the leaves on the left.
        right: bits of the leaves on the right.
    """

    feature: int
    at: float | None
    levels: NDArray[np.int64]
    lacking: bool
    left: int
    right: int


@dataclass(frozen=True)
class Tree:
    """One tree: its cuts, and the values of its leaves (leaves,)."""

    cuts: tuple[Cut, ...]
    values: Floats


@dataclass(frozen=True)
class Forest:
    """Boosted trees.

    Attributes:
        text: LightGBM's own.
        width: inputs of a row.
        outputs: scores of a row: tree t adds to score t modulo `outputs`.
        trees: in their order.
        members: boosters that were mixed.
    """

    text: str
    width: int
    outputs: int
    trees: tuple[Tree, ...]
    members: int = 1

    @classmethod
    def read(cls, text: str, where: object = "The text", members: int = 1) -> Forest:
        """Parses LightGBM's text, of so many boosters that were mixed.

        Raises:
            InputError: it is none, or holds what this version does not read.
        """
        try:
            head, blocks = sections(text)
            wrong = [key for key, value in _HEAD.items() if head[key] != value]
            outputs = int(head["num_tree_per_iteration"])
            trees = tuple(tree_of(fields) for fields in blocks)
            width = int(head["max_feature_idx"]) + 1
            used = max((c.feature for t in trees for c in t.cuts), default=0)
            if wrong or outputs < 1 or len(trees) % outputs or used >= width:
                raise ValueError(f"its head does not fit ({', '.join(wrong)})")
            forest = cls(text, width, outputs, trees, members)
            need, free = forest.size, free_memory()
        except (ValueError, KeyError, IndexError, OverflowError) as error:
            raise InputError(
                f"{where} is not the text of boosted trees that this version reads "
                f"({' '.join(str(error).split())[:200]})."
            ) from None
        if need > free:
            raise InputError(
                f"The trees in {where} take {in_units(need)} of memory to answer by, "
                f"{in_units(free)} are free."
            )
        return forest

    @property
    def size(self) -> int:
        """Bytes that the words of all trees take."""
        counts = {name: places.count for name, places in self._places.items()}
        used = ({cut.feature for cut in tree.cuts} for tree in self.trees)
        return 8 * sum(counts[name] for names in used for name in names)

    def raw(self, x: Floats) -> Floats:
        """Returns the raw scores (n, outputs) of rows (n, width)."""
        if x.shape[1] != self.width:
            raise InputError(
                f"The trees read {self.width} inputs, the rows have {x.shape[1]}."
            )
        total = np.zeros((self.outputs, len(x)))
        for at in range(0, len(x), ROWS):
            part = x[at : at + ROWS]
            places = {name: own(part[:, name]) for name, own in self._places.items()}
            each = zip(self.trees, self._words, strict=True)
            for i, (tree, words) in enumerate(each):
                left = np.full(len(part), (1 << len(tree.values)) - 1, np.uint64)
                for feature, own in words.items():
                    left &= own.take(places[feature])
                # One bit is left: those below it are as many as leaves before it.
                leaf = np.bitwise_count(left - np.uint64(1))
                total[i % self.outputs, at : at + ROWS] += tree.values.take(leaf)
        return total.T

    @cached_property
    def _places(self) -> Mapping[int, Intervals | Levels]:
        """How each input that is used is placed among its cuts."""
        by_feature: dict[int, list[Cut]] = {}
        for cut in (cut for tree in self.trees for cut in tree.cuts):
            by_feature.setdefault(cut.feature, []).append(cut)
        return {name: placed_by(cuts) for name, cuts in sorted(by_feature.items())}

    @cached_property
    def _words(self) -> list[dict[int, Words]]:
        """Of each tree, by input: the word of each place (places,)."""
        found = []
        for tree in self.trees:
            words: dict[int, Words] = {}
            for cut in tree.cuts:
                places = self._places[cut.feature]
                word = words.setdefault(
                    cut.feature, np.full(places.count, _ALL, np.uint64)
                )
                lost = np.where(places.goes_left(cut), cut.right, cut.left)
                word &= ~lost.astype(np.uint64)
            found.append(words)
        return found


class Intervals:
    """The places of numbers: intervals between cuts, then that of missing values."""

    def __init__(self, cuts: Floats) -> None:
        self._cuts = cuts
        self.count = len(cuts) + 2

    def __call__(self, x: Floats) -> NDArray[np.int64]:
        """Returns the place of each number (n,)."""
        # A number on a cut goes left, NaN lies behind all of them.
        found = np.searchsorted(self._cuts, x)
        return np.where(np.isnan(x), self.count - 1, found)

    def goes_left(self, cut: Cut) -> NDArray[np.bool_]:
        """Returns which places a cut sends left (places,)."""
        assert cut.at is not None
        left = np.arange(self.count) <= np.searchsorted(self._cuts, cut.at)
        left[-1] = cut.lacking
        return left


class Levels:
    """The places of levels: their codes, then that of every other number."""

    def __init__(self, last: int) -> None:
        self.count = last + 2

    def __call__(self, x: Floats) -> NDArray[np.int64]:
        """Returns the place of each code (n,)."""
        known = (x > -1) & (x < self.count - 1)
        return np.where(known, x, self.count - 1).astype(np.int64)

    def goes_left(self, cut: Cut) -> NDArray[np.bool_]:
        """Returns which places a set sends left (places,)."""
        left = np.zeros(self.count, np.bool_)
        left[cut.levels] = True
        return left


def placed_by(cuts: Sequence[Cut]) -> Intervals | Levels:
    """Returns the places of an input from all cuts of it."""
    numbers = [cut.at for cut in cuts if cut.at is not None]
    if not numbers:
        return Levels(max(int(cut.levels.max(initial=0)) for cut in cuts))
    if len(numbers) < len(cuts):
        raise ValueError("an input that is cut as a number and as a level")
    return Intervals(np.unique(numbers))


def sections(text: str) -> tuple[dict[str, str], Iterator[dict[str, str]]]:
    """Splits a text into its head and its trees, as fields by name."""
    head, begins, rest = text.partition("\n\nTree=")
    if not head.startswith("tree\n") or "end of trees" not in text:
        raise ValueError("no head, or no end")
    body = (begins + rest).partition("\nend of trees")[0]
    blocks = _TREE.findall(body + "\n\n")
    if [int(number) for number, _ in blocks] != list(range(len(blocks))):
        raise ValueError("trees are missing")
    if len(blocks) != len(re.findall(r"^Tree=", body, re.MULTILINE)):
        raise ValueError("a tree has no end")
    return fields_of(head), (fields_of(block) for _, block in blocks)


def fields_of(block: str) -> dict[str, str]:
    """Returns the lines `name=value` of a block, each name once."""
    pairs = [line.partition("=")[::2] for line in block.split("\n") if "=" in line]
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def tree_of(fields: Mapping[str, str]) -> Tree:
    """Makes a tree of its fields.

    Raises:
        ValueError: it is none.
        KeyError: a field is missing.
        IndexError: a node points to nowhere.
    """
    leaves, sets = int(fields["num_leaves"]), int(fields["num_cat"])
    values = np.array(fields["leaf_value"].split(), np.float64)
    if not 1 <= leaves <= MOST_LEAVES or fields.get("is_linear", "0") != "0":
        raise ValueError(f"a tree of {leaves} leaves, 1 to {MOST_LEAVES} are read")
    if len(values) != leaves or not np.isfinite(values).all():
        raise ValueError("a leaf without a finite value")
    if leaves == 1:
        return Tree((), values)
    names = ("split_feature", "decision_type", "left_child", "right_child")
    columns: list[list[int]] = [
        [int(v) for v in fields[name].split()] for name in names
    ]
    at = list(map(float, fields["threshold"].split()))
    if {len(at), *map(len, columns)} != {leaves - 1}:
        raise ValueError("a node without a cut")
    below: list[int] = [0] * (leaves - 1)
    cuts = []
    levels = level_sets(fields) if sets else []
    if len(levels) != sets:
        raise ValueError("sets of levels are missing")
    # A node stands before its children: from the last one on, theirs are known.
    for i in reversed(range(leaves - 1)):
        feature, kind, *children = (column[i] for column in columns)
        placed = (i < c < leaves - 1 or -leaves <= c < 0 for c in children)
        if feature < 0 or not all(placed):
            raise ValueError("a node out of order")
        bits = [below[c] if c >= 0 else 1 << ~c for c in children]
        if bits[0] & bits[1]:
            raise ValueError("a leaf with two parents")
        below[i] = bits[0] | bits[1]
        cuts.append(cut_of(feature, kind, at[i], levels, bits))
    if below[0] != (1 << leaves) - 1:
        raise ValueError("leaves that no row reaches")
    return Tree(tuple(reversed(cuts)), values)


def cut_of(
    feature: int,
    kind: int,
    at: float,
    levels: Sequence[NDArray[np.int64]],
    bits: Sequence[int],
) -> Cut:
    """Makes a cut of a node: `kind` as LightGBM packs it, `bits` left and right."""
    if kind & _BY_SET:
        # A list would take the last for -1.
        if at < 0 or not at.is_integer():
            raise ValueError("a set that is not there")
        return Cut(feature, None, levels[int(at)], False, bits[0], bits[1])
    # A cut between all numbers and what is missing lies at infinity.
    if kind & _MISSING not in {0, _NAN} or np.isnan(at):
        raise ValueError(f"a cut of kind {kind}")
    # Where nothing was missing in training, LightGBM takes what is for 0.
    lacking = bool(kind & _MISSING_LEFT) if kind & _MISSING else at >= 0
    none = np.empty(0, np.int64)
    return Cut(feature, at, none, lacking, bits[0], bits[1])


def level_sets(fields: Mapping[str, str]) -> list[NDArray[np.int64]]:
    """Returns the levels of each set of a tree, which stand as words of 32 bits."""
    ends = list(pairwise(map(int, fields["cat_boundaries"].split())))
    words = np.array(list(map(int, fields["cat_threshold"].split())), "<u4")
    if not all(0 <= low < high <= len(words) for low, high in ends):
        raise ValueError("a set of no levels")
    parts = (words[low:high].view(np.uint8) for low, high in ends)
    return [np.flatnonzero(np.unpackbits(part, bitorder="little")) for part in parts]


def mixture(texts: Sequence[str], shares: Sequence[float], objective: str) -> str:
    """Mixes boosters into one, whose raw score is the sum of theirs by share.

    Args:
        texts: LightGBM's, of boosters on the same inputs.
        shares: factor on the leaves of each; the trees of share 0 are left out.
        objective: by which LightGBM makes chances of raw scores.
    """
    blocks: list[str] = []
    for text, share in zip(texts, shares, strict=True):
        if share:
            for fields in sections(text)[1]:
                named = {"Tree": str(len(blocks)), **scaled(fields, share)}
                lines = "".join(f"{key}={value}\n" for key, value in named.items())
                blocks.append(lines + "\n\n")
    head = sections(texts[-1])[0]
    sizes = " ".join(str(len(block)) for block in blocks)
    # LightGBM asks for the field, and would name the ends of each column here.
    infos = " ".join(["none"] * (int(head["max_feature_idx"]) + 1))
    head |= {"objective": objective, "feature_infos": infos, "tree_sizes": sizes}
    lines = "".join(f"{key}={head[key]}\n" for key in _HEAD_ORDER)
    return f"tree\n{lines}\n{''.join(blocks)}end of trees\n"


def scaled(fields: Mapping[str, str], share: float) -> dict[str, Any]:
    """Returns a tree's fields, its leaves times a factor, without the spare ones."""
    found: dict[str, Any] = {k: v for k, v in fields.items() if k not in _SPARE}
    values = (share * float(v) for v in fields["leaf_value"].split())
    # Seventeen digits say a double to the last bit.
    found["leaf_value"] = " ".join(f"{value:.17g}" for value in values)
    return found
