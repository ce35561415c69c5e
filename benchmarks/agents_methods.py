"""What `agents` compares: ways to spend the steps of k nets on one table.

A method trains at each of the same rates and keeps what has the least loss on
*validation* and *select*, the rows that stop, tune and choose for everybody. All take
the default genome, batches and weight averages of the product.

    single      one net of up to k times the steps, stopped where its loss was least
    best of k   k nets with weights of their own to start from, the best of them
    ensemble    the same k nets, answering together
    plain soup  k agents of one trunk that share nothing, the mean of their weights
    soup        the same, sharing as by default
    whole soup  the same, and no agent sets a fold of its rows aside
    branched    the soup of agents that part late: of all their steps the trunk may take
                the default's share (`training.branch`); it looks at *validation* alone
    together    these agents, answering together
    student     of these agents (`training.student`): `merge: distilled`
    relearnt    the soup, taught as long by the labels alone: `merge: refined`
    graduate    a student of the ensemble, with weights of its own to start from
    heads       one net of k TabM-like heads (`genome.heads`)
    tabm        TabM by its own package
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.agents_rows import HELD_OUT, Resplit
from safescale_ammt.config.sections import AUTO_BRANCH, TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.network import initial
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.genome_nets import GenomeLearner, GenomeNets
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import make_plan
from safescale_ammt.training.sampling import agent_batches, trunk_batches
from safescale_ammt.training.seeds import derived_seed
from safescale_ammt.training.student import learnt_on
from safescale_ammt.training.sync import Sharing
from safescale_ammt.training.trainer import Trained, learner_of, train
from safescale_ammt.training.training_log import discard

LOOKS = 4
"""Times in as many steps as an agent takes that a single run is looked at."""
PATIENCE = 8
"""Looks without a smaller loss after which it ends."""
STUDENT = 1
"""Steps of a student, in those of an agent: with a third of these for the trunk, k = 4
agents and a student take k times the steps of one net, as a single run may."""
RATES = (0.002, 0.006)
"""Peak learning rates that every method tries."""
UNCONSTRAINED = torch.zeros(0)
# A promise that any net keeps.
RELAXED = Constitution.from_dict(
    {
        "schema": 1,
        "principles": [
            {"id": "useful", "constraint": {"metric": "accuracy", "threshold": 0.001}}
        ],
    }
)
Logits = Callable[[EncodedRows], Tensor]
"""Answers rows (n,) with logits (n, n_out), or the logarithms of chances."""


@dataclass(frozen=True)
class Found:
    """A model of a method.

    Attributes:
        method: its name.
        members: nets that answer together.
        logits: what it says of rows.
        steps: net-steps that it took.
        cpu_s: CPU seconds of them.
    """

    method: str
    members: int
    logits: Logits
    steps: int
    cpu_s: float


class Figures(NamedTuple):
    """Accuracy and log loss (nats) on some rows."""

    accuracy: float
    loss: float


def figures(nets: GenomeNets, logits: Logits, rows: EncodedRows) -> Figures:
    """Measures a model on rows."""
    out = logits(rows)
    hits = nets.worth(out[None], rows.y)
    return Figures(float(hits.mean()), float(nets.row_losses(out, rows.y).mean()))


class WholeNets(GenomeNets):
    """Nets of which none sets rows aside where no promise asks for it."""

    sets_aside = False


@dataclass(frozen=True)
class Trial:
    """One re-split at one learning rate.

    Attributes:
        nets: of the default genome on the re-split.
        config: the training section of the agents.
    """

    nets: GenomeNets
    config: TrainingConfig

    @classmethod
    def of(cls, split: Resplit, config: TrainingConfig, genome: Genome) -> Trial:
        """Makes nets of a genome."""
        return cls(GenomeNets(split, genome), config)  # type: ignore[arg-type]

    @property
    def k(self) -> int:
        """Agents."""
        return self.config.agent_counts[0]

    def answers(self, theta: Tensor) -> Logits:
        """Returns what nets (k, P) answer together: the mean of their logits."""

        def logits(rows: EncodedRows) -> Tensor:
            parts = [
                self.nets.logits(theta, rows, b[None]).mean(0)
                for b in rows.blocks(len(theta))
            ]
            return torch.cat(parts)

        return logits

    def held_loss(self, logits: Logits) -> float:
        """Returns the loss on the rows that stop, tune and choose."""
        return figures(self.nets, logits, self.nets.rows(*HELD_OUT)).loss


def single(trial: Trial) -> Iterator[Found]:
    """Trains one net for up to k times the steps, and keeps it at its best."""
    config, start = trial.config, time.process_time()
    longest = config.steps * trial.k
    alone = replace(config, steps=longest, trunk_steps=longest, num_agents=1)
    plan = make_plan(trial.nets, alone, RELAXED, twin=False)
    learner, batches = learner_of(trial.nets, plan), trunk_batches(plan)
    every, best, kept, since, step = config.steps // LOOKS, math.inf, None, 0, 0
    while step < longest and since < PATIENCE:
        for _ in range(every):
            learner.step(*batches.draw(), UNCONSTRAINED, plan.learning_rate(step))
            step += 1
        loss = trial.held_loss(trial.answers(learner.averaged))
        since += 1
        if loss < best:
            best, kept, since = loss, learner.averaged.clone(), 0
    assert kept is not None
    spent = time.process_time() - start
    yield Found("single", 1, trial.answers(kept), step, spent)


def apart(trial: Trial) -> Iterator[Found]:
    """Trains k nets from weights of their own, and a student of all."""
    config, start = trial.config, time.process_time()
    theta = of_own_weights(trial)
    k, spent = len(theta), time.process_time() - start
    losses = [trial.held_loss(trial.answers(theta[i : i + 1])) for i in range(k)]
    best, steps = losses.index(min(losses)), k * config.steps
    yield Found("best of k", 1, trial.answers(theta[best : best + 1]), steps, spent)
    yield Found("ensemble", k, trial.answers(theta), steps, spent)
    # Their mean is no net that works.
    fresh = trial.nets.learner(trial.nets.rows("train"), (), config).theta
    yield taught(trial, "graduate", theta, (steps, spent), start=fresh)


def of_own_weights(trial: Trial) -> Tensor:
    """Trains k nets that have nothing in common but the rows (k, P)."""
    config, nets = replace(trial.config, trunk_steps=0), trial.nets
    plan = make_plan(nets, config, RELAXED, twin=False)
    k, n_out = len(plan.roles), nets.encoded.n_out
    seeds = [derived_seed(config.seed, f"weights {i}") for i in range(k)]
    learner = GenomeLearner(
        nets.genome,
        nets.rows("train", "constraint"),
        initial(nets.genome, plan.rows.width, n_out, seeds),  # type: ignore[attr-defined]
        n_out=n_out,
        ema=config.ema,
        stability=config.gradient_stability_threshold,
        seed=derived_seed(config.seed, "dropout"),
    )
    whole = replace(plan, views=(plan.views[-1],) * k)
    batches = agent_batches(whole, Placement(k))
    for step in range(plan.steps):
        learner.step(*batches.draw(), UNCONSTRAINED, plan.learning_rate(step))
    return learner.averaged


def unshared(trial: Trial) -> Iterator[Found]:
    """Trains k agents of one trunk that share nothing."""
    theta, spent = agents(trial, replace(trial.config, self_weight=1.0))
    soup = trial.answers(theta.mean(0, keepdim=True))
    yield Found("plain soup", 1, soup, spent[0], spent[1])


def whole(trial: Trial) -> Iterator[Found]:
    """Trains k agents that all see all rows, each in an order of its own."""
    nets = WholeNets(trial.nets.encoded, trial.nets.genome)
    theta, spent = agents(replace(trial, nets=nets), trial.config)
    soup = trial.answers(theta.mean(0, keepdim=True))
    yield Found("whole soup", 1, soup, *spent)


def branched(trial: Trial) -> Iterator[Found]:
    """Trains k agents that part late, within k times the steps of one."""
    config, k = trial.config, trial.k
    own = (k * config.steps - config.trunk_steps) // k
    longer = replace(config, steps=config.trunk_steps + own, branch=AUTO_BRANCH)
    theta, spent = agents(trial, longer)
    soup = trial.answers(theta.mean(0, keepdim=True))
    yield Found("branched", 1, soup, *spent)
    yield Found("branched together", k, trial.answers(theta), *spent)


def sharing(trial: Trial) -> Iterator[Found]:
    """Trains k agents as the product does, and a student of all."""
    theta, spent = agents(trial, trial.config)
    soup = trial.answers(theta.mean(0, keepdim=True))
    yield Found("soup", 1, soup, *spent)
    yield Found("together", len(theta), trial.answers(theta), *spent)
    yield taught(trial, "student", theta, spent)
    yield taught(trial, "relearnt", theta, spent, soft=0.0)


def agents(trial: Trial, config: TrainingConfig) -> tuple[Tensor, tuple[int, float]]:
    """Returns agents that the product's loop has trained, net-steps and seconds."""
    start, events = time.process_time(), list[dict[str, Any]]()
    trained = train(trial.nets, config, RELAXED, log=events.append, twin=False)
    k = len(trained.agents)
    plan = make_plan(trial.nets, config, RELAXED, twin=False)
    # Where it gained no more, it took fewer.
    taken = [event["taken"] for event in events if event["event"] == "branch"]
    steps = sum(taken or [plan.trunk_steps]) + k * (plan.steps - plan.trunk_steps)
    return trained.agents[trained.finite], (steps, time.process_time() - start)


