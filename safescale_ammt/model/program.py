"""Program: a module as the operators that it calls, answered without torch.

A module of a user's own is traced once (`modules.tracing`); what is kept of it is the
list of its steps, in JSON, and its tensors. Whoever judges, registers or predicts
computes these steps (`operators`) and runs no line of the user's code.

    {"schema": 1, "rows": 128, "width": d, "outputs": n,
     "steps": [[name, operator, arguments], ...], "answer": name}

Rows come as blocks of `rows`, the last filled up with copies of its last row. An
argument is a JSON value, `{"of": name}` for a tensor, the block `x` or an earlier step,
or `{"number": "inf"}` for what JSON has no word for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.errors import InputError
from safescale_ammt.model.arithmetic import Floats
from safescale_ammt.model.logits import on_logit_grid
from safescale_ammt.model.operators import OPERATORS, PREPARED

PROGRAM = "program.json"
X = "x"
"""Name of the block of rows."""
MOST_STEPS = 20_000
_SCHEMA = 1
_KEYS = {"schema", "rows", "width", "outputs", "steps", "answer"}
_MOST_ROWS = 4096


@dataclass(frozen=True)
class Steps:
    """What a module calls, whatever its weights.

    Attributes:
        rows: of a block.
        width: inputs of a row.
        outputs: logits of a row.
        steps: name, operator and arguments of each, in their order.
        answer: name of the step that gives the logits, (rows,) or (rows, outputs).
    """

    rows: int
    width: int
    outputs: int
    steps: tuple[tuple[str, str, Sequence[Any]], ...]
    answer: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "schema": _SCHEMA,
            "rows": self.rows,
            "width": self.width,
            "outputs": self.outputs,
            "steps": [[name, operator, [*args]] for name, operator, args in self.steps],
            "answer": self.answer,
        }

    @classmethod
    def from_dict(cls, raw: Any, where: object = "The program") -> Steps:
        """Parses the JSON form.

        Raises:
            InputError: it is none, or calls what this version does not know.
        """
        if not isinstance(raw, Mapping) or set(raw) != _KEYS:
            raise InputError(f"{where} is no program of schema {_SCHEMA}.")
        counts = [raw[key] for key in ("schema", "rows", "width", "outputs")]
        listed = isinstance(raw["steps"], list) and len(raw["steps"]) <= MOST_STEPS
        if any(type(n) is not int or n < 1 for n in counts) or not listed:
            raise InputError(f"{where} is no program of schema {_SCHEMA}.")
        if counts[0] != _SCHEMA or counts[1] > _MOST_ROWS:
            raise InputError(
                f"{where} has schema {counts[0]} and blocks of {counts[1]} rows; this "
                f"version reads schema {_SCHEMA} and at most {_MOST_ROWS}."
            )
        steps = []
        for step in raw["steps"]:
            match step:
                case [str(name), str(operator), list(arguments)]:
                    steps.append((name, operator, tuple(arguments)))
                case _:
                    raise InputError(f"{where} has a step that is none.")
        if unknown := unknown_operators(op for _, op, _ in steps):
            raise InputError(
                f"{where} calls {unknown[0]!r}, which this version does not compute."
            )
        _, rows, width, outputs = counts
        return cls(rows, width, outputs, tuple(steps), str(raw["answer"]))

    @cached_property
    def needs(self) -> frozenset[str]:
        """Names of the tensors that the steps read."""
        made = {X, *(name for name, _, _ in self.steps)}
        asked = {n for _, _, args in self.steps for n in named(args)} | {self.answer}
        return frozenset(asked - made)


def unknown_operators(operators: Iterator[str]) -> list[str]:
    """Returns the operators that nothing here computes, sorted."""
    return sorted(set(operators) - OPERATORS.keys())


def named(argument: Any) -> Iterator[str]:
    """Yields the names that an argument refers to."""
    if isinstance(argument, Mapping):
        if "of" in argument:
            yield str(argument["of"])
    elif isinstance(argument, list | tuple):
        for item in argument:
            yield from named(item)


@dataclass(frozen=True)
class Program:
    """The steps of a module, and the tensors of one or more members.

    Attributes:
        steps: what is computed.
        tensors: name -> its values, of each member (members, ...).
    """

    steps: Steps
    tensors: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        """Checks that the tensors are those that the steps read.

        Raises:
            InputError: one is missing, none reads it, or members differ in number.
        """
        for name in sorted(self.steps.needs ^ self.tensors.keys()):
            state = "lacks" if name in self.steps.needs else "does not read"
            raise InputError(f"The program {state} the tensor {name!r}.")
        members = {
            len(tensor) if tensor.ndim else 0 for tensor in self.tensors.values()
        }
        if len(members) != 1 or 0 in members:
            raise InputError("The program's tensors are of no one number of members.")

    @property
    def members(self) -> int:
        """Modules whose logits are averaged."""
        return len(next(iter(self.tensors.values())))

    def raw(self, rows: Floats) -> Floats:
        """Returns the mean logits (n, outputs) of encoded rows (n, width).

        The logits of each member are rounded to the grid before they are added, so
        that their mean is one number whoever computes it.

        Raises:
            InputError: the steps do not fit each other, the tensors or the rows.
        """
        found = np.zeros((len(rows), self.steps.outputs))
        size = self.steps.rows
        for member in self._prepared:
            for at in range(0, len(rows), size):
                part = rows[at : at + size]
                # A row that is there, and not zeros: it may be divided by.
                block = part[np.minimum(np.arange(size), len(part) - 1)]
                out = member.logits(np.asarray(block, np.float64))
                found[at : at + size] += on_logit_grid(out[: len(part)])
        return on_logit_grid(found / self.members)

    @cached_property
    def _prepared(self) -> tuple[Member, ...]:
        return tuple(
            Member(self.steps, {name: t[i] for name, t in self.tensors.items()})
            for i in range(self.members)
        )


class Member:
    """One module's steps, with all that no row changes computed once.

    Args:
        steps: what is computed.
        tensors: name -> values.
    """

    def __init__(self, steps: Steps, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._steps = steps
        self._fixed: dict[str, Any] = {
            name: t.astype(np.float64) if t.dtype.kind == "f" else t
            for name, t in tensors.items()
        }
        # By what it is prepared for, too: two operators may share a tensor.
        self._matrices: dict[str, dict[str, Any]] = {name: {} for name in PREPARED}
        self._moving = []
        for step in steps.steps:
            name, operator, arguments = step
            if all(other in self._fixed for other in named(arguments)):
                self._fixed[name] = self._computed(step, self._fixed)
                continue
            self._moving.append(step)
            if operator not in PREPARED:
                continue
            (place, prepare), known = PREPARED[operator], self._matrices[operator]
            matrix = next(named([arguments[place]]), "")
            if matrix in self._fixed and matrix not in known:
                known[matrix] = prepare(self._fixed[matrix])

    def logits(self, block: Floats) -> Floats:
        """Returns the logits (rows, outputs) of a block (rows, width)."""
        values = {**self._fixed, X: block}
        # What is infinite or no number anywhere has no score, and needs no warning.
        with np.errstate(all="ignore"):
            for step in self._moving:
                values[step[0]] = self._computed(step, values)
        found = np.asarray(values[self._steps.answer], np.float64)
        shape = (self._steps.rows, self._steps.outputs)
        if found.shape not in (shape, shape[:1]) or math.prod(shape) != found.size:
            raise InputError(
                f"The program answers a block with {found.shape}, expected {shape}."
            )
        return found.reshape(shape)

    def _computed(
        self, step: tuple[str, str, Sequence[Any]], values: Mapping[str, Any]
    ) -> Any:
        name, operator, arguments = step
        place, _ = PREPARED.get(operator, (None, None))

        def value(argument: Any, matrices: Mapping[str, Any]) -> Any:
            if isinstance(argument, Mapping):
                if "number" in argument:
                    return float(argument["number"])
                of = argument["of"]
                return matrices.get(of, None) or values[of]
            if isinstance(argument, list | tuple):
                return [value(item, matrices) for item in argument]
            return argument

        try:
            with np.errstate(all="ignore"):
                given = [
                    value(argument, self._matrices[operator] if i == place else {})
                    for i, argument in enumerate(arguments)
                ]
                return OPERATORS[operator](*given)
        except (
            *(ValueError, TypeError, KeyError, IndexError),
            *(AttributeError, ZeroDivisionError, OverflowError),
        ) as error:
            raise InputError(
                f"Step {name!r} ({operator}) of the program cannot be computed "
                f"({type(error).__name__})."
            ) from error
