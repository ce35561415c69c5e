"""Trial: a model, a loss and rows are tried before anything is trained.

What does not fit is one sentence, whose cause is the exception of the user's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import Tensor, nn

from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import ConfigError, DataError, InputError, one_of
from safescale_ammt.model.answers import as_columns
from safescale_ammt.modules.copies import RowLayout, call, duplicate, to_device
from safescale_ammt.modules.rows import BLOCK, GivenRows
from safescale_ammt.modules.task import Kind
from safescale_ammt.training.codistillation import Codistillation

Loss = Callable[[Tensor, Tensor], Tensor]
"""The user's own: a module's answer and targets -> a number, or one for each row."""
FIRST = 64
"""Rows for training that a model is tried on."""


def require_options(
    config: Any,
    loss: Any,
    task: Any,
    roles: tuple[Any, ...],
    codistillation: Any = None,
) -> None:
    """Refuses options of a trainer that are of another kind than it takes.

    Raises:
        ConfigError: one is.
    """
    if config is not None and not isinstance(config, TrainingConfig):
        found = type(config).__name__
        raise ConfigError(f"config is a {found}, expected a TrainingConfig.")
    if task not in get_args(Kind):
        raise ConfigError(f"task is {task!r}, {one_of(get_args(Kind), task)}.")
    if loss is not None and not callable(loss):
        raise ConfigError(
            f"loss is a {type(loss).__name__}, expected a function: "
            "(answer, target) -> a number, or one for each row."
        )
    if not isinstance(codistillation, Codistillation | None):
        found = type(codistillation).__name__
        raise ConfigError(f"codistillation is a {found}, not a Codistillation.")
    for role in roles:
        if not isinstance(role, Role):
            raise ConfigError(
                f"roles holds a {type(role).__name__}, expected each to be a Role; "
                "names of roles stand in config.agent_specializations."
            )


def require_module(model: Any) -> nn.Module:
    """Returns a model that is a module.

    Raises:
        InputError: it is something else, such as a class of modules.
    """
    if isinstance(model, nn.Module):
        return model
    found = type(model).__name__
    if isinstance(model, type):
        found = f"the class {model.__name__}, which nobody has called yet"
    raise InputError(f"The model is {found}, expected a torch.nn.Module.")


def require_modules(
    model: Any, config: TrainingConfig, codistillation: Codistillation
) -> tuple[nn.Module, ...]:
    """Returns what is to be trained: one module, or each of a list.

    Raises:
        InputError: a list of none, or of something else.
        ConfigError: a section that several cannot be trained by.
    """
    if not isinstance(model, list | tuple):
        return (require_module(model),)
    if not model:
        raise InputError(
            "The model is an empty list; give a torch.nn.Module, or a list of them."
        )
    for i, each in enumerate(model):
        with naming(i, len(model)):
            require_module(each)
    fewest = min(config.agent_counts)
    if fewest < len(model):
        raise ConfigError(
            f"training.num_agents is {config.num_agents!r}, but {len(model)} models "
            f"were given; each needs an agent, give at least {len(model)}."
        )
    if len(model) > 1 and config.tune != "none":
        raise ConfigError(
            f"training.tune is {config.tune!r}, which races for one trunk, but "
            f"{len(model)} models were given; give one, or leave it at 'none'."
        )
    if len(model) > 1 and config.branch not in ("auto", 0):
        raise ConfigError(
            f"training.branch is {config.branch!r}, the share of one trunk, but "
            f"{len(model)} models were given; give one, or leave it at 'auto'."
        )
    if codistillation.student >= len(model):
        raise ConfigError(
            f"codistillation.student is {codistillation.student}, but the last of the "
            f"models is number {len(model) - 1}."
        )
    return tuple(model)


@contextmanager
def naming(number: int, of: int) -> Iterator[None]:
    """Says of which model in a list it is that a sentence speaks."""
    try:
        yield
    except (InputError, DataError) as error:
        if of == 1:
            raise
        raise type(error)(f"initial_model[{number}]: {error}") from error.__cause__


def all_answered(
    modules: Sequence[nn.Module],
    given: tuple[GivenRows, GivenRows],
    device: torch.device,
) -> int:
    """Returns how many columns modules answer a row with.

    Raises:
        InputError: one cannot be called on the rows, or they answer otherwise.
        DataError: answers that are no finite numbers.
    """
    columns = []
    for i, module in enumerate(modules):
        with naming(i, len(modules)):
            layout = RowLayout.of(module)
            own = duplicate(module, device)
            columns.append(answered(own, given, layout, device))
    for i, found in enumerate(columns):
        if found != columns[0]:
            kinds = [type(modules[at]).__name__ for at in (0, i)]
            raise InputError(
                f"initial_model[{i}] ({kinds[1]}) answers n rows with (n, {found}), "
                f"initial_model[0] ({kinds[0]}) with (n, {columns[0]}); models that "
                "are trained together answer alike."
            )
    return columns[0]


def check_device(module: nn.Module, device: torch.device, wanted: str) -> None:
    """Refuses a model that lies elsewhere than its user wants to train.

    Raises:
        InputError: it does.
    """
    home = next(module.parameters()).device
    if wanted != "auto" and home.type not in (device.type, "cpu"):
        raise InputError(
            f"The model lies on {home}, but training.device is {wanted!r}; move the "
            "model, or set device: auto."
        )


def answered(
    module: nn.Module,
    given: tuple[GivenRows, GivenRows],
    layout: RowLayout,
    device: torch.device,
) -> int:
    """Returns how many columns a module answers a row with.

    Tried are the first rows for training, and all for validation: what has no answer
    there would end a training that is done.

    Args:
        module: a copy of the user's.
        given: rows for training and for validation.
        layout: of its tensors.
        device: that it lies on.

    Raises:
        InputError: it cannot be called on them, or answers with chances.
        DataError: its answers are no finite numbers.
    """
    module.eval()
    tried = (torch.arange(len(given[0]))[:FIRST], torch.arange(len(given[1])))
    names = ("train_dataset, first rows", "validation_dataset")
    columns = []
    for rows, index, name in zip(given, tried, names, strict=True):
        for block in torch.split(index, BLOCK):
            inputs = to_device(rows.inputs(block), device, layout.dtype)
            columns.append(columns_of(module, inputs, len(block), name))
            check_chances(module, columns[-1])
    if len({out.shape[1] for out in columns}) > 1:
        raise InputError(
            "The model answers some rows with more columns than others; expected the "
            "same number for each."
        )
    return columns[0].shape[1]


def columns_of(module: nn.Module, inputs: Any, rows: int, name: str) -> Tensor:
    """Returns a module's answer to rows of a data set (rows, columns).

    Raises:
        InputError: it cannot be called on them, or gives no answer for each.
        DataError: its answers are no finite numbers.
    """
    try:
        with torch.no_grad():
            out = as_columns(call(module, inputs))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error.__cause__
    if len(out) != rows:
        raise InputError(
            f"{name}: The model answers {rows} rows with {len(out)}; expected one "
            "answer for each."
        )
    wrong = int((~out.isfinite()).any(1).sum())
    if wrong:
        raise DataError(
            f"{name}: The model's answers to {wrong} of {rows} rows are no finite "
            "numbers; look for missing or infinite inputs."
        )
    return out


def check_chances(module: nn.Module, out: Tensor) -> None:
    """Refuses answers (B, columns) that are chances, as training takes logits.

    Raises:
        InputError: they are.
    """
    last = list(module.modules())[-1]
    sums = out.sum(1)
    chances = out.shape[1] > 1 and bool((out >= 0).all())
    chances = chances and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)
    if isinstance(last, nn.Sigmoid | nn.Softmax) or chances:
        raise InputError(
            "The model answers with chances; leave its last sigmoid or softmax out, "
            "as training takes logits."
        )


def own_loss(loss: Loss, answer: Tensor, target: Tensor) -> Tensor:
    """Returns the mean of a user's loss.

    Raises:
        InputError: it cannot be computed, or is no tensor.
    """
    try:
        found = loss(answer, target)
    except Exception as error:
        raise InputError(
            f"The loss cannot be computed of an answer {tuple(answer.shape)} and a "
            f"target {tuple(target.shape)} ({type(error).__name__}, shown above)."
        ) from error
    if not isinstance(found, Tensor):
        raise InputError(
            f"The loss is a {type(found).__name__}, expected a tensor: a number, or "
            "one for each row."
        )
    return found.mean()