def taught(
    trial: Trial, name: str, theta: Tensor, before: tuple[int, float], **options: Any
) -> Found:
    """Trains a student of nets; its cost has theirs in it."""
    config, begun = trial.config, time.process_time()
    longer = replace(config, steps=STUDENT * config.steps)
    teachers = Trained(
        nets=trial.nets,
        agents=theta,
        finite=torch.ones(len(theta), dtype=torch.bool),
        twin=theta[:1],
        constraints=Constraints((), (), (), {}, ()),
        targets=UNCONSTRAINED,
        steps=config.steps,
        cell_weights=UNCONSTRAINED,
        config=longer,
    )
    student = learnt_on(teachers, RELAXED, **options)
    spent = before[1] + time.process_time() - begun
    return Found(name, 1, trial.answers(student), before[0] + longer.steps, spent)


def heads(trial: Trial) -> Iterator[Found]:
    """Trains one net of k heads that share their matrices, through autograd."""
    config, start = trial.config, time.process_time()
    k = trial.k
    genome = replace(trial.nets.genome, heads=k)
    nets = GenomeNets(trial.nets.encoded, genome)
    alone = replace(config, num_agents=1, trunk_steps=config.steps)
    theta = train(nets, alone, RELAXED, log=discard, twin=False).agents
    of_heads = Trial(nets, alone)
    spent = time.process_time() - start
    yield Found("heads", k, of_heads.answers(theta), k * config.steps, spent)


