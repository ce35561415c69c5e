"""Released: a saved model as a module of torch, whose slopes an attack can follow.

It is made of the artifact's own numbers: no line of a user's code runs. A net is
computed by `model.network`, a program step by step by torch's operators, whose names it
carries. What the model answers is defined without torch (`model.predictor`), where
numbers are rounded to grids that have no slope: the two are compared before an attack,
and a point counts as answered wrong where that definition says so.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from safescale_ammt.errors import InputError
from safescale_ammt.model.fair_head import FairHead
from safescale_ammt.model.forest import Forest
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.logits import logits
from safescale_ammt.model.network import Weights, forward
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.model.program import Program, X

NEAR = 1e-3
"""Share of the largest logit by which the two forms may differ, as at tracing."""
WHERE = frozenset(
    ("layout", "device", "pin_memory", "memory_format", "generator", "non_blocking")
)
"""Arguments of torch's operators that a program leaves out."""
# An attack past walls sees functions of torch, and not the operators below them.
SEEN: Mapping[str, Callable[..., Any]] = {
    **{
        name: getattr(torch, name)
        for name in ("round", "floor", "ceil", "sign", "detach", "sigmoid", "tanh")
    },
    "_softmax": lambda x, dim, _: torch.softmax(x, dim),
}
"""Operators that hide slopes -> functions that `slopes.StraightThrough` knows."""
_LEAST = 1e-12
"""A threshold so near to 0 or 1 is on it."""


def frozen(array: Any) -> nn.Parameter:
    """Returns numbers of a model as torch has them: weights, which nothing trains."""
    tensor = torch.tensor(np.ascontiguousarray(array))
    return nn.Parameter(tensor, requires_grad=False)


class Net(nn.Module):
    """Nets of a genome, whose logits are averaged.

    Args:
        genome: of each.
        weights: stacked arrays (members, ...).
    """

    def __init__(self, genome: Genome, weights: Mapping[str, Any]) -> None:
        super().__init__()
        self._genome, self._names = genome, list(weights)
        # Names of tensors have dots, which torch keeps for modules within modules.
        for i, name in enumerate(self._names):
            self.register_parameter(f"w{i}", frozen(weights[name]))

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (n, outputs) of encoded rows (n, width)."""
        named: Weights = {
            n: self.get_parameter(f"w{i}") for i, n in enumerate(self._names)
        }
        return forward(self._genome, named, x[None]).mean((0, 1))


class Operators(nn.Module):
    """The steps of a program, called on torch's operators, averaged over its members.

    Args:
        program: what is computed.

    Raises:
        InputError: torch has no operator of a name.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._program, self._names = program, list(program.tensors)
        for i, name in enumerate(self._names):
            self.register_parameter(f"w{i}", frozen(program.tensors[name]))
        self._calls = {name: call_of(name) for _, name, _ in program.steps.steps}

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (n, outputs) of encoded rows (n, width)."""
        steps = self._program.steps
        # Shapes within the steps are those of whole blocks.
        tensors = {n: self.get_parameter(f"w{i}") for i, n in enumerate(self._names)}
        found = []
        for part in torch.split(x, steps.rows):
            block = part
            if len(part) < steps.rows:
                # A row that is there, and not zeros: it may be divided by.
                rest = part[-1:].expand(steps.rows - len(part), -1)
                block = torch.cat([part, rest])
            outs = [
                self._member({n: t[i] for n, t in tensors.items()}, block)
                for i in range(self._program.members)
            ]
            found.append(torch.stack(outs).mean(0)[: len(part)])
        return torch.cat(found)

    def _member(self, values: dict[str, Any], block: Tensor) -> Tensor:
        values = {**values, X: block}
        steps = self._program.steps
        for name, operation, arguments in steps.steps:
            call, kinds = self._calls[operation]
            try:
                values[name] = call(*given(arguments, kinds, values, block.dtype))
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                raise InputError(
                    f"Step {name!r} ({operation}) of the program cannot be computed by "
                    f"torch ({type(error).__name__}), so that no attack can follow it."
                ) from error
        out: Tensor = values[steps.answer]
        return out.reshape(steps.rows, steps.outputs)


def call_of(name: str) -> tuple[Any, tuple[str, ...]]:
    """Returns torch's operator of a name, and the types of its arguments by place.

    Raises:
        InputError: torch has none.
    """
    if name == "getitem":
        return operator.getitem, ()
    if name in SEEN:
        return SEEN[name], ()
    packet, _, overload = name.partition(".")
    try:
        found = getattr(getattr(torch.ops.aten, packet), overload or "default")
    except AttributeError:
        raise InputError(
            f"Torch {torch.__version__} has no operator {name!r}, so that no attack "
            "can follow the model's slopes; judge it with the version that traced it."
        ) from None
    # Torch has no public name for what an operator is called with.
    schema = found._schema.arguments  # noqa: SLF001
    kept = [a for a in schema if a.name not in WHERE]

    def call(*values: Any) -> Any:
        # A program has all by place; torch takes some by name alone.
        places = iter(zip(kept, values, strict=False))
        args, named = [], {}
        for argument, value in places:
            if argument.kwarg_only:
                named[argument.name] = value
            else:
                args.append(value)
        return found(*args, **named)

    kinds = tuple("dtype" if a.name == "dtype" else "" for a in kept)
    return call, kinds


def given(
    arguments: Iterable[Any],
    kinds: tuple[str, ...],
    values: Mapping[str, Any],
    floats: torch.dtype,
) -> list[Any]:
    """Returns the arguments of a step as torch takes them."""
    types = {"float": floats, "int": torch.int64, "bool": torch.bool}

    def value(argument: Any, kind: str = "") -> Any:
        if isinstance(argument, Mapping):
            if "number" in argument:
                return float(argument["number"])
            return values[argument["of"]]
        if isinstance(argument, list | tuple):
            return [value(item) for item in argument]
        # A text is a type of numbers only where the schema asks for one.
        return types.get(argument, argument) if kind else argument

    return [
        value(argument, kinds[i] if i < len(kinds) else "")
        for i, argument in enumerate(arguments)
    ]


class Decided(nn.Module):
    """Logits whose sign, or largest column, decides as the model does.

    Of two classes the column is how far the model's logit lies above the one that its
    threshold, moved for each row by a fair head, asks for:

        eta (1 - A/2 + B/2) >= t + (B + C)/2    A, B, C: pulls of kappa eta, 1 - eta, 1

    Args:
        inner: logits of the model.
        model: its decision rule.
    """

    def __init__(self, inner: nn.Module, model: Deployable) -> None:
        super().__init__()
        self.inner, self._threshold = inner, model.threshold
        self.head = Pulls(model.head) if model.head is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (n, outputs) of encoded rows (n, width)."""
        found: Tensor = self.inner(x)
        if found.shape[1] > 1:
            return found
        # Kept on the scale of logits: a score near 0 or 1 has hardly a slope.
        share = torch.ones_like(found[:, 0])
        asked = self._threshold * share
        if self.head is not None:
            of_eta, of_rest, of_all = self.head(x)
            share = 1 - of_eta / 2 + of_rest / 2
            asked = asked + (of_rest + of_all) / 2
        at = (asked / share).clamp(_LEAST, 1 - _LEAST)
        above = found[:, 0] - (at.log() - (-at).log1p())
        # Where the share is negative, a greater eta is further from what is asked.
        return torch.where(share > 0, above, -above)[:, None]


