"""Robust accuracy: what is left of right answers under an attack in a small ball.

What an attack does not find may be there all the same: the figure is an upper bound of
the accuracy that every perturbation leaves. So a promise of it fails by an attack that
succeeds, and stays undecided where a model survives one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as tree

from safescale_ammt.attacks.ball import UNATTACKABLE, Ball, attackable
from safescale_ammt.attacks.pgd import STEPS, pgd
from safescale_ammt.binomial.intervals import clopper_pearson, rate_p_below
from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.constitution.principles import Principle
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.judging.findings import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Finding,
    GroupRate,
)
from safescale_ammt.model.answers import as_columns, deployed
from safescale_ammt.model.network import predicted
from safescale_ammt.modules.copies import call, to_device
from safescale_ammt.modules.form import ModuleForm
from safescale_ammt.modules.rows import BLOCK, GivenRows, ModuleRows
from safescale_ammt.training.constraints import ATTACKED


def attacked_logits(
    module: nn.Module, inputs: Any, label: Tensor, threat: Threat
) -> Tensor:
    """Returns what a module answers to rows that it is attacked at (B, n_out).

    Args:
        module: of classes.
        inputs: numbers with a point, where the module lies.
        label: class codes (B,).
        threat: what an attacker may change.
    """

    def answer(stacked: Any) -> Tensor:
        return as_columns(call(module, tree.tree_map(lambda x: x[0], stacked)))[None]

    stacked = tree.tree_map(lambda x: x[None], inputs)
    with deployed(module):
        moved = pgd(answer, label[None], Ball(threat, stacked, torch.ones(1)))
        with torch.no_grad():
            return answer(moved)[0]


def survived(model: ModuleForm, rows: ModuleRows, threat: Threat) -> Tensor:
    """Returns which rows a form answers right under attack, booleans (n,)."""
    module = model.module()
    first = next(module.parameters())
    found = []
    for block in rows.blocks():
        inputs = to_device(rows.batch(block), first.device, first.dtype)
        label = rows.y[block].to(first.device)
        logits = attacked_logits(module, inputs, label, threat)
        found.append((predicted(logits) == label).cpu())
    return torch.cat(found)


def out_of_range(rows: GivenRows, threats: Iterable[Threat]) -> Iterator[str]:
    """Says of each declared range how many rows lie outside of it.

    An attack moves such an input inwards alone, so that it looks safer than it is.
    """
    for low, high in dict.fromkeys(t.range for t in threats if t.range):
        found = 0
        for block in torch.split(torch.arange(len(rows)), BLOCK):
            parts = tree.tree_leaves(rows.inputs(block))
            wrong = [((x < low) | (x > high)).reshape(len(x), -1).any(1) for x in parts]
            found += int(torch.stack(wrong).any(0).sum())
        if found:
            yield (
                f"Attacks are told that inputs are in [{low:g}, {high:g}], but {found} "
                f"of {len(rows)} rows for validation have some outside, which attacks "
                "move inwards alone: they look safer than they are. Declare a range "
                "that holds all inputs, or none."
            )


def robust_accuracy(
    model: ModuleForm, rows: ModuleRows, threat: Threat, alpha: float
) -> dict[str, Any]:
    """Returns accuracy under attack with its bounds; the reason where there is none.

    Args:
        model: of classes.
        rows: that it was not fitted on.
        threat: what an attacker may change.
        alpha: level of each bound.
    """
    rows = rows.part(ATTACKED)
    if not attackable(rows.batch(torch.arange(1))):
        return {"eps": threat.eps, "reason": UNATTACKABLE}
    right = int(survived(model, rows, threat).sum())
    lower, upper = clopper_pearson(right, len(rows), alpha)
    return {
        "eps": threat.eps,
        "attack": f"pgd-{STEPS}, {threat.norm}",
        "rows": len(rows),
        "accuracy": right / len(rows),
        "lower": lower,
        "upper": upper,
    }


def judge_attacked(
    principle: Principle,
    model: ModuleForm,
    rows: ModuleRows,
    sizes: GroupRule,
    *,
    names: tuple[str, ...],
    alpha: float,
) -> Finding:
    """Judges a promise of robust accuracy: it fails, or it is undecided.

    One that no model can violate holds, and says that nothing is promised.

    Each group is tested at alpha by the number of groups that are judged (Bonferroni).

    Args:
        principle: the promise, under a threat.
        model: of classes.
        rows: that it was not fitted on.
        sizes: least rows of a group that is judged.
        names: values of the principle's group in code order; ("",) without one.
        alpha: one-sided error level.
    """
    c = principle.constraint
    assert c.threat is not None
    rows = rows.part(ATTACKED)
    right = survived(model, rows, c.threat)
    codes = rows.groups[c.group] if c.group else torch.zeros_like(rows.y)
    each = []
    for code, name in enumerate(names):
        of_group = right[codes == code]
        hits, n = int(of_group.sum()), len(of_group)
        low, high = clopper_pearson(hits, n, alpha) if n else (None, None)
        rate, judged = hits / n if n else None, not c.group or n >= sizes.min_n
        own = GroupRate(name, c.metric, n, 0, hits, n, rate, low, high, judged)
        each.append(own)
    known = [rate for rate in each if rate.trials and rate.judged]
    value = min((r.hits / r.trials for r in known), default=None)
    level = alpha / max(1, len(known))
    uppers = [clopper_pearson(r.hits, r.trials, level)[1] for r in known]
    p_each = [float(rate_p_below(r.hits, r.trials, c.line)) for r in known]
    p = min(1.0, len(known) * min(p_each, default=1.0))
    outcome = UNDECIDED
    if known and c.promises_nothing:
        outcome = HOLDS
    elif known and p <= alpha:
        outcome = FAILS
    upper = min(uppers, default=None)
    attack = f"pgd-{STEPS}"
    said = f"{c.metric}{c.over} cannot be judged: every group has too few rows."
    if value is not None:
        said = f"{c.metric}{c.over} is {value:.4f} against {attack}"
        said += {
            FAILS: f" and violates {c.op} {c.line:g} (p = {p:.2g}).",
            HOLDS: f"; no model can violate {c.op} {c.line:g}: nothing is promised.",
            UNDECIDED: ": what it does not find may be there all the same.",
        }[outcome]
    return Finding(
        principle=principle.id,
        metric=c.metric,
        group=c.group,
        tier=c.tier,
        op=c.op,
        threshold=c.line,
        value=value,
        # Nothing is known of the accuracy that every perturbation leaves from below.
        lower=None if value is None else 0.0,
        upper=upper,
        alpha=alpha,
        outcome=outcome,
        p_violated=p,
        method=f"Clopper-Pearson, {attack} {c.threat.norm}",
        reason=said,
        too_small=tuple(r.value for r in each if not r.judged),
        by_group=tuple(each) if c.group else (),
    )
