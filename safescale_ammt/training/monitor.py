"""The live monitor: bets on rows that no net has seen that a promise is broken.

At every dual update, once the multipliers had time to act, the soup of the agents
answers the next rows of the split *monitor*. No agent, tuner or dual update ever
reads these, and each is answered once, so that a look is a fresh draw whatever the
training has done so far: `binomial.two_rate_bets` turns it into wealth.

    wealth    mean over pairs (both signs, all groups, all principles) and beliefs
    alarm     wealth >= 1 / alpha_j; the ladder of corrections takes its next rung,
              and the bets begin again from 1 at alpha_{j+1}
    budget    alpha_1 = alpha / 2, alpha_2 = ... = alpha_5 = alpha / 8; with
              `num_agents: auto` each number of agents has an equal part of alpha

P(any alarm while every true gap is within its tau) <= alpha: each process is bounded
by Ville's inequality, and the parts add up to alpha. Labels of *monitor* must be
trusted; wrong ones in the rows that train change nothing in the bound. Ratios, errors
and floors are no differences of two rates: nobody bets on them, and the log says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safescale_ammt.training.bets import Bets
from safescale_ammt.training.corrections import RUNGS, Alarm, Ladder
from safescale_ammt.training.dual_update import DualUpdate, cell_hits
from safescale_ammt.training.folds import strata_of, stratified_folds
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.nets import Rows
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.sampling import Batches
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.sync import Sharing
from safescale_ammt.training.training_log import Log

BURN_IN = 1 / 3
"""Share of the steps after the trunk before the first look: it is unconstrained."""
SETTLE = 5
"""Dual updates after a correction without a look, so that it can act."""
_LEAST = 2
"""Rows of the smallest cell in a look, on average."""
_LOTS = 1 << 30
"""Lots that are drawn for rows: many, so that each architecture has as many."""


def burnt_in(plan: Plan) -> int:
    """Returns the first step at which the monitor may look."""
    return plan.trunk_steps + int(BURN_IN * (plan.steps - plan.trunk_steps))


def rounds(plan: Plan) -> int:
    """Returns the dual updates from then on; 0 where nothing is to be monitored.

    A run without a twin is one of the search: its rows would be a tuner's.
    """
    unwatched = plan.config.monitor == "none" or len(plan.slots) == len(plan.roles)
    if unwatched or not any(pair.is_gap for pair in plan.constraints.pairs):
        return 0
    updates = range(plan.trunk_steps, plan.steps, plan.config.dual_every)
    return sum(step >= burnt_in(plan) for step in updates)


def fresh_rows(plan: Plan) -> Rows:
    """Returns the rows of *monitor*, of each entity one: draws of their own."""
    rows = plan.nets.rows("monitor")
    if rows.entity is None:
        return rows
    generator = torch.Generator().manual_seed(plan.seed("monitor entities"))
    order = torch.randperm(len(rows), generator=generator)
    # Of each entity the row that comes first in a random order.
    first = torch.full((int(rows.entity.max()) + 1,), len(rows))
    first.scatter_reduce_(0, rows.entity[order], torch.arange(len(rows)), "amin")
    return rows.where(order[first[first < len(rows)]].sort().values)


class Monitor:
    """Answers fresh rows, bets against the promises, and raises alarms.

    Args:
        plan: of the agents.
        ladder: what an alarm sets off; it knows nets, multipliers and batches.
        log: receives looks, alarms and corrections.

    Attributes:
        used: which of the rows were answered (n,).
        alarms: so far.
        bets: since the last alarm.
    """

    def __init__(self, plan: Plan, ladder: Ladder, log: Log) -> None:
        self._plan, self._ladder, self._log = plan, ladder, log
        self.alarms, self._looks, self._pause = 0, 0, 0
        self._updates, self._exceeding = 0, 0
        self.bets = Bets.on(plan.constraints)
        self._turn, self._turns = torch.zeros(0, dtype=torch.int32), 0
        self._rounds = rounds(plan)
        if self._rounds:
            self._rows = fresh_rows(plan)
            self._inside = plan.constraints.membership(self._rows.groups, self._rows.y)
            # Nobody bets on rows under attack: they are not attacked here.
            self._inside &= plan.constraints.under(None)[:, None]
            sides = np.unique(self.bets.sides[self.bets.watched])
            smallest = int(self._inside[torch.from_numpy(sides)].sum(1).min())
            # A block needs rows of every cell: of few, looks are fewer.
            self._turns = min(self._rounds, smallest // _LEAST)
        if self._turns:
            strata = strata_of(self._rows, plan.constitution)
            self._turn = stratified_folds(strata, self._turns, plan.seed("monitor"))
        lots = torch.Generator().manual_seed(plan.seed("monitor architectures"))
        self._lots = torch.randint(_LOTS, (len(self._turn),), generator=lots)
        self.used = torch.zeros(len(self._turn), dtype=torch.bool)

    @property
    def alpha(self) -> float:
        """What the bets that go on may spend of the error budget."""
        share = 0.5 if self.alarms == 0 else 0.5 / (len(RUNGS) - 1)
        config = self._plan.config
        return config.monitor_alpha * share / len(config.agent_counts)

    def look(self, step: int, descriptive: Mapping[str, float]) -> None:
        """Answers the fresh rows that are due, and acts on what they show.

        Args:
            step: of the dual update that has just moved the multipliers.
            descriptive: principle id -> gap on reused rows - tau; it decides nothing
                but which soup `roll_back` may go back to.

        Raises:
            Refusal: the last rung of the ladder: a person has to look.
        """
        if step < burnt_in(self._plan) or not self._rounds:
            return
        self._updates += 1
        self._exceeding += any(value > 0 for value in descriptive.values())
        # Not at the start, which a run that goes on from a checkpoint has twice.
        if self._updates == 1 and not self._turns:
            reason = "Nothing is monitored: split monitor has under "
            reason += f"{_LEAST} rows of a group that is compared."
            self._log({"event": "left_out", "step": step, "reason": reason})
        self._pause = max(0, self._pause - 1)
        due = min(self._turns, self._updates * self._turns // self._rounds)
        if due > self._looks and not self._pause and self.alarms < len(RUNGS):
            index = (self._turn >= self._looks) & (self._turn < due)
            self._looks = due
            self.bet(step, index.nonzero()[:, 0], descriptive)
        if self._updates == self._rounds:
            self.end(step)

    def stop(self, step: int) -> None:
        """Ends with what was seen so far, where training stops early.

        Args:
            step: of the last update.
        """
        if self._rounds and not self._updates:
            reason = "Nothing was monitored: training ended before the first look."
            self._log({"event": "left_out", "step": step, "reason": reason})
        elif self._updates < self._rounds:
            self.end(step)

    def end(self, step: int) -> None:
        """Logs what was seen in all, and calls a person where nothing was mended.

        Args:
            step: of the last update.
        """
        self._log(self.violations())
        if self.alarms and (reason := self.unmended(step)):
            self._log({"event": "escalated", "step": step, "reason": reason})

    def bet(self, step: int, index: Tensor, descriptive: Mapping[str, float]) -> None:
        """Answers fresh rows by their numbers, and bets on what the soup says.

        Args:
            step: at which they are answered.
            index: row numbers (m,), of rows that were not answered before.
            descriptive: as in `look`.
        """
        self.used[index] = True
        soups, inside = self._ladder.soups(), self._inside[:, index]
        nets, pledged = self._plan.nets, self._plan.constraints
        hits = torch.zeros(len(inside))
        # Of several architectures chance says which one answers a row: what is bet on
        # is then their mean rate, as the multipliers are moved by it.
        for i, soup in enumerate(soups):
            own = self._lots[index] % len(soups) == i
            rows = self._rows.where(index[own])
            hits += cell_hits(nets, pledged, soup, rows, inside[:, own])
        # An answer may differ in a bit between processors, and a bet with it.
        self._ladder.placement.broadcast(hits)
        self.bets.add(*(t.to(torch.float64).numpy() for t in (hits, inside.sum(1))))
        figures = {**self.figures(step), "descriptive": dict(descriptive)}
        self._log({"event": "monitor", **figures})
        if self.bets.wealth >= 1 / self.alpha:
            self.alarm(step)
        elif self.bets.wealth <= 1 and not any(v > 0 for v in descriptive.values()):
            self._ladder.keep(soups, step)

    def alarm(self, step: int) -> None:
        """Logs an alarm and takes the next rung, unless it is only to be observed."""
        against, differences = self.bets.of_pairs, self.bets.differences
        worst = int(against.argmax())
        pair, alpha = self._plan.constraints.pairs[worst], self.alpha
        reason = (
            f"Fresh rows show that {pair.principle} is broken: {pair.name} is about "
            f"{differences[worst]:.3f}, its tau {self.bets.tau[worst]:g} (alarm "
            f"{self.alarms + 1} of at most {len(RUNGS)})."
        )
        event = {"event": "alarm", **self.figures(step), "alpha": alpha}
        event |= {"principle": pair.principle, "pair": pair.name, "reason": reason}
        self._log(event)
        self.alarms += 1
        if self._plan.config.monitor == "correct":
            found = Alarm(step, differences, against > 1, reason)
            self._log(self._ladder.take(self.alarms - 1, found))
            self._pause = SETTLE
        # Wealth 1, and no belief from nets that were corrected.
        self.bets = Bets.on(self._plan.constraints)

    def unmended(self, step: int) -> str:
        """Says why a person should look at a training that was corrected; "" if well.

        It is well if no gap of fresh rows since the last correction is above its tau,
        the bets have not gained, and there are as many pairs as the constitution asks
        of a group's positives.
        """
        bets, least = self.bets, self._plan.constitution.groups.min_pos
        well = bets.wealth <= 1 and (bets.differences <= bets.tau).all()
        if well and bets.fresh_pairs >= least:
            return ""
        gaps = self.figures(step)["gap"].items()
        told = ", ".join(f"{name} {gap:.3f}" for name, gap in gaps)
        return (
            f"Alarms: {self.alarms}. Fresh rows since the last do not show that it is "
            f"mended ({told}, on {bets.fresh_pairs} pairs); a person should look at "
            "the labels that train."
        )

    def figures(self, step: int) -> dict[str, Any]:
        """Returns what an event shows: counts and rates of groups, no row's value."""
        gaps: dict[str, float] = {}
        for pair, value in zip(
            self._plan.constraints.pairs, self.bets.differences.tolist(), strict=True
        ):
            if pair.is_gap:
                gaps[pair.principle] = max(value, gaps.get(pair.principle, 0.0))
        return {
            "step": step,
            "rows": int(self.used.sum()),
            "fresh_pairs": self.bets.fresh_pairs,
            "wealth": self.bets.wealth,
            "gap": gaps,
        }

    def violations(self) -> dict[str, Any]:
        """Returns the exceedances per 1,000 steps: alarms, and updates of reused rows.

        Reused rows are those that steer. Their share of updates above some tau is
        `descriptive`: no bound holds for it.
        """
        steps = self._updates * self._plan.config.dual_every
        return {
            "event": "violations",
            "steps": steps,
            "alarms": self.alarms,
            "alarms_per_1000_steps": 1000 * self.alarms / steps,
            "descriptive_per_1000_steps": 1000 * self._exceeding / self._updates,
        }

    def state_dict(self) -> StateDict:
        """Returns the rows used, the wealth, and what the corrections have changed."""
        counts = (self.alarms, self._looks, self._pause, self._updates, self._exceeding)
        bets = self.bets
        own = {"log_wealth": bets.log_wealth, "hits": bets.hits, "sizes": bets.sizes}
        tensors = {name: torch.from_numpy(value.copy()) for name, value in own.items()}
        tensors |= {"used": self.used, "counts": torch.tensor(counts)}
        return StateDict(common=tensors | self._ladder.tensors())

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there; nets and batches take their own states after it."""
        own = dict(state.common)
        self.used, bets = own.pop("used"), self.bets
        self.alarms, self._looks, self._pause, *others = own.pop("counts").tolist()
        self._updates, self._exceeding = others
        bets.log_wealth = own.pop("log_wealth").numpy()
        bets.hits, bets.sizes = own.pop("hits").numpy(), own.pop("sizes").numpy()
        self._ladder.load_tensors(**own)


def watch(
    plan: Plan,
    log: Log,
    placement: Placement,
    *,
    learner: Learner,
    dual: DualUpdate,
    sharing: Sharing,
    batches: Batches,
) -> Monitor:
    """Returns the monitor of agents that have just parted."""
    ladder = Ladder(
        plan,
        placement,
        learner=learner,
        dual=dual,
        sharing=sharing,
        batches=batches,
    )
    return Monitor(plan, ladder, log)
