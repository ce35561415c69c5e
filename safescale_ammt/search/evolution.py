"""Ask/tell search: ageing evolution with ASHA rungs, local and random beside it.

After Real et al. 2019 (arXiv:1802.01548) and Li et al. 2020 (arXiv:1810.05934):

    search = Search("ageing", space, config)
    while trial := search.ask():
        search.tell(trial, measure(trial.genome, trial.steps))
    search.winner.genome

All three strategies spend the same budget in the same rungs and differ only in
where a new genome comes from:

    ageing   the best of `sample` candidates drawn from the `population` youngest
             is mutated, or crossed with the runner-up and then mutated
    local    the best candidate so far is mutated
    random   drawn from the space

The budget counts optimizer steps. FLOPs per step differ by at most the space's
FLOP cap, which is why the space has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from safescale_ammt.config.sections import SearchConfig
from safescale_ammt.errors import ConfigError, one_of
from safescale_ammt.model.genome import Genome
from safescale_ammt.search.asha import rung_places, rung_steps
from safescale_ammt.search.domination import Fitness, Measurement, pareto_front
from safescale_ammt.search.search_space import Space

Strategy = Literal["ageing", "local", "random"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
CROSSOVER_RATE = 0.25
"""Share of ageing evolution's children with two parents."""
# Proposals, and then draws, before the space counts as exhausted.
_TRIES = 32

Proposal = tuple[Genome, tuple[int, ...], str]
"""A genome, its parents' ids and where it comes from."""


class Trial(NamedTuple):
    """What `ask` returns: train `genome` for `steps` and tell the result."""

    candidate: int
    genome: Genome
    rung: int
    steps: int


@dataclass
class Candidate:
    """A genome under trial and its measurement on every rung it reached."""

    id: int
    genome: Genome
    parents: tuple[int, ...]
    origin: str
    results: list[Measurement] = field(default_factory=list)

    @property
    def rung(self) -> int:
        """Highest rung with a result; -1 before the first."""
        return len(self.results) - 1


