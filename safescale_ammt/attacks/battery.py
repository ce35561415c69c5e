"""The battery: attacks one after another, each on the rows that are left.

    white box -> AdvGAN -> networks that are given -> Square
    -> checks -> escalation -> checks

A row is broken where a point inside the ball and the range is answered wrong, asked
once more; which attack found it first, and how far away, stands in the table. So the
robust accuracy is the worst case of each row over all attacks, never above the
accuracy, and an upper bound of what every perturbation leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from safescale_ammt.attacks.attempt import Attack, Attempt, Classifier, RowBall
from safescale_ammt.attacks.outcome import CLEAN, NOBODY, Outcome
from safescale_ammt.attacks.planted import Detached, Noise, Quantised, Saturated
from safescale_ammt.attacks.sanity import Flag, checks, compared
from safescale_ammt.attacks.seeds import generator_of, module_digest
from safescale_ammt.attacks.square import square
from safescale_ammt.attacks.surrogate import distilled
from safescale_ammt.attacks.tiers import (
    ESCALATED_WHITE,
    TIERS,
    WHITE,
    Tier,
    black_box,
    escalation,
    from_train,
    past_walls,
    white_box,
)
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.errors import InputError, one_of
from safescale_ammt.model.answers import deployed

Confirmed = Callable[[Tensor, Tensor], Tensor]
"""Points and labels -> which points are answered wrong (B,)."""
BLOCK = 500
"""Rows that are attacked together, which bounds memory."""
ROUNDING = 1e-5
"""Share of the radius that a change may be too long by, as its numbers are rounded."""


class Battery:
    """A battery under way.

    Args:
        target: what is attacked.
        x: rows (n, ...).
        y: labels, class codes (n,).
        threat: what the attacker may change.
        secret: the evaluator's, from which seeds follow.
        confirmed: has the last word where the target answers wrong.
    """

    def __init__(
        self,
        target: Classifier,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        secret: bytes,
        *,
        confirmed: Confirmed | None = None,
    ) -> None:
        self._target, self._x, self._y, self._threat = target, x, y, threat
        self._confirmed = confirmed
        self.digest = module_digest(target.module)
        self.seeded = partial(generator_of, secret, self.digest)
        wrong = torch.cat([target.codes(part) for part in torch.split(x, BLOCK)]) != y
        wrong = self._confirm(wrong, x, y)
        self.names: list[str] = []
        self.broken_by = torch.where(wrong, CLEAN, NOBODY)
        self.distance = torch.where(wrong, 0.0, torch.nan).double()
        self.points = x.clone()

    def attempt(self, at: Tensor, name: str) -> Attempt:
        """Returns the attempt of some rows, seeded by a name."""
        rows = self._x[at], self._y[at]
        return Attempt.of(self._target, *rows, self._threat, self.seeded(name))

    def run(self, name: str, attack: Attack) -> None:
        """Attacks the rows that are left, and takes down which are broken."""
        number, blocks = len(self.names), torch.split(self.left(), BLOCK)
        self.names.append(name)
        for place, at in enumerate(blocks):
            if not len(at):
                continue
            attempt = self.attempt(at, f"{name} {place}")
            moved = attack(attempt)
            found = self.wrong_inside(attempt, moved)
            self.broken_by[at[found]] = number
            self.distance[at[found]] = attempt.ball.lengths(moved)[found].double()
            self.points[at[found]] = moved[found]

    def left(self) -> Tensor:
        """Returns the numbers of the rows that nothing has broken."""
        return (self.broken_by == NOBODY).nonzero()[:, 0]

    def wrong_inside(self, attempt: Attempt, moved: Tensor) -> Tensor:
        """Returns at which points inside ball and range an answer is wrong (B,)."""
        # Asked again: an attack's own word for a point may be of another one.
        wrong = self._target.codes(moved) != attempt.y
        bound = self._threat.eps * (1 + ROUNDING) + torch.finfo(moved.dtype).eps
        inside = attempt.ball.lengths(moved) <= bound
        if self._threat.range is not None:
            low, high = self._threat.range
            kept = (moved >= low) & (moved <= high)
            inside &= kept.flatten(1).all(1)
        return self._confirm(wrong & inside, moved, attempt.y)

    def _confirm(self, wrong: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Returns which of the wrong answers (B,) are confirmed."""
        at = wrong.nonzero()[:, 0]
        if self._confirmed is None or not len(at):
            return wrong
        wrong = wrong.clone()
        wrong[at] = self._confirmed(x[at], y[at])
        return wrong

    def by_any(self, names: Sequence[str], at: Tensor) -> Tensor:
        """Returns which of some rows attacks of these names have broken."""
        numbers = [n for n, name in enumerate(self.names) if name in names]
        return torch.isin(self.broken_by[at], torch.tensor(numbers, device=at.device))


