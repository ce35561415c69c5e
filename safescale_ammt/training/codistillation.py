"""Codistillation: agents of several architectures learn from each other's answers.

Weights of different architectures have no mean. Agents of one share weights as ever
(`sync`); between architectures they share predictions (Zhang et al. 2018,
arXiv:1706.00384; Anil et al. 2018, arXiv:1804.03235). To the loss of an agent of
architecture a comes

    w T^2 KL(q || p)      q = mean over architectures b != a of P_b(class | row; T)

with its own chances p at the temperature T, on the rows of its batch; where numbers are
predicted, w times the mean squared distance to the mean of the others' answers. T^2
keeps the gradient's size (Hinton et al. 2015).

What architecture b teaches is its consensus, which moves at the sync rounds: the
aggregate of the agents that may teach there, and of no other. Its teachers are thus
stale by at most `sync_every` steps. One that has no quorum in a round teaches nothing
until the next. The trunks learn from the labels alone, which is the burn-in; behind
them w grows from 0 in a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as f

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.errors import ConfigError
from safescale_ammt.training.architectures import dealt
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.sync import Round, Sharing
from safescale_ammt.training.training_log import Log, discard


@dataclass(frozen=True)
class Codistillation:
    """How agents of several architectures teach each other.

    Attributes:
        weight: w, of what the others say beside the labels; 0 is none.
        temperature: T, by which logits are divided; numbers have none.
        warmup: part of the steps behind the trunk in which w grows to its height.
        student: which architecture of the list the student of all agents is of.

    Raises:
        ConfigError: a number that means nothing.
    """

    weight: float = 1.0
    temperature: float = 1.0
    warmup: float = 0.1
    student: int = 0

    def __post_init__(self) -> None:
        """Checks types and ranges."""
        last = float("inf")
        for name, least, most, wanted in (
            ("weight", 0, last, "a number >= 0"),
            ("temperature", 1e-300, last, "a number > 0"),
            ("warmup", 0, 1, "0 to 1, a part of the steps"),
            ("student", 0, last, "the number of a model in the list"),
        ):
            value, kind = getattr(self, name), int if name == "student" else int | float
            fits = isinstance(value, kind) and not isinstance(value, bool)
            if not (fits and least <= value <= most and value < last):
                raise ConfigError(f"codistillation.{name} is {value!r}, not {wanted}.")

    def at(self, step: int, config: TrainingConfig) -> float:
        """Returns w at a step, counted from the first one that was taught."""
        rising = self.warmup * (config.steps - config.trunk_steps)
        return self.weight * min(1.0, (step + 1) / max(1.0, rising))

    def lesson(
        self, out: Tensor, answers: Sequence[Tensor], *, numbers: bool
    ) -> Tensor:
        """Returns how far an agent's answer is from those of its teachers.

        Args:
            out: its logits, or numbers that it predicts (B, n_out).
            answers: those of each teacher to the same rows.
            numbers: whether numbers are predicted.
        """
        if numbers:
            return f.mse_loss(out, torch.stack([*answers]).mean(0))
        heat = self.temperature
        word = torch.stack([log_chances(a, heat).exp() for a in answers]).mean(0)
        apart = f.kl_div(log_chances(out, heat), word, reduction="batchmean")
        return heat**2 * apart


def log_chances(out: Tensor, temperature: float) -> Tensor:
    """Returns the logarithms of chances (B, classes) of logits (B, n_out)."""
    if out.shape[1] == 1:
        # One logit is that of class 1 against one of 0.
        out = torch.cat([torch.zeros_like(out), out], 1)
    return torch.log_softmax(out / temperature, 1)


class SharingWithin(Sharing):
    """Agents of each architecture share weights among themselves.

    Args:
        starts: the first consensus of each architecture (m, P).
        of: which architecture each agent is of (k,).
        config: as of `Sharing`.
    """

    def __init__(self, starts: Tensor, of: Tensor, config: TrainingConfig) -> None:
        self._parts = [Sharing(start, config) for start in starts]
        self._of = of

    def share(
        self,
        theta: Tensor,
        *,
        usable: Tensor,
        eligible: Tensor,
        fitness: Callable[[], Tensor],
        step: int = 0,
        log: Log = discard,
    ) -> Round:
        """Runs the round of each architecture; changes theta (k, P) in place."""
        teachers, lost, outlying = [False] * len(theta), [], []
        word = []
        scores = cache(fitness)
        for i, part in enumerate(self._parts):
            at = (self._of == i).nonzero()[:, 0]
            own, slots = theta[at], at.tolist()
            found = part.share(
                own,
                usable=usable[at],
                eligible=eligible[at],
                # Called within the round alone.
                fitness=lambda at=at: scores()[at],  # type: ignore[misc]
            )
            theta[at] = own
            # Whose consensus has not moved says what agents said that may not teach.
            word += [part.consensus] if found.shared else []
            for slot, taught in zip(slots, found.teachers, strict=True):
                teachers[slot] = taught
            lost += [slots[row] for row in found.lost]
            outlying += [slots[row] for row in found.outlying]
        done = Round(
            len(word) == len(self._parts),
            tuple(teachers),
            tuple(sorted(lost)),
            tuple(sorted(outlying)),
            torch.stack(word) if word else theta[:0],
        )
        if done.eventful:
            log({"event": "share", "step": step, **done.to_dict()})
        return done

    def restart(self, *consensus: Tensor) -> None:
        """Begins again from a consensus (P,) of each architecture."""
        for part, own in zip(self._parts, consensus, strict=True):
            part.restart(own)

    def state_dict(self) -> StateDict:
        """Returns each architecture's consensus and velocity.

        A checkpoint comes before the round of its step, which says anew who teaches.
        """
        found = StateDict()
        for i, part in enumerate(self._parts):
            own = part.state_dict().common.items()
            found.common.update({f"{i}.{name}": tensor for name, tensor in own})
        return found

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there."""
        for i, part in enumerate(self._parts):
            names = ("consensus", "velocity")
            own = {name: state.common[f"{i}.{name}"] for name in names}
            part.load_state_dict(StateDict(common=own))


def sharing_of(plan: Plan, trunks: Tensor) -> Sharing:
    """Returns how agents that start as trunks (m, P) share: m is 1, or several."""
    if len(trunks) == 1:
        return Sharing(trunks[0], plan.config)
    return SharingWithin(trunks, dealt(plan.nets, plan.roles), plan.config)
