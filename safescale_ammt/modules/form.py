"""Form: modules that answer as one, deciding at a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as tree

from safescale_ammt.model.answers import as_columns
from safescale_ammt.model.predictor import Prediction
from safescale_ammt.modules.copies import call, to_device
from safescale_ammt.modules.fair_head import Head, Headed


@dataclass(frozen=True)
class ModuleForm:
    """A form of a model: modules whose answers are averaged (`nets.ModelForm`).

    Attributes:
        modules: not training, weights and statistics set.
        form: soup, best, ensemble, twin or a step between.
        positive: code of the positive class, or None.
        predicts_numbers: whether it is a regression.
        threshold: least score that is answered positive, of two classes.
        head: corrects the only module's logit, if there is one.
        architectures: numbers of the user's modules that these are copies of.
    """

    modules: tuple[nn.Module, ...]
    form: str
    positive: int | None
    predicts_numbers: bool
    threshold: float = 0.5
    head: Head | None = None
    architectures: tuple[int, ...] = (0,)

    @property
    def answering(self) -> tuple[nn.Module, ...]:
        """What is averaged: the modules, or the only one with its head."""
        if self.head is None:
            return self.modules
        (module,) = self.modules
        return (Headed(module, self.head),)

    @property
    def members(self) -> int:
        """Modules whose answers are averaged."""
        return len(self.modules)

    def at(self, threshold: float) -> ModuleForm:
        """Returns the same form, deciding at another threshold."""
        return replace(self, threshold=threshold)

    def logits(self, inputs: object) -> NDArray[np.float64]:
        """Returns the members' mean answer to rows (B, n_out)."""
        first = next(self.modules[0].parameters())
        inputs = to_device(inputs, first.device, first.dtype)
        with torch.no_grad():
            found = [
                as_columns(call(m, unshared(inputs))).double().cpu()
                for m in self.answering
            ]
        return torch.stack(found).mean(0).numpy()

    def answer(self, inputs: object) -> Prediction:
        """Answers rows: a score and a class, or the number twice."""
        out = torch.from_numpy(self.logits(inputs))
        if self.predicts_numbers:
            return Prediction(out.numpy(), out.numpy())
        if out.shape[1] > 2:
            chance, prediction = torch.softmax(out, 1), out.argmax(1)
            scores = (
                chance.amax(1) if self.positive is None else chance[:, self.positive]
            )
            return Prediction(scores.numpy(), prediction.numpy())
        logit = out[:, 0] if out.shape[1] == 1 else out[:, 1] - out[:, 0]
        score = torch.sigmoid(logit).numpy()
        return Prediction(score, (score >= self.threshold).astype(np.int64))

    def module(self) -> nn.Module:
        """Returns the form as one module, whose logit 0 is the threshold."""
        alone = self.members == 1 and self.threshold == 0.5
        own = self.answering
        return own[0] if alone else Averaged(own, self.threshold)


class Averaged(nn.Module):
    """Modules whose answers are averaged, moved so that logit 0 is the threshold."""

    def __init__(self, members: Sequence[nn.Module], threshold: float = 0.5) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        at = min(max(threshold, 1e-12), 1 - 1e-12)
        self.shift = math.log(at / (1 - at))

    def forward(self, *args: object, **named: object) -> Tensor:
        """Returns the mean of the members' answers."""
        own = [unshared((args, named)) for _ in self.members]
        each = zip(self.members, own, strict=True)
        out = torch.stack([member(*a, **n) for member, (a, n) in each]).mean(0)
        if not self.shift:
            return out
        # The logit of class 1, which is the last one of two.
        return (
            torch.cat([out[..., :-1], out[..., -1:] - self.shift], -1)
            if (out.dim() > 1)
            else out - self.shift
        )


def unshared(inputs: Any) -> Any:
    """Returns copies of inputs: one module may write on them, and another is asked."""
    return tree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, inputs)
