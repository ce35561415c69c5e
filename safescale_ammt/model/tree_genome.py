"""Tree genomes: the settings of boosted trees, where nets have an architecture.

A genome is what LightGBM is told of its trees: how many leaves each may have, how few
rows a leaf, how far leaves are pulled to 0, how long a step is and how many steps are
taken. The search mutates what is written here; `trees` boosts by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import log2
from typing import Any, ClassVar

from safescale_ammt.errors import InputError
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.module_genome import KIND as MODULE
from safescale_ammt.model.module_genome import ModuleGenome

MOST_LEAVES = 64
"""Leaves of a tree: as many as a word has bits, by which `forest` finds the leaf."""
MOST_ROUNDS = 5000
_SCHEMA, _KIND = 1, "trees"


@dataclass(frozen=True)
class TreeGenome:
    """Settings of boosted trees; the defaults did best on Adult's development rows.

    Attributes:
        leaves: most leaves of a tree, 2 to 64.
        least_rows: rows that a leaf has at least.
        l2: pull of the leaves to 0, in units of curvature.
        rate: share of each tree that is added, in (0, 1].
        rounds: trees of a booster, of each class if there are three or more.
    """

    encoding: ClassVar[str] = "raw"
    leaves: int = 15
    least_rows: int = 20
    l2: float = 0.0
    rate: float = 0.05
    rounds: int = 300

    def __post_init__(self) -> None:
        """Checks types and ranges.

        Raises:
            InputError: a field has the wrong type or lies outside its range.
        """
        most = {"leaves": MOST_LEAVES, "least_rows": 10**6, "rounds": MOST_ROUNDS}
        for key, top in most.items():
            value, least = getattr(self, key), 2 if key == "leaves" else 1
            if type(value) is not int or not least <= value <= top:
                raise InputError(
                    f"genome.{key} is {value!r}, expected a whole number from {least} "
                    f"to {top}."
                )
        for key, low, end in (("l2", 0.0, 1e6), ("rate", 1e-4, 1.0)):
            value = getattr(self, key)
            if type(value) not in {int, float} or not low <= value <= end:
                raise InputError(
                    f"genome.{key} is {value!r}, expected a number in "
                    f"[{low:g}, {end:g}]."
                )

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {"schema": _SCHEMA, "kind": _KIND, **asdict(self)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TreeGenome:
        """Parses the JSON form; whole numbers may arrive as floats.

        Raises:
            InputError: unknown or missing key, or an impossible value.
        """
        names = {f.name for f in fields(cls)}
        if set(raw) != names | {"schema", "kind"}:
            raise InputError(
                f"A genome of trees has the keys {sorted(names | {'kind', 'schema'})}, "
                f"found {sorted(raw)}."
            )
        if raw["schema"] != _SCHEMA:
            raise InputError(
                f"The genome has schema {raw['schema']!r}, this version reads "
                f"{_SCHEMA}."
            )
        values = {name: raw[name] for name in names}
        for name in ("leaves", "least_rows", "rounds"):
            value = values[name]
            if isinstance(value, float) and value.is_integer():
                values[name] = int(value)
        return cls(**values)

    def parameters(self, d_in: int, n_out: int) -> int:
        """Counts the learnt numbers of one booster.

        Args:
            d_in: width of a row; trees have as many numbers for any.
            n_out: scores (1 for a binary label, else one per class).
        """
        del d_in
        # A cut, its input, and a value for each leaf.
        return self.rounds * n_out * (3 * self.leaves - 2)

    def flops(self, d_in: int, n_out: int) -> int:
        """Counts comparisons and additions of one row's answer, in balanced trees."""
        del d_in
        return round(self.rounds * n_out * (log2(self.leaves) + 1))


AnyGenome = Genome | TreeGenome | ModuleGenome


def read_genome(raw: Mapping[str, Any]) -> AnyGenome:
    """Parses the genome of nets, of trees or of a module.

    Raises:
        InputError: it is none of these.
    """
    kind = raw.get("kind") if isinstance(raw, Mapping) else None
    if kind == _KIND:
        return TreeGenome.from_dict(raw)
    if kind == MODULE:
        return ModuleGenome.from_dict(raw)
    return Genome.from_dict(raw)
