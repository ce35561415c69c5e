"""Roles and sharing weights that tune themselves by what an agent gives the soup."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from module_world import both, net
from module_world import brief as module_brief
from placement_world import TUNED
from training_world import DP, USEFUL, brief, constitution, prepared

from safescale_ammt.config.roles import ROLES, Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConfigError
from safescale_ammt.model.genome import Genome
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer
from safescale_ammt.training import mix
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.mix import PULLS, Mix, contributions, distance
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.training.population import Population
from safescale_ammt.training.race import Race
from safescale_ammt.training.sampling import Batches, agent_batches
from safescale_ammt.training.sync import Sharing
from safescale_ammt.training.trainer import learner_of, train
from safescale_ammt.training.training_log import discard
from safescale_ammt.training.tuned_settings import row_losses

GENOME = Genome(widths=(16,), dropout=0.0)
BOTH = ("roles", "self_weight")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = prepared(tmp_path_factory.mktemp("loans"), sensitive_in_model=True)
    return EncodedDataset(Dataset.load(folder))


def plan_of(encoded: EncodedDataset, *principles: Any, **changes: Any) -> Plan:
    config = brief(**{**TUNED, "tune_every": 10, "tune_also": [*BOTH], **changes})
    promises = constitution(*(principles or (USEFUL,)))
    return make_plan(GenomeNets(encoded, GENOME), config, promises)


class World:
    """A mix, and what it is of."""

    def __init__(self, plan: Plan) -> None:
        assert isinstance(plan.nets, GenomeNets)
        self.plan = plan
        self.learner: Learner = learner_of(plan.nets, plan)
        placement = Placement(len(plan.slots))
        race = Race(plan, self.learner)
        race.settings = torch.tensor([[0.01, 0.01, 1.0]], dtype=torch.float64)
        self.learner.fork(plan.slots, placement)
        self.sharing = Sharing(self.learner.theta[0], plan.config)
        self.batches: Batches = agent_batches(plan, placement)
        shared = self.sharing, self.batches
        self.population = Population(plan, self.learner, placement, race, shared)
        assert self.population.mix is not None
        self.mix: Mix = self.population.mix

    def tune(self, eligible: Any = None) -> Any:
        k = len(self.plan.roles)
        return self.mix.tune(
            torch.ones(k, dtype=torch.bool) if eligible is None else eligible
        )

    def spoil(self, agent: int, by: float = 3.0) -> None:
        """Moves an agent's weights far from where all began."""
        generator = torch.Generator().manual_seed(agent)
        noise = torch.randn(self.learner.theta.shape[1], generator=generator)
        self.learner.averaged[agent] += by * noise


# --- what is measured ---


def test_a_contribution_is_what_the_soup_loses_without_the_agent(
    encoded: EncodedDataset,
) -> None:
    plan = plan_of(encoded, num_agents=3)
    world = World(plan)
    theta = world.learner.averaged[:3] + 0.3 * torch.randn(
        3, world.learner.theta.shape[1], generator=torch.Generator().manual_seed(1)
    )
    found = contributions(plan, theta)
    whole = row_losses(plan, theta.mean(0, keepdim=True))
    for i in range(3):
        others = theta[[j for j in range(3) if j != i]].mean(0, keepdim=True)
        expected = row_losses(plan, others) - whole
        torch.testing.assert_close(found[i : i + 1], expected, rtol=0, atol=1e-5)
    theta[1] = math.nan
    without = contributions(plan, theta)
    assert without[1].eq(-math.inf).all()
    pair = contributions(plan, theta[[0, 2]])
    assert torch.equal(without[[0, 2]], pair)


def test_rows_tell_apart_what_differs_by_more_than_chance() -> None:
    noise = torch.tensor([1.0, -1.0, 2.0, -2.0], dtype=torch.float64)
    zero = torch.zeros(4, dtype=torch.float64)
    assert distance(noise, zero) == 0.0
    assert distance(noise + 10, zero) > 2
    assert distance(zero, noise + 10) < -2
    # Mean 1, standard error of (2, -0, 3, -1) sqrt(10 / 3) / 2.
    assert distance(noise + 1, zero) == pytest.approx(1 / math.sqrt(10 / 12))
    assert distance(zero, zero - math.inf) == math.inf
    assert distance(zero - math.inf, zero - math.inf) == 0.0


# --- what is decided ---