def run_battery(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    tier: str = "full",
    secret: bytes = b"",
    surrogates: Mapping[str, nn.Module] | None = None,
    confirmed: Confirmed | None = None,
    train_rows: Tensor | None = None,
) -> Outcome:
    """Attacks a module by all that the battery has.

    The module is not changed, and answers as it will when it is deployed. It has to
    answer equal rows by equal logits.

    Args:
        module: of classes: answers rows by logits, a column a class, or one column, the
            logit of class 1 of two.
        x: rows that it did not learn (n, ...), numbers with a point, on its device.
        y: labels, class codes (n,).
        threat: norm, radius and range of the changes, in the units of x.
        tier: `smoke`, `full` or `release`: how long is searched.
        secret: of the evaluator; whoever trained the module must not know it.
        surrogates: other modules for the same rows, by name: their slopes are tried.
        confirmed: tells which points (B, ...) are answered otherwise than by labels
            (B,), where the module stands for something that has the last word.
        train_rows: rows of the train split (m, ...), none of `x`: AdvGAN learns on
            them, in `full` and `release`. Without them it is not run.

    Raises:
        InputError: rows, labels or module cannot be used; nothing has been attacked.
    """
    if tier not in TIERS:
        raise InputError(f"The tier is {tier!r}, {one_of(TIERS, tier)}.")
    size, given = TIERS[tier], dict(surrogates or {})
    with deployed(nn.ModuleList([module, *given.values()])):
        target = Classifier(module)
        check_rows(target, x, y, threat)
        # Any whole numbers are codes, and rows may come from a graph of somebody's.
        x, y = x.detach(), y.detach().long()
        check_surrogates(target, x[:BLOCK], given)
        check_train_rows(x, train_rows, threat)
        battery = Battery(target, x, y, threat, secret, confirmed=confirmed)
        draws = battery.seeded("advgan learns")
        learnt = from_train(size, target, train_rows, threat, draws)
        each = white_box(size) | learnt | black_box(size, given)
        for name, attack in each.items():
            battery.run(name, attack)
        flags, escalated = judged(battery, size)
    return Outcome(
        threat,
        tier,
        battery.digest,
        tuple(battery.names),
        y.cpu().numpy().astype(np.int64),
        battery.broken_by.cpu().numpy(),
        battery.distance.cpu().numpy(),
        battery.points,
        flags,
        escalated,
    )


def judged(battery: Battery, tier: Tier) -> tuple[tuple[Flag, ...], bool]:
    """Returns what the checks say, after an escalation if they call for one.

    Args:
        battery: whose attacks have been run.
        tier: how long checks and escalation are.
    """
    right = (battery.broken_by != CLEAN).nonzero()[:, 0]
    if not len(right):
        return (), False
    order = torch.randperm(len(right), generator=battery.seeded("sample"))
    at = right[order[: tier.sample].to(right.device)]
    sample = battery.attempt(at, "checks")
    moved = square(sample, tier.queries)
    searched = battery.wrong_inside(sample, moved)

    white = battery.by_any(WHITE, at)
    first = tuple(checks(sample, white, searched, lambda attempt: attempt))
    if not tier.always and not any(flag.raised for flag in first):
        return first, False
    stand_in = distilled(battery.attempt(right, "stand-in"), tier.learning)
    for name, attack in escalation(tier, stand_in).items():
        battery.run(name, attack)
        if name in ESCALATED_WHITE:
            # On what random search has broken as well, which the battery leaves alone.
            rest = (~white).nonzero()[:, 0]
            part = sample.part(rest)
            if len(rest):
                white[rest] |= battery.wrong_inside(part, attack(part))
    second = [*checks(sample, white, searched, past_walls)]
    if tier.always:
        second.append(breaks_planted(stand_in, sample.ball))
    return tuple(second), True