class Pulls(nn.Module):
    """The parts of a fair head: what each condition pulls a row by, without kappa."""

    def __init__(self, head: FairHead) -> None:
        super().__init__()
        self._conditions = [part.condition for part in head.parts]
        for i, part in enumerate(head.parts):
            for name in ("weight", "bias", "shift"):
                self.register_parameter(f"{name}{i}", frozen(getattr(part, name)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns pulls (n,) on eta, on 1 - eta and on all rows."""
        found = {c: torch.zeros_like(x[:, 0]) for c in (True, False, None)}
        for i, condition in enumerate(self._conditions):
            weight, bias, shift = (
                self.get_parameter(f"{name}{i}") for name in ("weight", "bias", "shift")
            )
            chance = torch.softmax(x @ weight + bias, 1)
            found[condition] = found[condition] + (chance * shift).sum(1)
        return found[True], found[False], found[None]


def module_of(model: Deployable) -> Decided:
    """Returns a saved model as a module in float32: encoded rows to logits.

    Raises:
        InputError: it has no slopes, or torch cannot compute it.
    """
    if isinstance(model.weights, Forest):
        raise InputError(
            "Boosted trees answer in steps and have no slopes for a battery to follow; "
            "promise accuracy under changes of columns, or train nets."
        )
    inner: nn.Module
    if isinstance(model.weights, Program):
        inner = Operators(model.weights)
    else:
        assert isinstance(model.genome, Genome)
        inner = Net(model.genome, model.weights)
    return Decided(inner, model).eval().float()


def check_same(module: Decided, model: Deployable, rows: NDArray[np.float32]) -> None:
    """Refuses a module that does not answer rows as the model's own definition does.

    Args:
        module: of `module_of`.
        model: the model.
        rows: encoded (n, width).

    Raises:
        InputError: a logit, or a decision that is no near one, differs.
    """
    exact = np.asarray(rows, np.float64)
    # First, as it bounds what a foreign program may ask for.
    if isinstance(model.weights, Program):
        stated = model.weights.raw(exact)
    else:
        assert isinstance(model.genome, Genome)
        assert not isinstance(model.weights, Forest)
        weights = {n: np.asarray(w, np.float64) for n, w in model.weights.items()}
        stated = logits(model.genome, weights, exact, model.definition)
    with torch.no_grad():
        x = torch.from_numpy(np.asarray(rows, np.float32))
        found, out = module.inner(x).numpy(), module(x).numpy()
    near = NEAR * max(1.0, float(np.abs(stated).max(initial=0.0)))
    apart = float(np.abs(found - stated).max(initial=0.0))
    codes = model.decide(exact, stated).prediction
    ordered = np.sort(out, 1)
    # A row on the decision's edge may be on either side of it by rounding.
    gap = np.abs(out[:, 0]) if out.shape[1] == 1 else ordered[:, -1] - ordered[:, -2]
    own = out[:, 0] >= 0 if out.shape[1] == 1 else out.argmax(1)
    other = int(((own != codes) & (gap > 2 * near)).sum())
    # Written so that what is no number departs too.
    if not apart <= near or other:
        raise InputError(
            f"Torch's form of the model departs from its own answers to {len(rows):,} "
            f"rows: by {apart:.2g} in a logit, {near:.2g} is allowed, and in {other:,} "
            "clear decisions; what it survives would be another model's."
        )