class Search:
    """One run of a strategy over a space, deterministic by seed.

    Attributes:
        candidates: all that were ever proposed, in order of birth.
    """

    def __init__(self, strategy: Strategy, space: Space, config: SearchConfig) -> None:
        """Starts a search.

        Args:
            strategy: where new genomes come from.
            space: what may be proposed.
            config: budget, rungs, rates and seed.

        Raises:
            ConfigError: unknown strategy.
        """
        if strategy not in STRATEGIES:
            raise ConfigError(
                f"The search strategy is {strategy!r}, {one_of(STRATEGIES, strategy)}."
            )
        self.strategy = strategy
        self.space = space
        self.config = config
        self.fitness = Fitness(
            config.complexity_weight,
            config.violation_weight,
            space.flops(space.seed()),
        )
        self.candidates: list[Candidate] = []
        self._places = rung_places(config)
        self._promoted = [0] * config.rungs
        self._pending: set[Trial] = set()
        self._exhausted = False
        # One stream per strategy: none depends on which others run beside it.
        self._rng = np.random.default_rng([config.seed, STRATEGIES.index(strategy)])

    def ask(self) -> Trial | None:
        """Returns the next trial, or None if there is none to start now.

        Highest rung first, as in ASHA: a candidate among the best 1/eta of a rung
        goes on; otherwise a new one starts. Once the space has no new one left, the
        best of those that stayed behind fill the remaining places, lowest rung
        first, so that every strategy spends the same budget.
        """
        trial = self._promotion(filling=False)
        room = len(self.candidates) < self._places[0] and not self._exhausted
        if trial is None and room:
            # Training is deterministic by genome: a second trial of one tells nothing.
            genomes = {c.genome for c in self.candidates}
            for attempt in range(2 * _TRIES):
                # Once a neighbourhood has been tried out, look elsewhere.
                propose = self._propose if attempt < _TRIES else self._draw
                genome, parents, origin = propose()
                if genome not in genomes:
                    candidate = Candidate(len(self.candidates), genome, parents, origin)
                    self.candidates.append(candidate)
                    trial = self._trial(candidate, 0)
                    break
            self._exhausted = trial is None
        # Filling waits for pending results: they may promote by merit.
        if trial is None and not self._pending:
            trial = self._promotion(filling=True)
        if trial is not None:
            self._pending.add(trial)
        return trial

    def tell(self, trial: Trial, measurement: Measurement) -> None:
        """Records what was measured in a trial.

        Raises:
            ValueError: the trial is not pending: never asked, or told before.
        """
        if trial not in self._pending:
            raise ValueError(f"candidate {trial.candidate} has no such trial pending")
        self._pending.remove(trial)
        self.candidates[trial.candidate].results.append(measurement)

    @property
    def winner(self) -> Candidate:
        """The best candidate of the highest rung that was reached.

        Raises:
            ValueError: there is no measurement yet.
        """
        last = max((c.rung for c in self.candidates), default=-1)
        if last < 0:
            raise ValueError("the search has no result yet")
        return self._ranked(last)[0]

    @property
    def front(self) -> list[Candidate]:
        """Candidates of the highest rung that no other there dominates."""
        last = max((c.rung for c in self.candidates), default=-1)
        # Losses of other rungs come from fewer steps and do not compare.
        reached = [c for c in self.candidates if c.rung == last >= 0]
        return [reached[i] for i in pareto_front([c.results[-1] for c in reached])]

    @property
    def steps(self) -> int:
        """Optimizer steps of all measured trials."""
        return sum(
            self._steps(rung) for c in self.candidates for rung in range(len(c.results))
        )

    def log(self) -> list[dict[str, Any]]:
        """Returns one JSON object per candidate, in order of birth."""
        entries = []
        for c in self.candidates:
            if not c.results:
                continue
            m = c.results[-1]
            entries.append(
                {
                    "id": c.id,
                    "genome": c.genome.to_dict(),
                    "parents": list(c.parents),
                    "origin": c.origin,
                    "rung": c.rung,
                    "steps": sum(self._steps(rung) for rung in range(len(c.results))),
                    # JSON has no infinity: a diverged training has no loss.
                    "loss": None if m.diverged else m.loss,
                    "losses": [None if r.diverged else r.loss for r in c.results],
                    "flops": m.flops,
                    "parameters": self.space.parameters(c.genome),
                    "violation": m.violation,
                    "feasible": m.feasible,
                    "fitness": None if m.diverged else self.fitness.of(m),
                }
            )
        return entries

    def _steps(self, rung: int) -> int:
        return rung_steps(self.config, rung)

    def _ranked(self, rung: int) -> list[Candidate]:
        """All with a result on a rung, best first by that rung's results."""
        reached = [c for c in self.candidates if c.rung >= rung]
        return sorted(reached, key=lambda c: self.fitness.key(c.results[rung], c.id))

    def _promotion(self, *, filling: bool) -> Trial | None:
        rungs = range(1, self.config.rungs)
        for rung in rungs if filling else reversed(rungs):
            free = self._places[rung] - self._promoted[rung]
            under_way = {t.candidate for t in self._pending if t.rung == rung}
            # One place is kept for the seed to the end: the winner has beaten the
            # default genome on equal terms. By merit the seed comes earlier.
            seed = self.candidates[0] if self.candidates else None
            if seed and (
                seed.origin != "seed"
                or self._places[rung] < 2
                or seed.rung >= rung
                or seed.id in under_way
            ):
                seed = None
            below = self._ranked(rung - 1)
            if filling:
                below.sort(key=lambda c: c is not seed)
            else:
                # Rounded down, as in ASHA: too early a promotion is not taken back.
                below = below[: len(below) // self.config.eta]
            for c in below:
                # The seed's place needs to stay free when another takes one.
                waits = c.rung == rung - 1 and c.id not in under_way
                if waits and free > (seed not in (None, c)):
                    self._promoted[rung] += 1
                    return self._trial(c, rung)
        return None

    def _trial(self, candidate: Candidate, rung: int) -> Trial:
        return Trial(candidate.id, candidate.genome, rung, self._steps(rung))

    def _draw(self) -> Proposal:
        return self.space.draw(self._rng), (), "random"

    def _propose(self) -> Proposal:
        if not self.candidates and self.strategy != "random":
            return self.space.seed(), (), "seed"
        measured = [c for c in self.candidates if c.results]
        if self.strategy == "random" or not measured:
            return self._draw()
        if self.strategy == "local":
            return self._child([self._best(measured)[0]])
        if len(self.candidates) < initial_population(self.config):
            return self._draw()
        # Ageing: the oldest leave, however good they are. A lucky measurement of a
        # noisy fitness is thereby forgotten (Real et al. 2019).
        population = measured[-self.config.population :]
        sample = self._rng.choice(
            len(population),
            size=min(self.config.sample, len(population)),
            replace=False,
        )
        parents = self._best([population[i] for i in sample])
        two = len(parents) > 1 and self._rng.random() < CROSSOVER_RATE
        return self._child(parents[: 1 + two])

    def _child(self, parents: Sequence[Candidate]) -> Proposal:
        genome = parents[0].genome
        if len(parents) == 2:
            genome = self.space.cross(genome, parents[1].genome, self._rng)
        rate = self.config.architecture_mutation_rate
        child = self.space.mutate(genome, rate, self._rng)
        return child, tuple(p.id for p in parents), "evolution"

    def _best(self, among: Sequence[Candidate]) -> list[Candidate]:
        """Ranks candidates of different rungs: losses compare on one rung only.

        A promoted candidate was among the best of its rung and comes first.
        """
        return sorted(
            among,
            key=lambda c: (-c.rung, *self.fitness.key(c.results[-1], c.id)),
        )


def initial_population(config: SearchConfig) -> int:
    """Counts the first candidates, which are drawn: a population or a third of all."""
    # A population that the budget never fills would make random search of it.
    return min(config.population, max(1, config.candidates // 3))