def test_who_harms_the_soup_plays_the_role_of_who_helps_it(
    encoded: EncodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix, "OTHER", 0.0)
    world = World(plan_of(encoded, num_agents=4))
    world.spoil(2)
    before = world.learner.theta.clone()
    pulls = world.mix.pulls.clone()
    event = world.tune()
    given = event["contribution"]
    assert given[2] == min(given) < 0
    ((to, source),) = event["moves"]
    assert (to, source) == (2, given.index(max(given)))
    roles = [role.name for role in world.plan.roles]
    assert event["roles"] == roles
    roles[to] = roles[source]
    assert world.mix.told()["roles"] == roles
    # The net has it, the rows are drawn by it, and weights stay.
    assert [role.name for role in world.learner.roles[:4]] == roles
    assert torch.equal(world.learner.theta, before)
    factor = float(world.mix.pulls[to] / pulls[source])
    assert 0.5 <= factor <= 2.0
    others = [i for i in range(4) if i != to]
    assert torch.equal(world.mix.pulls[others], pulls[others])
    assert isinstance(world.sharing.self_weight, torch.Tensor)
    assert world.sharing.self_weight[to] == pytest.approx(
        1 - float(world.mix.pulls[to])
    )


def test_agents_that_rows_do_not_tell_apart_stay_as_they_are(
    encoded: EncodedDataset,
) -> None:
    world = World(plan_of(encoded, num_agents=4))
    event = world.tune()
    assert event["moves"] == []
    assert all(abs(errors) <= 2 for errors in event["apart"])


def test_an_agent_that_surely_breaks_a_promise_follows_one_that_does_not(
    encoded: EncodedDataset,
) -> None:
    world = World(plan_of(encoded, DP, num_agents=4))
    eligible = torch.tensor([True, False, True, True])
    event = world.tune(eligible=eligible)
    ((to, source),) = event["moves"]
    assert to == 1
    assert source != 1


def test_one_agent_gives_all_and_follows_nobody(encoded: EncodedDataset) -> None:
    assert World(plan_of(encoded, num_agents=1)).tune() is None


def test_an_agent_s_rows_are_drawn_by_the_role_that_it_plays(
    encoded: EncodedDataset,
) -> None:
    alike = {"num_agents": 2, "agent_specializations": ["generalist"]}
    world = World(plan_of(encoded, DP, **alike))
    strong = Role("odd", "small strata alone", balance=4.0)
    strata = world.plan.strata
    small = int(torch.bincount(strata).argmin())

    def share() -> list[float]:
        batch, _ = world.batches.draw()
        return (strata[batch] == small).double().mean(1).tolist()

    before = share()
    placement = Placement(len(world.plan.slots))
    world.batches.play(world.plan, placement, [world.plan.roles[0], strong])
    after = share()
    assert after[1] > before[1] + 0.3
    assert after[0] < 0.5


def test_inputs_drop_out_from_the_step_on_at_which_a_role_says_so(
    encoded: EncodedDataset,
) -> None:
    world = World(plan_of(encoded, num_agents=2, agent_specializations=["generalist"]))
    learner = world.learner
    batch = torch.arange(64).expand(3, -1)

    def tasks() -> torch.Tensor:
        return learner.gradient(batch, batch[:, :0], torch.zeros(0))[0]

    before = tasks()
    dropping = Role("blind", "few inputs", input_drop=0.9)
    learner.retune([learner.roles[0], dropping, learner.roles[2]], [1.0] * 3)
    after = tasks()
    assert after[0] == before[0]
    assert after[1] != before[1]


# --- how agents follow the others ---


def test_each_agent_keeps_as_much_of_itself_as_its_own_weight_says() -> None:
    theta = torch.tensor([[0.0, 4.0], [2.0, 0.0], [4.0, 2.0]])
    sharing = Sharing(torch.zeros(2), TrainingConfig(self_weight=0.5))
    sharing.self_weight = torch.tensor([[0.0], [0.5], [1.0]])
    everyone = torch.ones(3, dtype=torch.bool)
    sharing.share(
        theta,
        usable=everyone,
        eligible=everyone,
        fitness=lambda: torch.zeros(3),
    )
    expected = torch.tensor([[2.0, 2.0], [2.0, 1.0], [4.0, 2.0]])
    assert torch.equal(theta, expected)