def tabm(trial: Trial) -> Iterator[Found]:
    """Trains TabM by its own package."""
    from benchmarks.peers.tabm_peer import trained

    start = time.process_time()
    logits = trained(trial.nets, trial.config, RELAXED)
    spent, steps = time.process_time() - start, trial.k * trial.config.steps
    yield Found("tabm", trial.k, logits, steps, spent)


METHODS: Sequence[Callable[[Trial], Iterator[Found]]] = (
    *(single, apart, unshared, sharing, whole, branched, heads, tabm),
)


def compared(
    split: Resplit, config: TrainingConfig, named: Collection[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yields a row for each method on a re-split, at its best rate.

    Args:
        split: the rows.
        config: the training section of the agents.
        named: functions of `METHODS`, by their names; none is all.
    """
    here = [m for m in METHODS if m is not tabm or find_spec("tabm")]
    here = [m for m in here if not named or m.__name__ in named]
    for method in here:
        tried: dict[str, list[tuple[float, float, Found]]] = {}
        for rate in RATES:
            trial = Trial.of(split, replace(config, learning_rate=rate), Genome())
            for found in method(trial):
                at = (trial.held_loss(found.logits), rate, found)
                tried.setdefault(found.method, []).append(at)
        for name, trials in tried.items():
            held, rate, found = min(trials, key=lambda t: t[:2])
            test = figures(trial.nets, found.logits, split.test)
            yield {
                "method": name,
                "members": found.members,
                "rate": rate,
                "accuracy": test.accuracy,
                "loss": test.loss,
                "held_loss": held,
                "steps": sum(t[2].steps for t in trials),
                "cpu_s": round(sum(t[2].cpu_s for t in trials), 3),
            }


def swept(
    split: Resplit, config: TrainingConfig, alpha: float, every: int
) -> dict[str, Any]:
    """Measures the soup of agents that share by one alpha and H."""
    own = replace(config, self_weight=alpha, sync_every=every)
    trial = Trial.of(split, own, Genome())
    theta, (_, spent) = agents(trial, own)
    test = split.test
    soup, both = trial.answers(theta.mean(0, keepdim=True)), trial.answers(theta)
    alone = [
        figures(trial.nets, trial.answers(row[None]), test).accuracy for row in theta
    ]
    return {
        "soup": figures(trial.nets, soup, test).accuracy,
        "together": figures(trial.nets, both, test).accuracy,
        "mean_agent": sum(alone) / len(alone),
        "cpu_s": round(spent, 3),
    }


def skewed(
    split: Resplit, config: TrainingConfig, alpha: float, every: int
) -> dict[str, Any]:
    """Measures agents whose rows are their own and of other classes than others'.

    There is no trunk: it would see all rows. They begin with the same weights.
    """
    own = replace(config, self_weight=alpha, sync_every=every, trunk_steps=0)
    trial, start = Trial.of(split, own, Genome()), time.process_time()
    plan = make_plan(trial.nets, own, RELAXED, twin=False)
    k = len(plan.roles)
    plan = replace(plan, views=shards(plan.rows.y, k, own.seed))
    learner = learner_of(trial.nets, plan)
    share = Sharing(learner.theta[0], own)
    learner.fork(plan.slots)
    batches, all_of_them = agent_batches(plan, Placement(k)), torch.ones(k).bool()
    for step in range(plan.steps):
        if step and step % own.sync_every == 0:
            done = share.share(
                learner.theta,
                usable=all_of_them,
                eligible=all_of_them,
                fitness=lambda: torch.zeros(k),
            )
            learner.adopt(learner.theta.clone(), done)
        learner.step(*batches.draw(), UNCONSTRAINED, plan.learning_rate(step))
    theta, spent = learner.averaged, time.process_time() - start
    test = split.test
    alone = [
        figures(trial.nets, trial.answers(row[None]), test).accuracy for row in theta
    ]
    soup, both = trial.answers(theta.mean(0, keepdim=True)), trial.answers(theta)
    return {
        "soup": figures(trial.nets, soup, test).accuracy,
        "together": figures(trial.nets, both, test).accuracy,
        "mean_agent": sum(alone) / k,
        "cpu_s": round(spent, 3),
    }


def shards(
    y: Tensor, k: int, seed: int, concentration: float = 0.3
) -> tuple[Tensor, ...]:
    """Deals rows out so that each of k agents has classes of its own (Hsu et al. 2019).

    Of each class the agents' shares are drawn from a Dirichlet distribution.
    """
    rng, owner = np.random.default_rng(seed), np.empty(len(y), dtype=np.int64)
    for code in range(int(y.max()) + 1):
        at = rng.permutation((y == code).nonzero()[:, 0].numpy())
        ends = (rng.dirichlet([concentration] * k).cumsum() * len(at)).astype(int)
        owner[at] = np.searchsorted(ends[:-1], np.arange(len(at)), side="right")
    # An agent without rows could take no step.
    owner[rng.permutation(len(y))[: 8 * k]] = np.arange(8 * k) % k
    return tuple(
        torch.from_numpy(np.flatnonzero(owner == i)).to(torch.int32) for i in range(k)
    )
