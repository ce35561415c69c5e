"""Genomes: the description of a network for tables, without a tensor in sight.

A genome is a multilayer perceptron over encoded rows: how numbers are encoded,
the widths of its layers, activation, dropout, residual links, and `heads`, the
number of TabM-like heads (Gorishniy et al. 2025, arXiv:2410.24210): copies that
share every matrix and differ by cheap per-head scalings, whose logits are
averaged. `network.py` builds what is written here; the search mutates it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from safescale_ammt.errors import InputError, one_of
from safescale_ammt.files.canonical import digest_json

ENCODINGS = ("ple", "standard")
"""Numeric encodings: piecewise-linear over quantiles, or standardised."""
ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
MAX_WIDTH = 4096
MAX_DEPTH = 8
MAX_HEADS = 64
_SCHEMA = 1


@dataclass(frozen=True)
class Genome:
    """One architecture; the defaults are the benchmarks' fixed genome.

    Attributes:
        encoding: one of `ENCODINGS`.
        widths: units of each hidden layer, in order; () is a linear model.
        activation: one of `ACTIVATIONS`.
        dropout: probability in [0, .9] that a hidden unit is dropped.
        residual: add a layer's input to its output where the widths are equal.
        heads: TabM-like heads that share the matrices; 1 is a plain network.
    """

    encoding: str = "ple"
    widths: tuple[int, ...] = (64, 64)
    activation: str = "relu"
    dropout: float = 0.1
    residual: bool = False
    heads: int = 1

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        self.check()

    def check(self) -> None:
        """Says in one sentence what is wrong with this genome.

        Raises:
            InputError: a field has the wrong type or lies outside its range.
        """
        _member("encoding", self.encoding, ENCODINGS)
        _member("activation", self.activation, ACTIVATIONS)
        if not isinstance(self.widths, tuple) or len(self.widths) > MAX_DEPTH:
            raise InputError(
                f"genome.widths is {self.widths!r}, expected at most {MAX_DEPTH} "
                "hidden layers."
            )
        for width in self.widths:
            _whole("widths", width, MAX_WIDTH)
        _whole("heads", self.heads, MAX_HEADS)
        # Python counts true and false among the integers.
        dropout, is_bool = self.dropout, isinstance(self.dropout, bool)
        if is_bool or not isinstance(dropout, int | float) or not 0 <= dropout <= 0.9:
            raise InputError(
                f"genome.dropout is {self.dropout!r}, expected a number in [0, 0.9]."
            )
        if not isinstance(self.residual, bool):
            raise InputError(
                f"genome.residual is {self.residual!r}, expected true or false."
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {"schema": _SCHEMA, **asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Genome:
        """Parses the JSON form; whole numbers may arrive as floats.

        Raises:
            InputError: unknown or missing key, or an impossible value.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(raw, Mapping) or set(raw) != names | {"schema"}:
            keys = sorted(raw) if isinstance(raw, Mapping) else type(raw).__name__
            raise InputError(
                f"A genome has the keys {sorted(names | {'schema'})}, found {keys}."
            )
        if raw["schema"] != _SCHEMA:
            raise InputError(
                f"The genome has schema {raw['schema']!r}, this version reads "
                f"{_SCHEMA}."
            )
        if not isinstance(raw["widths"], list | tuple):
            raise InputError(f"genome.widths is {raw['widths']!r}, expected a list.")
        return cls(
            encoding=raw["encoding"],
            widths=tuple(_integral(w) for w in raw["widths"]),
            activation=raw["activation"],
            dropout=raw["dropout"],
            residual=raw["residual"],
            heads=_integral(raw["heads"]),
        )

    @property
    def digest(self) -> str:
        """Digest of the canonical form: the genome's identity."""
        return digest_json(self.to_dict())

    def parameters(self, d_in: int, n_out: int) -> int:
        """Counts the trained numbers of one network.

        Args:
            d_in: width of an encoded row.
            n_out: logits (1 for a binary label, else one per class).
        """
        sizes = [d_in, *self.widths]
        count = 0
        for fan_in, fan_out in pairwise(sizes):
            count += fan_in * fan_out + self.heads * fan_out
            # Scalings of inputs and outputs, one pair of vectors per head.
            if self.heads > 1:
                count += self.heads * (fan_in + fan_out)
        return count + self.heads * (sizes[-1] + 1) * n_out

    def flops(self, d_in: int, n_out: int) -> int:
        """Counts multiplications and additions of one row's forward pass."""
        # Scalings and activations are left out: a few per unit, against a row of
        # the matrix.
        sizes = [d_in, *self.widths]
        dense = sum(a * b for a, b in pairwise(sizes))
        return 2 * self.heads * (dense + sizes[-1] * n_out)


def shapes(genome: Genome, d_in: int, n_out: int) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each layer's tensors, for one net, in a fixed order.

    Args:
        genome: the architecture.
        d_in: width of an encoded row.
        n_out: logits (1 for a binary label, else one per class).
    """
    h = genome.heads
    layout: dict[str, tuple[int, ...]] = {}
    fan_in = d_in
    for i, width in enumerate(genome.widths):
        layout[f"layer{i}.weight"] = (fan_in, width)
        layout[f"layer{i}.bias"] = (h, width)
        if h > 1:
            layout[f"layer{i}.scale_in"] = (h, fan_in)
            layout[f"layer{i}.scale_out"] = (h, width)
        fan_in = width
    layout["out.weight"] = (h, fan_in, n_out)
    layout["out.bias"] = (h, n_out)
    return layout


def _integral(value: object) -> Any:
    """Turns 64.0 back into 64 and returns anything else as it is."""
    # KFP carries a mapping as a protobuf struct, whose numbers are all doubles.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _member(key: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"genome.{key} is {value!r}, {one_of(choices, value)}.")


def _whole(key: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InputError(
            f"genome.{key} holds {value!r}, expected whole numbers from 1 to {most}."
        )