def test_equal_weights_of_all_are_the_section_s_to_the_last_bit() -> None:
    start = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    everyone = torch.ones(5, dtype=torch.bool)
    found = []
    for own in (0.9, torch.full((5, 1), 0.9)):
        theta, sharing = start.clone(), Sharing(torch.zeros(7), TrainingConfig())
        sharing.self_weight = own
        sharing.share(
            theta,
            usable=everyone,
            eligible=everyone,
            fitness=lambda: torch.zeros(5),
        )
        found.append(theta)
    assert torch.equal(*found)


def test_weights_begin_around_the_section_s_and_within_their_range(
    encoded: EncodedDataset,
) -> None:
    pulls = World(plan_of(encoded, num_agents=5, self_weight=0.9)).mix.pulls
    expected = [0.1 * 3 ** (i / 2 - 1) for i in range(5)]
    assert sorted(pulls.tolist()) == pytest.approx(expected)
    for alpha, pull in ((1.0, PULLS[0]), (0.0, PULLS[1])):
        own = World(plan_of(encoded, num_agents=5, self_weight=alpha)).mix.pulls
        assert float(own.min()) >= PULLS[0]
        assert float(own.max()) <= PULLS[1]
        assert pull in own.tolist()


# --- a training ---


@pytest.mark.parametrize("also", [("roles",), ("self_weight",), BOTH])
def test_a_training_tells_what_it_tunes_and_nothing_else(
    encoded: EncodedDataset, also: tuple[str, ...]
) -> None:
    events: list[Any] = []
    config = brief(**TUNED, tune_also=[*also], num_agents=4)
    trained = train(
        GenomeNets(encoded, GENOME), config, constitution(USEFUL), log=events.append
    )
    rounds = [e["mix"] for e in events if e["event"] == "population"]
    assert len(rounds) > 3
    assert all(("self_weight" in e) == ("self_weight" in also) for e in rounds)
    if "roles" not in also:
        assert {tuple(e["roles"]) for e in rounds} == {trained.roles}
    names = set(config.agent_specializations)
    assert all(set(e["roles"]) <= names for e in rounds)
    assert len(trained.roles) == 4


def test_without_the_key_nobody_compares_contributions(encoded: EncodedDataset) -> None:
    events: list[Any] = []
    train(
        GenomeNets(encoded, GENOME),
        brief(**TUNED),
        constitution(USEFUL),
        log=events.append,
    )
    rounds = [e for e in events if e["event"] == "population"]
    assert rounds
    assert not any("mix" in e for e in rounds)
    assert TrainingConfig().digest == TrainingConfig(tune_also=()).digest


def test_a_module_s_agents_play_the_roles_of_their_user() -> None:
    own = [Role("calm", "decay", weight_decay=0.3), Role("blind", "", input_drop=0.9)]
    config = module_brief(
        tune="population",
        tune_budget=60,
        tune_every=5,
        num_agents=4,
        steps=60,
        tune_also=["roles"],
    )
    events: list[Any] = []
    trainer = SAFESCALEAMMTTrainer(config, roles=own, log=events.append)
    _, metrics = trainer.train(net(), *both())
    rounds = [e["mix"] for e in events if e["event"] == "population"]
    assert rounds
    last = rounds[-1]["roles"]
    assert set(last) <= {"calm", "blind"}
    played = [agent["role"] for agent in metrics["agents"]]
    assert set(played) <= {"calm", "blind"}
    assert played == last or rounds[-1]["moves"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tune_also": ["roles"]}, "without tune: population"),
        ({"tune_also": ["depth"], "tune": "population"}, "at most once"),
        ({"tune_also": ["roles", "roles"], "tune": "population"}, "at most once"),
    ],
)
def test_what_cannot_tune_itself_is_refused(
    changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        TrainingConfig(**changes)


def test_known_roles_are_a_menu_without_repeats(
    encoded: EncodedDataset, tmp_path: Path
) -> None:
    del tmp_path
    names = ["generalist", "safety", "generalist"]
    world = World(plan_of(encoded, agent_specializations=names))
    assert world.mix.menu == (ROLES["generalist"], ROLES["safety"])
    assert world.mix.played.tolist() == [0, 1, 0]
    trained = train(
        GenomeNets(encoded, GENOME),
        brief(agent_specializations=names),
        constitution(USEFUL),
        log=discard,
    )
    assert trained.roles == tuple(names)
