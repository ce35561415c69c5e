"""The search: known answers on closed-form toys, equal budgets, determinism."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from safescale_ammt.config.sections import SearchConfig
from safescale_ammt.errors import ConfigError
from safescale_ammt.model.genome import Genome
from safescale_ammt.search.asha import budget_steps, rung_places, rung_steps
from safescale_ammt.search.domination import (
    Fitness,
    Measurement,
    dominates,
    pareto_front,
)
from safescale_ammt.search.evolution import (
    STRATEGIES,
    Search,
    initial_population,
)
from safescale_ammt.search.search_space import DEEPEST, WIDTHS, Space

Toy = Callable[[Genome, int], Measurement]
SPACE = Space({"ple": 100, "standard": 40}, 1, 200_000, math.inf)
GUIDED = [s for s in STRATEGIES if s != "random"]

measurements = st.builds(
    Measurement,
    loss=st.integers(0, 2000).map(lambda i: i / 1000)
    | st.sampled_from([math.nan, math.inf]),
    flops=st.integers(1, 10**6),
    violations=st.dictionaries(
        st.sampled_from(["a", "b"]), st.floats(0, 0.5) | st.just(0.0), max_size=2
    ),
)
weights = st.builds(Fitness, st.floats(1e-4, 0.1), st.floats(0, 2), st.just(1000))


def config(**changes: Any) -> SearchConfig:
    few = {"candidates": 27, "rung_steps": 10, "eta": 3, "rungs": 3}
    # What ageing evolution reads; the other strategies of a test do not look at it.
    ageing = {"strategy": "ageing", "population": 9, "sample": 4}
    has_room = changes.get("candidates", 27) > ageing["population"]
    return SearchConfig(**{**few, **(ageing if has_room else {}), **changes})


def run(
    strategy: str, toy: Toy, settings: SearchConfig, space: Space = SPACE
) -> Search:
    search = Search(strategy, space, settings)  # type: ignore[arg-type]
    while trial := search.ask():
        search.tell(trial, toy(trial.genome, trial.steps))
    return search


def distance(genome: Genome, goal: Genome) -> float:
    """A smooth bowl over the genes with its only zero at `goal`."""
    wide = abs(math.log2(genome.widths[0] / goal.widths[0]))
    deep = abs(len(genome.widths) - len(goal.widths))
    same = (genome.activation == goal.activation) + (genome.encoding == goal.encoding)
    return wide + deep + (2 - same)


def bowl(goal: Genome) -> Toy:
    def measure(genome: Genome, steps: int) -> Measurement:
        return Measurement(distance(genome, goal) + 1 / steps, SPACE.flops(genome))

    return measure


FAR = Genome("standard", (256, 256, 256), "silu")


# --- domination ---


def test_fitness_is_loss_plus_weighted_complexity_and_violation() -> None:
    rule = Fitness(0.1, 2.0, 1000)
    m = Measurement(0.5, 2000, {"a": 0.25, "b": 0.0})
    assert rule.of(m) == pytest.approx(0.5 + 0.1 * math.log(2) + 0.5)
    assert rule.of(Measurement(0.5, 1000)) == 0.5


def test_feasible_beats_infeasible_whatever_the_loss() -> None:
    rule = Fitness(0.0, 0.0, 1)
    feasible, infeasible = Measurement(9.0, 1), Measurement(0.1, 1, {"a": 1e-6})
    assert rule.key(feasible, age=1) < rule.key(infeasible, age=0)


def test_of_equal_candidates_the_older_wins() -> None:
    rule = Fitness(0.1, 1.0, 1)
    m = Measurement(0.5, 3)
    assert rule.key(m, age=0) < rule.key(m, age=1)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_diverged_candidate_loses_against_everyone(loss: float) -> None:
    rule = Fitness(0.1, 1.0, 1)
    diverged = Measurement(loss, 1)
    poor = Measurement(50.0, 10**9, {"a": 5.0})
    assert not diverged.feasible
    assert rule.key(poor, age=1) < rule.key(diverged, age=0)
    assert dominates(poor, diverged)
    assert not dominates(diverged, poor)


@given(st.lists(measurements, min_size=1, max_size=12))
def test_the_front_holds_exactly_those_whom_nobody_dominates(
    found: list[Measurement],
) -> None:
    front = pareto_front(found)
    assert front
    assert front == sorted(front)
    for i, m in enumerate(found):
        assert (i in front) == (not any(dominates(other, m) for other in found))


@given(measurements, measurements)
def test_domination_is_never_mutual(a: Measurement, b: Measurement) -> None:
    assert not (dominates(a, b) and dominates(b, a))
    assert not dominates(a, a)


@given(weights, st.lists(measurements, min_size=1, max_size=12))
def test_a_feasible_winner_lies_on_the_front(
    rule: Fitness, found: list[Measurement]
) -> None:
    best = min(range(len(found)), key=lambda i: rule.key(found[i], i))
    assume(found[best].feasible)
    assert best in pareto_front(found)


# --- the space ---


@given(st.integers(0, 2**32), st.floats(0, 1))
def test_whatever_is_drawn_mutated_or_crossed_lies_under_the_caps(
    seed: int, rate: float
) -> None:
    space = Space({"ple": 100, "standard": 40}, 1, 20_000, 60_000)
    rng = np.random.default_rng(seed)
    first, second = space.draw(rng), space.draw(rng)
    child = space.mutate(first, rate, rng)
    assert child != first
    for genome in (first, second, child, space.cross(first, second, rng)):
        assert space.holds(genome)
        assert 1 <= len(genome.widths) <= DEEPEST


@given(st.integers(0, 2**32))
def test_a_child_of_two_has_every_gene_from_a_parent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = SPACE.draw(rng), SPACE.draw(rng)
    child = SPACE.cross(first, second, rng)
    for gene in ("encoding", "widths", "activation", "dropout", "heads"):
        assert getattr(child, gene) in (getattr(first, gene), getattr(second, gene))
    assert not child.residual or first.residual or second.residual


@given(st.integers(0, 2**32))
def test_residual_links_that_link_nothing_are_no_other_genome(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = SPACE.draw(rng), SPACE.draw(rng)
    for genome in (
        first,
        SPACE.mutate(first, 0.5, rng),
        SPACE.cross(first, second, rng),
    ):
        links = any(a == b for a, b in pairwise(genome.widths))
        assert links or not genome.residual


def test_a_mutated_number_is_a_neighbour_of_its_parents() -> None:
    rng = np.random.default_rng(0)
    parent = Genome(widths=(64, 64))
    seen = {w for _ in range(200) for w in SPACE.mutate(parent, 0, rng).widths}
    at = WIDTHS.index(64)
    assert seen == {WIDTHS[at - 1], 64, WIDTHS[at + 1]}


def test_mutation_reaches_every_gene() -> None:
    rng = np.random.default_rng(0)
    parent = Genome(widths=(64, 64))
    children = [SPACE.mutate(parent, 0, rng) for _ in range(300)]
    for gene in ("encoding", "widths", "activation", "residual", "heads"):
        assert any(getattr(c, gene) != getattr(parent, gene) for c in children)
    assert {len(c.widths) for c in children} == {1, 2, 3}


def test_dropout_which_short_runs_misjudge_is_not_searched() -> None:
    rng = np.random.default_rng(0)
    parent = Genome(dropout=0.35)
    assert all(SPACE.mutate(parent, 1.0, rng).dropout == 0.35 for _ in range(20))
    assert all(SPACE.draw(rng).dropout == Genome().dropout for _ in range(20))


def test_a_genome_from_elsewhere_with_unlisted_values_can_be_mutated() -> None:
    rng = np.random.default_rng(0)
    odd = Genome(widths=(77,), dropout=0.15, heads=3)
    assert all(SPACE.mutate(odd, 1.0, rng) != odd for _ in range(20))


def test_the_seed_is_the_default_genome_narrowed_under_the_caps() -> None:
    assert SPACE.seed() == Genome()
    narrow = Space({"ple": 100, "standard": 40}, 1, 5_000, math.inf)
    assert narrow.seed() == Genome(widths=(32, 32))
    tiny = Space({"ple": 100, "standard": 40}, 1, 700, math.inf)
    assert tiny.seed() == tiny.smallest()
    assert tiny.seed().encoding == "standard"


def test_a_cap_that_excludes_every_network_is_one_clear_sentence() -> None:
    with pytest.raises(
        ConfigError, match="max_parameters is 10, but the smallest"
    ) as e:
        Space({"ple": 100, "standard": 40}, 1, 10, math.inf)
    assert "has 673; raise it" in str(e.value)


# --- the strategies ---


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("candidates", "rungs"), [(1, 1), (1, 3), (4, 2), (27, 3)])
def test_every_strategy_spends_exactly_the_same_budget(
    strategy: str, candidates: int, rungs: int
) -> None:
    settings = config(candidates=candidates, rungs=rungs)
    search = run(strategy, bowl(FAR), settings)
    assert search.steps == budget_steps(settings)
    assert [
        sum(c.rung >= rung for c in search.candidates) for rung in range(rungs)
    ] == rung_places(settings)


def test_the_rungs_shrink_by_eta_while_their_steps_grow_by_eta() -> None:
    settings = config()
    assert rung_places(settings) == [27, 9, 3]
    assert [rung_steps(settings, r) for r in range(3)] == [10, 30, 90]
    assert budget_steps(settings) == 27 * 10 + 9 * 30 + 3 * 90


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_seed_gives_the_same_log_and_another_seed_another(
    strategy: str,
) -> None:
    first, again = (run(strategy, bowl(FAR), config(seed=3)) for _ in range(2))
    other = run(strategy, bowl(FAR), config(seed=4))
    assert json.dumps(first.log()) == json.dumps(again.log())
    assert json.dumps(first.log()) != json.dumps(other.log())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_genome_is_tried_twice(strategy: str) -> None:
    search = run(strategy, bowl(FAR), config())
    assert len({c.genome for c in search.candidates}) == 27


@pytest.mark.parametrize("strategy", GUIDED)
def test_the_first_candidate_is_the_default_genome(strategy: str) -> None:
    search = run(strategy, bowl(FAR), config())
    assert search.candidates[0].genome == Genome()
    assert search.candidates[0].origin == "seed"


def test_random_search_has_no_seed_and_no_parents() -> None:
    search = run("random", bowl(FAR), config())
    assert {c.origin for c in search.candidates} == {"random"}
    assert not any(c.parents for c in search.candidates)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_parent_was_born_before_its_child(strategy: str) -> None:
    for c in run(strategy, bowl(FAR), config()).candidates:
        assert all(parent < c.id for parent in c.parents)
        assert bool(c.parents) == (c.origin == "evolution")


def test_local_search_follows_the_best_so_far() -> None:
    search = run("local", bowl(FAR), config(rungs=1))
    for c in search.candidates[1:]:
        before = search.candidates[: c.id]
        best = min(before, key=lambda b: search.fitness.key(b.results[0], b.id))
        assert c.parents == (best.id,)


def test_ageing_evolution_forgets_the_old() -> None:
    settings = config(candidates=60, rungs=1, population=6, sample=2)
    for c in run("ageing", bowl(FAR), settings).candidates:
        assert all(parent >= c.id - 6 for parent in c.parents)


def test_ageing_evolution_sometimes_crosses_two_parents() -> None:
    search = run("ageing", bowl(FAR), config(candidates=60, rungs=1))
    assert {len(c.parents) for c in search.candidates} == {0, 1, 2}


def test_a_small_budget_still_leaves_room_for_evolution() -> None:
    few = {"strategy": "ageing", "sample": 1}
    assert initial_population(config(candidates=30, population=20)) == 10
    assert initial_population(config(candidates=2, population=1, **few)) == 1
    assert initial_population(config(candidates=200, population=20)) == 20


@pytest.mark.parametrize("strategy", GUIDED)
@pytest.mark.parametrize("rungs", [1, 2, 3])
def test_the_default_genome_runs_on_the_last_rung_however_poor(
    strategy: str, rungs: int
) -> None:
    def measure(genome: Genome, steps: int) -> Measurement:
        poor = 9.0 if genome == Genome() else 0.0
        return Measurement(distance(genome, FAR) + poor, SPACE.flops(genome))

    search = run(strategy, measure, config(rungs=rungs))
    assert search.candidates[0].rung == rungs - 1
    assert search.winner is not search.candidates[0]
    assert search.steps == budget_steps(search.config)


@pytest.mark.parametrize("strategy", GUIDED)
def test_the_only_place_of_a_last_rung_is_not_kept_for_the_default(
    strategy: str,
) -> None:
    def measure(genome: Genome, steps: int) -> Measurement:
        poor = 9.0 if genome == Genome() else 0.0
        return Measurement(1.0 + poor, SPACE.flops(genome))

    search = run(strategy, measure, config(candidates=4, rungs=2))
    assert search.winner.genome != Genome()


@pytest.mark.parametrize("strategy", GUIDED)
def test_guided_search_beats_random_search_on_a_smooth_bowl(strategy: str) -> None:
    def mean_loss(name: str) -> float:
        runs = [
            run(name, bowl(FAR), config(candidates=120, rungs=1, seed=seed))
            for seed in range(6)
        ]
        return float(np.mean([s.winner.results[-1].loss for s in runs]))

    assert mean_loss(strategy) < mean_loss("random") - 0.3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_winner_is_the_best_of_the_last_rung(strategy: str) -> None:
    search = run(strategy, bowl(FAR), config())
    last = [c for c in search.candidates if c.rung == 2]
    best = min(last, key=lambda c: search.fitness.key(c.results[-1], c.id))
    assert search.winner is best
    assert best in search.front


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_constraint_turns_the_search_away_from_the_best_loss(strategy: str) -> None:
    def measure(genome: Genome, steps: int) -> Measurement:
        excess = max(0.0, 0.1 * (len(genome.widths) - 2))
        loss = 1 / len(genome.widths) + 1 / steps
        return Measurement(loss, SPACE.flops(genome), {"shallow": excess})

    search = run(strategy, measure, config())
    assert len(search.winner.genome.widths) <= 2
    assert search.winner.results[-1].feasible


def test_the_complexity_term_prefers_the_cheaper_of_equal_networks() -> None:
    def flat(genome: Genome, steps: int) -> Measurement:
        return Measurement(1.0, SPACE.flops(genome))

    dear = run("ageing", flat, config(complexity_weight=0.0)).winner
    cheap = run("ageing", flat, config(complexity_weight=0.1)).winner
    assert dear.genome == Genome()
    assert SPACE.flops(cheap.genome) < SPACE.flops(dear.genome)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_whose_candidates_all_diverge_still_ends(strategy: str) -> None:
    def diverge(genome: Genome, steps: int) -> Measurement:
        return Measurement(math.nan, SPACE.flops(genome))

    search = run(strategy, diverge, config())
    assert not search.winner.results[-1].feasible
    assert json.loads(json.dumps(search.log(), allow_nan=False))[0]["loss"] is None


def test_diverged_candidates_do_not_keep_others_from_winning() -> None:
    def measure(genome: Genome, steps: int) -> Measurement:
        diverges = genome.activation == "relu"
        return Measurement(math.inf if diverges else 1.0, SPACE.flops(genome))

    assert run("ageing", measure, config()).winner.genome.activation != "relu"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_space_smaller_than_the_budget_is_searched_once(strategy: str) -> None:
    space = Space({"ple": 100, "standard": 40}, 1, 680, math.inf)
    search = run(strategy, bowl(FAR), config(candidates=200), space)
    genomes = [c.genome for c in search.candidates]
    assert len(set(genomes)) == len(genomes) < 200
    assert search.winner.rung == 2


def test_promotions_happen_as_soon_as_the_rung_is_large_enough() -> None:
    search = Search("random", SPACE, config())
    rungs = []
    for _ in range(8):
        trial = search.ask()
        assert trial is not None
        rungs.append(trial.rung)
        search.tell(trial, bowl(FAR)(trial.genome, trial.steps))
    assert rungs[:4] == [0, 0, 0, 1]
    assert all(b - a <= 1 for a, b in pairwise(rungs))


def test_trials_may_be_told_in_another_order_than_they_were_asked() -> None:
    search = Search("ageing", SPACE, config())
    waiting = []
    while True:
        trial = search.ask()
        if trial is not None:
            waiting.append(trial)
        if not waiting:
            break
        if trial is None or len(waiting) == 3:
            told = waiting.pop()
            search.tell(told, bowl(FAR)(told.genome, told.steps))
    assert search.steps == budget_steps(search.config)
    assert len(search.log()) == 27


def test_a_trial_that_was_not_asked_for_cannot_be_told() -> None:
    search = Search("ageing", SPACE, config())
    trial = search.ask()
    assert trial is not None
    search.tell(trial, bowl(FAR)(trial.genome, trial.steps))
    with pytest.raises(ValueError, match="no such trial pending"):
        search.tell(trial, Measurement(0.0, 1))


def test_a_search_without_results_has_no_winner() -> None:
    search = Search("ageing", SPACE, config())
    assert search.front == []
    with pytest.raises(ValueError, match="no result yet"):
        _ = search.winner


def test_an_unknown_strategy_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'grid', expected one of ageing, local"):
        Search("grid", SPACE, config())  # type: ignore[arg-type]


def test_the_log_tells_budget_parents_and_fitness_of_every_candidate() -> None:
    search = run("ageing", bowl(FAR), config())
    log = search.log()
    assert [e["id"] for e in log] == list(range(27))
    assert sum(e["steps"] for e in log) == search.steps
    for entry, candidate in zip(log, search.candidates, strict=True):
        assert Genome.from_dict(entry["genome"]) == candidate.genome
        assert entry["losses"] == [m.loss for m in candidate.results]
        assert entry["fitness"] == search.fitness.of(candidate.results[-1])
        assert entry["feasible"]


def test_searching_needs_no_torch() -> None:
    program = (
        "import safescale_ammt.search.evolution, sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