def breaks_planted(module: nn.Module, ball: RowBall) -> Flag:
    """Says whether masks that are planted in a module keep the battery from it.

    Args:
        module: a network that hides nothing, in whose place masked ones are attacked
            (`planted`).
        ball: around the rows; labels are what the module answers.
    """
    x, y = ball.centre, Classifier(module).codes(ball.centre)

    def broken_of(*layers: nn.Module) -> Tensor:
        masked = nn.Sequential(*layers)
        outcome = run_battery(masked, x, y, ball.threat, tier="smoke")
        return ~torch.from_numpy(outcome.survived).to(x.device)

    bare = broken_of(module)
    masks = (
        (Quantised(), module),
        (module, Saturated()),
        (Detached(), module),
        (Noise(), module),
    )
    each = [compared("planted masks", bare, broken_of(*mask)) for mask in masks]
    return max(each, key=lambda flag: flag.value)


def check_rows(target: Classifier, x: Tensor, y: Tensor, threat: Threat) -> None:
    """Refuses rows, labels and modules that no battery can be run on.

    Raises:
        InputError: says what is wrong, and shows no row.
    """
    # In 16 bits a step rounds away, and a ball's surface is a rounding wide.
    numbers = x.dtype in (torch.float32, torch.float64)
    if not numbers or x.dim() < 2 or len(x) != len(y) or not x.numel():
        raise InputError(
            f"Rows are {tuple(x.shape)} of {x.dtype} and labels {tuple(y.shape)}; "
            "attacks need numbers of 32 or 64 bits with a point (rows, ...) and as "
            "many labels."
        )
    if y.dim() != 1 or y.is_floating_point() or y.is_complex():
        raise InputError(
            f"Labels are {tuple(y.shape)} of {y.dtype}, expected codes of classes (n,)."
        )
    check_inside(x, threat, "rows")
    with torch.no_grad():
        first, again = (target.answer(x[:BLOCK]) for _ in range(2))
    if not bool(first[0].isfinite().all()):
        raise InputError(
            "The model answers rows by logits that are no finite numbers; nothing can "
            "be said of it under attack."
        )
    if not torch.equal(first[0], again[0]):
        raise InputError(
            "The model answers equal rows by different logits: what survives one draw "
            "may not survive the next. Attack a model that draws nothing."
        )
    classes = first[0].shape[1]
    least, most = int(y.long().min()), int(y.long().max())
    if least < 0 or most >= classes:
        raise InputError(
            f"Labels are {least} to {most}, but the model answers "
            f"{classes} classes: codes are 0 to {classes - 1}."
        )


def check_inside(x: Tensor, threat: Threat, what: str) -> None:
    """Refuses rows outside of a threat's range, and such that are no numbers.

    Raises:
        InputError: says how many, and shows no row.
    """
    low, high = threat.range or (-torch.inf, torch.inf)
    outside = int((~((x >= low) & (x <= high))).flatten(1).any(1).sum())
    if outside or not bool(x.isfinite().all()):
        raise InputError(
            f"{outside} of {len(x)} {what} are outside of {threat.name} or no numbers; "
            "declare a range that holds all rows, or leave such rows out."
        )


def check_train_rows(x: Tensor, rows: Tensor | None, threat: Threat) -> None:
    """Refuses rows of the train split that are not of the form of those attacked.

    Raises:
        InputError: says what is wrong, and shows no row.
    """
    if rows is None:
        return
    if rows.dtype != x.dtype or rows.shape[1:] != x.shape[1:] or not len(rows):
        raise InputError(
            f"Train rows are {tuple(rows.shape)} of {rows.dtype}, expected (rows, "
            f"{', '.join(map(str, x.shape[1:]))}) of {x.dtype} like those attacked."
        )
    check_inside(rows, threat, "train rows")


def check_surrogates(
    target: Classifier, x: Tensor, surrogates: Mapping[str, nn.Module]
) -> None:
    """Refuses networks that do not answer the same rows with the same classes.

    Raises:
        InputError: names the network.
    """
    with torch.no_grad():
        wanted = tuple(target.answer(x)[0].shape)
        for name, module in surrogates.items():
            try:
                found = tuple(Classifier(module).answer(x)[0].shape)
            except RuntimeError as error:
                raise InputError(
                    f"The surrogate {name!r} does not answer rows {tuple(x.shape)} of "
                    f"{x.dtype}: {error}"
                ) from error
            if found != wanted:
                raise InputError(
                    f"The surrogate {name!r} answers {len(x)} rows by logits {found}, "
                    f"the model by {wanted}; give networks for the same classes."
                )
