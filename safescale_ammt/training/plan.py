"""The plan of a training run: everything that is decided before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import LEAST_TRUNK, TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.promise_warnings import not_aimed_at
from safescale_ammt.errors import DataError
from safescale_ammt.training.architectures import dealt
from safescale_ammt.training.changed_rows import (
    ChangedNets,
    views_with_copies,
    with_copies,
)
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.enforcement import enforce
from safescale_ammt.training.folds import strata_of, stratified_folds
from safescale_ammt.training.nets import Nets, Rows
from safescale_ammt.training.roles import TWIN, assign
from safescale_ammt.training.seeds import derived_seed

if TYPE_CHECKING:
    from safescale_ammt.training.checkpoint import Checkpoints
    from safescale_ammt.training.encoded import EncodedRows

POOL = ("train", "constraint")
"""Splits that nets train on: of all others somebody asks what no net has seen."""
NO_COPIES = (
    "training.changed_copies is read by nets and trees of a table, under a promise of "
    "robust_accuracy whose changes some of its rows permit: there is none here."
)
LEAST_FOLDS = 4
"""Fewer agents than this still keep three quarters of the rows each."""


@dataclass(frozen=True)
class Plan:
    """Roles, data views and schedule of k agents and, perhaps, the twin.

    Attributes:
        nets: what is trained, on which dataset.
        config: the training section.
        constitution: names the enforced principles.
        rows: the rows of the nets' pool; behind them changed copies, if there are any.
        constraints: what is enforced on them.
        roles: of the k agents.
        slots: roles of all nets: the agents', then the twin's if there is one.
        held_out: row numbers int32 that each agent sets aside.
        views: row numbers int32 that each trains on; the last view is all rows.
        strata: label x group columns of the constitution, per row (n,).
        trunk_steps: steps before the agents part.
        steps: steps of each net in all.
        before: steps that fewer agents took before, which were not enough.
        share: of all agents' steps that the trunk may take; 0 = its own alone.
        net_steps: those of all together, of one net where epochs bound them, over which
            the rate of a trunk falls that may go on; the agents' begins anew. 0 = there
            is one rate for both.
        copies: changed copies behind the rows, in views alone.
    """

    nets: Nets
    config: TrainingConfig
    constitution: Constitution
    rows: Rows
    constraints: Constraints
    roles: tuple[Role, ...]
    slots: tuple[Role, ...]
    held_out: tuple[Tensor, ...]
    views: tuple[Tensor, ...]
    strata: Tensor
    trunk_steps: int
    steps: int
    before: int = 0
    share: float = 0.0
    net_steps: int = 0
    copies: int = 0

    @property
    def batch_size(self) -> int:
        """Rows per step and net: no more than the smallest view has."""
        return min(self.config.batch_size, *(len(view) for view in self.views))

    def learning_rate(self, step: int) -> float:
        """Returns the rate of a step: linear warm-up, then down to 0."""
        begin, end = 0, self.net_steps or self.steps
        if self.net_steps and step >= self.trunk_steps:
            begin, end = self.trunk_steps, self.steps
        since = step - begin
        # Plus one: step 0 would otherwise have rate 0 and be no step at all.
        warmup = min(1.0, (since + 1) / max(1, self.config.warmup_steps))
        # A line falls at once and is still high near the end; a cosine is not.
        passed = since / (end - begin)
        falling = 1 - passed
        if self.config.schedule == "cosine":
            falling = (1 + math.cos(math.pi * passed)) / 2
        return self.config.learning_rate * warmup * falling

    def events(self) -> Iterator[dict[str, Any]]:
        """Yields what the log begins with: the plan, and what it leaves out."""
        device = self.nets.device
        other: dict[str, Any] = {} if device.type == "cpu" else {"device": str(device)}
        other |= {"changed_copies": self.copies} if self.copies else {}
        yield {"event": "plan", "steps": self.steps, **other}
        for reason in () if self.copies else not_aimed_at(self.constitution):
            yield {"event": "left_out", "reason": reason}
        if self.config.changed_copies and not self.copies:
            yield {"event": "unapplied", "reason": NO_COPIES}
        for reason in self.constraints.left_out:
            yield {"event": "left_out", "reason": reason}
        if self.config.monitor != "none" and len(self.slots) > len(self.roles):
            for name in self.constraints.unwatched:
                reason = f"{name} is not monitored: the bets are on differences of two "
                reason += (
                    "rates. The multipliers measure it, and the model is judged by it."
                )
                yield {"event": "left_out", "reason": reason}
        for reason in self.nets.unapplied(self.config):
            yield {"event": "unapplied", "reason": reason}

    def under(self, config: TrainingConfig) -> Plan:
        """Returns the plan under a section of another length, or of another batch."""
        trunk, own = parts(config, len(self.roles), self.share)
        together = trunk + own * (1 if config.max_epochs else len(self.roles))
        return replace(
            self,
            config=config,
            trunk_steps=trunk,
            steps=trunk + own,
            net_steps=together if trunk > config.trunk_steps else 0,
        )

    def seed(self, use: str) -> int:
        """Derives an independent seed below 2^62 for one use of randomness."""
        return derived_seed(self.config.seed, use)


def make_plan(
    nets: Nets,
    config: TrainingConfig,
    constitution: Constitution,
    *,
    twin: bool = True,
    agents: int | None = None,
) -> Plan:
    """Deals out roles and folds.

    Args:
        nets: what is trained, on which dataset.
        config: the training section.
        constitution: names the enforced principles.
        twin: whether there is one.
        agents: how many; None is the first number that the section names.

    Raises:
        ConfigError: an unknown role.
        DataError: too few rows for the folds.
    """
    rows = nets.rows(*nets.pool)
    roles = assign(nets.roles(config), agents or config.agent_counts[0])
    folds = min(config.folds, max(LEAST_FOLDS, len(roles)))
    draws = len(rows) if rows.entity is None else int(rows.entity.max()) + 1
    if draws < 2 * folds:
        raise DataError(
            f"The splits {' and '.join(nets.pool)} hold {draws} {nets.unit}, too "
            f"few for {folds} folds; give more rows or fewer training.folds."
        )
    constraints = enforce(constitution, nets.groups, rows.groups, rows.y, nets.outcomes)
    strata = strata_of(rows, constitution)
    seed = derived_seed(config.seed, "folds")
    fold = stratified_folds(strata, folds, seed, rows.entity)
    # With more agents than folds, agents i and i + folds hold out the same one: an
    # agent never gives up more than one fold of its rows.
    # They share its row numbers, which are four bytes each.
    cut = [
        [mask.nonzero()[:, 0].to(torch.int32) for mask in (fold == i, fold != i)]
        for i in range(min(folds, len(roles)))
    ]
    # The twin answers for what the constitution costs, so it sees all rows.
    everything = torch.arange(len(rows), dtype=torch.int32)
    judged = bool(constraints.pairs) or len(config.agent_counts) > 1
    # Several architectures have a trunk each, and no one net to go on with.
    several = bool(dealt(nets, roles).any())
    share = 0.0 if several else config.branch_share(judged=judged)
    if not (judged or (nets.sets_aside and share == 0)):
        # Nobody would look at what was set aside, or a long trunk has learnt it.
        cut = [[everything[:0], everything]] * folds
    held_out, views = zip(*(cut[i % folds] for i in range(len(roles))), strict=True)
    views, copies = (*views, everything), 0
    threats = constitution.table_threats
    if threats and config.changed_copies and isinstance(nets, ChangedNets):
        seed = derived_seed(config.seed, "changed copies")
        changed, origins = nets.changed(threats, config.changed_copies, seed)
        if changed is not None:
            copies = len(changed)
            views = views_with_copies(views, origins, len(rows))
            rows = with_copies(cast("EncodedRows", rows), changed, origins)
            strata = torch.cat([strata, strata[origins]])
    if config.max_epochs:
        steps = config.max_epochs * math.ceil(len(rows) / config.batch_size)
        config = of_length(config, min(config.steps, steps))
    plan = Plan(
        nets=nets,
        config=config,
        constitution=constitution,
        rows=rows,
        constraints=constraints,
        roles=roles,
        slots=(*roles, *(TWIN,) * twin),
        held_out=held_out,
        views=views,
        copies=copies,
        strata=strata,
        trunk_steps=config.trunk_steps,
        steps=config.steps,
        share=share,
    )
    return plan.under(config)


def parts(config: TrainingConfig, agents: int, share: float) -> tuple[int, int]:
    """Returns the steps that the trunk takes at most, and those of each agent.

    Where epochs are named no net passes over the rows more often, and the trunk takes
    its share of one net's steps in place of all agents'.

    Args:
        config: the training section, whose net-steps these are (`branching`).
        agents: how many share them.
        share: that the trunk may take; 0 = its own steps alone.
    """
    trunk, own = config.trunk_steps, config.steps - config.trunk_steps
    side_by_side = 1 if config.max_epochs else agents
    longer = math.floor(share * (trunk + side_by_side * own))
    # Who asks for no trunk gets none.
    if not trunk or longer <= trunk:
        return trunk, own
    return longer, max(1, (trunk + side_by_side * own - longer) // side_by_side)


def of_length(config: TrainingConfig, steps: int) -> TrainingConfig:
    """Returns the section for so many steps, in which each phase keeps its share.

    The trunk could use up all of fewer steps, the learning rate would never reach its
    height, the average would remember the first weights, and nobody would look at the
    promises or share. Of more steps the trunk alone takes its share.
    """
    share = steps / config.steps
    trunk = round(config.trunk_steps * share)
    if config.tune == "population":
        # A race needs some steps, and is to cost the same part of the training.
        trunk = max(trunk, min(steps, LEAST_TRUNK))
        budget = max(1, round(config.tune_budget * share))
        every = max(1, round(config.tune_every * min(1.0, share)))
        config = replace(config, tune_budget=budget, tune_every=every)
    changed = replace(config, steps=steps, trunk_steps=trunk)
    if share >= 1:
        return changed
    # The average forgets within 1 / (1 - ema) steps: that is its length.
    return replace(
        changed,
        warmup_steps=round(config.warmup_steps * share),
        ema=max(0.0, 1 - (1 - config.ema) / share),
        sync_every=max(1, round(config.sync_every * share)),
        dual_every=max(1, round(config.dual_every * share)),
    )


def attempts(plan: Plan, checkpoints: Checkpoints) -> Iterator[Plan]:
    """Yields a plan and those of more agents that its section names.

    Args:
        plan: of the first number of agents.
        checkpoints: name the number that training goes on with.
    """
    counts = plan.config.agent_counts
    begun = [f"{k} agents" == checkpoints.phase for k in counts]
    for tried in range(begun.index(True) if any(begun) else 0, len(counts)):
        if tried == 0:
            yield plan
            continue
        twin, common = (
            len(plan.slots) > len(plan.roles),
            (plan.config, plan.constitution),
        )
        more = make_plan(plan.nets, *common, twin=twin, agents=counts[tried])
        yield replace(more, before=tried * (plan.steps - plan.trunk_steps))
