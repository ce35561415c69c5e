"""Tracing: what a module calls, as a program that is answered without torch.

`torch.export` runs the module once, not training, on a block of rows, and gives the
operators that it called in torch's core set; a choice in Python that depends on values
of rows is an error there, and so is an operator that `model.operators` does not have.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.model.answers import as_columns
from safescale_ammt.model.program import Steps, X, named, unknown_operators
from safescale_ammt.modules.own_code import told

ROWS = 128
"""Rows of a block: as many as are computed at once, few enough for a single row."""
WHERE = frozenset(
    ("layout", "device", "pin_memory", "memory_format", "generator", "non_blocking")
)
"""Arguments that say where and how a tensor lies, and nothing about its numbers."""


def traced(
    module: nn.Module, inputs: int, outputs: int
) -> tuple[Steps, dict[str, Tensor]]:
    """Returns the steps of a module that is not training, and its constants.

    Args:
        module: the user's.
        inputs: of a row.
        outputs: logits that a row is answered with.

    Returns:
        The steps, whose tensors bear the names that parameters and buffers have in the
        module, and those that are none of both.

    Raises:
        InputError: it cannot be called, answers with another shape, or has no form
            without torch.
    """
    was_training = module.training
    first = next(module.parameters(), torch.zeros(0))
    rows = torch.randn(ROWS, inputs, generator=torch.Generator().manual_seed(0)).to(
        first.device, first.dtype
    )
    module.eval()
    try:
        with torch.no_grad():
            out = as_columns(module(rows))
            if out.shape != (ROWS, outputs):
                raise InputError(
                    f"The module of training.model answers {ROWS} rows with "
                    f"{tuple(out.shape)}, expected ({ROWS}, {outputs}): one logit for "
                    "two classes, else one per class."
                )
            with warnings.catch_warnings():
                # Torch's own, of what it does inside (pytorch 2.13).
                warnings.simplefilter("ignore", FutureWarning)
                # Recurrent layers list their own weights anew.
                warnings.filterwarnings("ignore", "The tensor attributes", UserWarning)
                exported = torch.export.export(module, (rows,), strict=False)
                program = exported.run_decompositions()
    except (torch.OutOfMemoryError, MemoryError, SafescaleError):
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"The module of training.model cannot be called on rows of {inputs} "
            f"numbers, or not be written down as torch's operators ({told(error)}); "
            "what it does may not depend on values of rows by a choice in Python."
        ) from error
    finally:
        module.train(was_training)
    return steps_of(program, inputs, outputs)


def steps_of(
    program: Any, inputs: int, outputs: int
) -> tuple[Steps, dict[str, Tensor]]:
    """Returns the steps of an exported program, and its constants.

    Raises:
        InputError: it changes a buffer, or calls what has no form without torch.
    """
    signature = program.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        changed = [*signature.buffers_to_mutate.values(), "its input"]
        raise InputError(
            f"The module of training.model changes {changed[0]!r} while it answers; an "
            "answer may depend on the row alone."
        )
    names: dict[str, str] = {}
    for spec in signature.input_specs:
        names[spec.arg.name] = spec.target or X
    steps, answer = [], ""
    for node in program.graph.nodes:
        if node.op == "call_function":
            # A parameter may bear any name; a step's begins as none of them does.
            names[node.name] = f":{node.name}"
            steps.append(
                (names[node.name], name_of(node.target), arguments(node, names))
            )
        elif node.op == "output":
            answer = names[node.args[0][0].name]
    needed = kept(steps, answer)
    if unknown := unknown_operators(name for _, name, _ in needed):
        raise InputError(
            f"The module of training.model calls {', '.join(unknown)}, which has no "
            "form without torch here; docs/own_models.md lists what has."
        )
    found = Steps(ROWS, inputs, outputs, needed, answer)
    constants = {n: t for n, t in program.constants.items() if isinstance(t, Tensor)}
    return found, {n: t for n, t in constants.items() if n in found.needs}


def kept(
    steps: list[tuple[str, str, list[Any]]], answer: str
) -> tuple[tuple[str, str, list[Any]], ...]:
    """Returns the steps that an answer needs, in their order."""
    needed = {answer}
    found = []
    for step in reversed(steps):
        if step[0] in needed:
            found.append(step)
            needed |= set(named(step[2]))
    return tuple(reversed(found))


def name_of(target: Any) -> str:
    """Returns torch's name of an operator, `.default` left out."""
    if target is operator.getitem:
        return "getitem"
    return str(target).removeprefix("aten.").removesuffix(".default")


def arguments(node: Any, names: Mapping[str, str]) -> list[Any]:
    """Returns a call's arguments in the order of the schema, as a program has them."""
    if node.target is operator.getitem:
        return [written(argument, names) for argument in node.args]
    # Torch has no public name for what an operator is called with.
    schema = node.target._schema.arguments  # noqa: SLF001
    found = []
    for i, argument in enumerate(schema):
        if argument.name in WHERE:
            continue
        value = node.kwargs.get(argument.name, argument.default_value)
        found.append(written(node.args[i] if i < len(node.args) else value, names))
    return found


def written(value: Any, names: Mapping[str, str]) -> Any:
    """Returns an argument as JSON.

    Raises:
        InputError: it has no such form.
    """
    if isinstance(value, torch.fx.Node):
        return {"of": names[value.name]}
    if isinstance(value, list | tuple):
        return [written(item, names) for item in value]
    if isinstance(value, torch.dtype):
        if value.is_complex:
            raise InputError("The module of training.model computes complex numbers.")
        whole = "bool" if value == torch.bool else "int"
        return "float" if value.is_floating_point else whole
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        "The module of training.model computes with sizes or values that are not the "
        f"same for all rows ({type(value).__name__})."
    )
