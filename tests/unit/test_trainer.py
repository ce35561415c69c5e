"""Trainer: the loop, its schedule, its arithmetic and how it ends badly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_tables import HEADER, loans, spell
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from training_world import (
    DP,
    GENOME,
    TPR,
    USEFUL,
    brief,
    constitution,
    prepare,
    prepared,
    prepared_three_classes,
)

from safescale_ammt.config.roles import ROLES
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import DataError, SafescaleError
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.network import forward, initial, predicted, unflatten
from safescale_ammt.training.adam import Adam
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.genome_nets import GenomeLearner, GenomeNets
from safescale_ammt.training.learner import soft_rates, task_loss
from safescale_ammt.training.plan import Plan, make_plan, of_length
from safescale_ammt.training.sampling import CellSampler
from safescale_ammt.training.sync import Round
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import discard


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = tmp_path_factory.mktemp("loans")
    return EncodedDataset(Dataset.load(prepared(folder, sensitive_in_model=True)))


Events = list[dict[str, Any]]


def run(
    encoded: EncodedDataset, *constraints: Any, genome: Genome = GENOME, **changes: Any
) -> tuple[Trained, Events]:
    events: Events = []
    promises = constitution(*(constraints or (TPR, USEFUL)))
    trained = train(
        GenomeNets(encoded, genome), brief(**changes), promises, log=events.append
    )
    return trained, events


# --- the run ---


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    encoded: EncodedDataset,
) -> None:
    first, _ = run(encoded)
    torch.manual_seed(99)
    second, _ = run(encoded)
    other, _ = run(encoded, seed=1)
    assert torch.equal(first.agents, second.agents)
    assert torch.equal(first.twin, second.twin)
    assert not torch.equal(first.agents, other.agents)


def test_the_twin_is_trained_as_if_there_were_no_constitution(
    encoded: EncodedDataset,
) -> None:
    # The cells' rows pass through the same dropout masks, so without dropout the
    # twins of two constitutions must be equal bit for bit.
    dry = Genome(widths=(8,), dropout=0.0)
    bound, _ = run(encoded, DP, genome=dry)
    free, _ = run(encoded, USEFUL, genome=dry)
    torch.testing.assert_close(bound.twin, free.twin)
    assert not torch.allclose(bound.agents, free.agents)


def test_enforcing_a_gap_closes_it_on_the_rows_that_were_held_out(
    encoded: EncodedDataset,
) -> None:
    _, events = run(encoded, DP, steps=300, trunk_steps=60, dual_ki=1.0)
    rounds = [e["violation"]["dp-gap"] for e in events if e["event"] == "round"]
    assert rounds[0] > 0.1
    assert sum(rounds[-5:]) / 5 < 0.05


@pytest.mark.parametrize("k", [1, 2, 5])
def test_any_number_of_agents_trains(encoded: EncodedDataset, k: int) -> None:
    trained, _ = run(encoded, num_agents=k)
    assert trained.agents.shape[0] == k
    assert trained.finite.all()


def test_a_short_run_needs_no_twin(encoded: EncodedDataset) -> None:
    promises = constitution(TPR)
    trained = train(
        GenomeNets(encoded, GENOME),
        brief(num_agents=1),
        promises,
        log=discard,
        twin=False,
    )
    assert len(trained.twin) == 0


@pytest.mark.parametrize("sharing", ["mean", "fitness", "trimmed_mean", "median"])
def test_every_way_of_sharing_trains(encoded: EncodedDataset, sharing: str) -> None:
    trained, _ = run(encoded, sharing=sharing, self_weight=0.5)
    assert trained.finite.all()


def test_agents_that_share_everything_stay_together(encoded: EncodedDataset) -> None:
    apart, _ = run(encoded, self_weight=1.0)
    close, _ = run(encoded, self_weight=0.1)
    assert close.agents.std(0).mean() < apart.agents.std(0).mean()


@pytest.mark.parametrize(
    "genome",
    [
        Genome(widths=(), dropout=0.0),
        Genome(encoding="standard", widths=(6, 6), residual=True),
        Genome(widths=(6,), heads=2),
    ],
)
def test_every_kind_of_genome_trains(encoded: EncodedDataset, genome: Genome) -> None:
    trained, _ = run(encoded, genome=genome, num_agents=2)
    width = encoded.d_in(genome.encoding)
    assert trained.agents.shape == (2, genome.parameters(width, 1))


def test_every_role_trains_beside_the_others(encoded: EncodedDataset) -> None:
    roles = sorted(ROLES)
    trained, _ = run(encoded, num_agents=len(roles), agent_specializations=roles)
    assert len(trained.agents) == len(roles)
    assert trained.finite.all()


def test_three_classes_train_and_their_gap_closes(tmp_path: Path) -> None:
    path = prepared_three_classes(tmp_path, positive="later", sensitive_in_model=True)
    three = EncodedDataset(Dataset.load(path))
    assert (three.n_out, three.outcomes) == (3, (0,))
    # Of eight seeds two do not get there in so few steps, with any masks.
    _, events = run(three, DP, steps=250, trunk_steps=60, seed=1)
    rounds = [e["violation"]["dp-gap"] for e in events if e["event"] == "round"]
    assert min(rounds[-5:]) < 0.1 < rounds[0]


def test_three_classes_without_a_positive_one_compare_all(tmp_path: Path) -> None:
    three = EncodedDataset(Dataset.load(prepared_three_classes(tmp_path, positive="")))
    assert three.outcomes == (0, 1, 2)
    trained, _ = run(three, DP, num_agents=2)
    assert len(trained.constraints.pairs) == 6


# --- the log ---


def test_the_log_holds_loss_violation_and_multiplier_as_json(
    encoded: EncodedDataset,
) -> None:
    _, events = run(encoded, DP)
    rounds = [e for e in events if e["event"] == "round"]
    assert [e["step"] for e in rounds] == list(range(20, 60, 5))
    for event in rounds:
        json.dumps(event, allow_nan=False)
        assert len(event["loss"]) == 3
        assert len(event["twin_loss"]) == 1
        assert set(event["multiplier"]["dp-gap"]) == {"rate: f - m", "rate: m - f"}
    assert len(rounds[0]["accuracy"]) == 4
    assert any(e["event"] == "trunk" for e in events)


def test_a_group_that_is_left_out_is_logged(encoded: EncodedDataset) -> None:
    events: Events = []
    promises = constitution({**TPR, "group": "origin"}, min_n=200)
    train(GenomeNets(encoded, GENOME), brief(), promises, log=events.append)
    reasons = [e["reason"] for e in events if e["event"] == "left_out"]
    assert any("origin = 'west'" in r for r in reasons)


# --- the schedule ---


def plan(encoded: EncodedDataset, **changes: Any) -> Plan:
    return make_plan(GenomeNets(encoded, GENOME), brief(**changes), constitution(TPR))


def test_epochs_bound_the_steps_and_shorten_the_trunk(encoded: EncodedDataset) -> None:
    assert (plan(encoded).trunk_steps, plan(encoded).steps) == (20, 60)
    rows = len(plan(encoded).rows)
    short = plan(encoded, max_epochs=2)
    assert short.steps == 2 * -(-rows // 64)
    assert short.trunk_steps == round(20 * short.steps / 60)
    assert plan(encoded, max_epochs=50).steps == 60


def test_of_fewer_steps_each_phase_keeps_its_share() -> None:
    whole = TrainingConfig()
    third = of_length(whole, 400)
    assert third.steps == 400
    assert third.trunk_steps == 133
    assert third.warmup_steps == 17
    assert third.ema == pytest.approx(0.97)
    assert (third.sync_every, third.dual_every) == (7, 7)
    few = of_length(whole, 21)
    assert (few.trunk_steps, few.warmup_steps, few.sync_every) == (7, 1, 1)
    assert few.ema == pytest.approx(1 - 0.01 * 1200 / 21)
    assert of_length(whole, 1).ema == 0
    # More steps are more of the same: the trunk's share, and nothing slower.
    more = of_length(whole, 4800)
    assert more == replace(whole, steps=4800, trunk_steps=1600)
    assert of_length(whole, 1200) == whole


def test_a_few_epochs_teach_as_much_as_a_plain_loop_of_as_many(
    encoded: EncodedDataset,
) -> None:
    """Neither warm-up nor the average's memory may be longer than the training."""
    promises = constitution(TPR)
    config = TrainingConfig(
        num_agents=2,
        batch_size=64,
        learning_rate=0.02,
        max_epochs=8,
        agent_specializations=("generalist",),
    )
    short = train(GenomeNets(encoded, GENOME), config, promises, log=discard)
    rows = short.nets.rows("validation")
    logits = short.nets.logits(short.twin, rows, torch.arange(len(rows))[None])
    right = (predicted(logits)[0] == rows.y).double().mean()
    base = rows.y.double().mean()
    assert right > max(base, 1 - base) + 0.05


def test_the_rate_warms_up_and_falls_to_nothing(encoded: EncodedDataset) -> None:
    schedule = plan(encoded)
    rates = [schedule.learning_rate(step) for step in range(60)]
    assert rates[0] == pytest.approx(0.01 / 5, rel=0.01)
    assert max(rates) <= 0.01
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 1e-4


def test_each_agent_sees_all_rows_but_its_own_fold(encoded: EncodedDataset) -> None:
    folded = plan(encoded, num_agents=6, folds=4)
    everything = set(range(len(folded.rows)))
    for fold, view in zip(folded.held_out, folded.views, strict=False):
        assert set(fold.tolist()) | set(view.tolist()) == everything
        assert not set(fold.tolist()) & set(view.tolist())
    assert torch.equal(folded.held_out[0], folded.held_out[4])
    assert set(torch.cat(folded.held_out[:4]).tolist()) == everything
    assert set(folded.views[-1].tolist()) == everything


def test_the_smallest_view_bounds_the_batch(encoded: EncodedDataset) -> None:
    greedy = plan(encoded, batch_size=100_000)
    assert greedy.batch_size == min(len(view) for view in greedy.views)


# --- small and odd data ---


def test_data_smaller_than_a_batch_and_folds_without_positives_train(
    tmp_path: Path,
) -> None:
    small = EncodedDataset(Dataset.load(prepared(tmp_path, rows=120)))
    promises = constitution(TPR, DP, min_n=1, min_pos=1)
    trained = train(
        GenomeNets(small, GENOME), brief(num_agents=8, folds=8), promises, log=discard
    )
    assert trained.finite.all()


def test_five_groups_and_crosses_train_side_by_side(tmp_path: Path) -> None:
    path = prepared(tmp_path, rows=900, crosses={"both": ["gender", "origin"]})
    promises = constitution(
        {"metric": "eo_difference", "group": "both", "threshold": 0.3},
        {"metric": "fpr_gap", "group": "gender", "threshold": 0.2},
        min_n=10,
        min_pos=3,
    )
    crossed = EncodedDataset(Dataset.load(path))
    trained = train(GenomeNets(crossed, GENOME), brief(), promises, log=discard)
    assert len({c.value for c in trained.constraints.cells if c.group == "both"}) >= 5


def test_too_few_rows_for_the_folds_is_one_sentence(tmp_path: Path) -> None:
    table = loans(32)
    tiny = EncodedDataset(Dataset.load(prepare(tmp_path, spell(table, HEADER))))
    with pytest.raises(DataError, match="too few for 16 folds"):
        run(tiny, num_agents=16, folds=16)


# --- bad ends ---


def test_a_rate_that_destroys_training_ends_it_in_one_sentence(
    encoded: EncodedDataset,
) -> None:
    with pytest.raises(SafescaleError) as caught:
        run(encoded, learning_rate=1e30, trunk_steps=30)
    assert "had no finite gradient" in str(caught.value)
    assert "lower training.learning_rate (1e+30)" in str(caught.value)


def test_a_threshold_that_no_gradient_meets_ends_training_too(
    encoded: EncodedDataset,
) -> None:
    with pytest.raises(SafescaleError, match="gradient_stability_threshold = 1e-09"):
        run(encoded, gradient_stability_threshold=1e-9, trunk_steps=0)


def test_a_role_for_images_acts_as_the_generalist_and_says_so_once(
    encoded: EncodedDataset,
) -> None:
    trained, events = run(encoded, agent_specializations=["vision"], tpu_pods=2)
    plain, _ = run(encoded, agent_specializations=["generalist"])
    assert torch.equal(trained.agents, plain.agents)
    reasons = [e["reason"] for e in events if e["event"] == "unapplied"]
    assert len(reasons) == 2
    assert "training.tpu_pods is 2, which does not apply" in reasons[0]
    assert "'vision', a role for images" in reasons[1]


# --- the step ---


def test_adam_on_a_matrix_is_torch_s_adam_on_each_row() -> None:
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(3, 5, generator=generator)
    rows = [torch.nn.Parameter(row.clone()) for row in theta]
    references = [
        torch.optim.AdamW([row], lr=0.01, weight_decay=decay)
        for row, decay in zip(rows, (0.0, 0.1, 0.0), strict=True)
    ]
    adam = Adam(theta, torch.tensor([[0.0], [0.1], [0.0]]))
    for step in range(6):
        grad = torch.randn(3, 5, generator=generator)
        # The last row sits out every second step.
        active = [0, 1, 2] if step % 2 else [0, 1]
        unstable = grad.clone()
        unstable[[i for i in range(3) if i not in active]] = torch.nan
        assert adam.step(theta, unstable, 0.01).nonzero()[:, 0].tolist() == active
        for i in active:
            rows[i].grad = grad[i].clone()
            references[i].step()
    for row, reference in zip(theta, rows, strict=True):
        torch.testing.assert_close(row, reference.data)


@pytest.mark.parametrize("n_out", [1, 3])
def test_the_task_loss_is_torch_s_log_loss_and_the_brier_score(n_out: int) -> None:
    out = torch.randn(2, 1, 50, n_out)
    label = torch.randint(max(2, n_out), (2, 50))
    plain = task_loss(out, label, torch.zeros(2))
    brier = task_loss(out, label, torch.tensor([0.0, 1.0]))
    for i in range(2):
        logits, target = out[i, 0], label[i]
        if n_out == 1:
            expected = binary_cross_entropy_with_logits(logits[:, 0], target.float())
            score = (torch.sigmoid(logits[:, 0]) - target).square().mean()
        else:
            expected = cross_entropy(logits, target)
            one = torch.eye(3)[target]
            score = (torch.softmax(logits, 1) - one).square().sum(1).mean() / 2
        torch.testing.assert_close(plain[i], expected)
    torch.testing.assert_close(brier[0], plain[0])
    torch.testing.assert_close(brier[1], 4 * score)


def learner(k: int = 2, **changes: Any) -> GenomeLearner:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 4, generator=generator)
    rows = EncodedRows(x, (x[:, 0] > 0).to(torch.int64), {})
    settings = {"n_out": 1, "ema": 0.5, "stability": 1e3, "seed": 1, **changes}
    return GenomeLearner(GENOME, rows, initial(GENOME, 4, 1, range(k)), **settings)


def step(net: GenomeLearner) -> tuple[torch.Tensor, torch.Tensor]:
    k = len(net.theta)
    batch = torch.arange(20).expand(k, -1)
    nothing = torch.zeros(k, 0, dtype=torch.long)
    return net.step(batch, nothing, torch.zeros(0), 0.1)


def test_a_net_with_a_poisoned_gradient_skips_and_touches_nobody() -> None:
    healthy, mixed = learner(), learner()
    mixed.theta[1, 0] = torch.nan
    before = mixed.theta[1].clone()
    step(healthy)
    _, skipped = step(mixed)
    assert skipped.tolist() == [False, True]
    torch.testing.assert_close(mixed.theta[0], healthy.theta[0])
    assert torch.equal(mixed.theta[1].isnan(), before.isnan())
    assert mixed.finite().tolist() == [True, False]
    mixed.adopt(healthy.theta[:1].repeat(2, 1), Round(True, (True, False), (1,), ()))
    assert mixed.finite().all()
    assert mixed.optimizer.count[1].item() == 0


def test_the_average_follows_the_weights_by_its_decay() -> None:
    net = learner()
    before = net.averaged.clone()
    step(net)
    torch.testing.assert_close(net.averaged, (before + net.theta) / 2)


def test_soft_rates_are_means_over_each_cell_s_rows(encoded: EncodedDataset) -> None:
    cells = plan(encoded).constraints.cells
    logits = torch.randn(2, len(cells) * 7, 1)
    expected = torch.sigmoid(logits[..., 0]).view(2, len(cells), 7).mean(2)
    torch.testing.assert_close(soft_rates(logits, cells), expected)


def test_the_sampler_draws_rows_of_the_cell_that_the_net_may_see(
    encoded: EncodedDataset,
) -> None:
    made = plan(encoded)
    inside = made.constraints.membership(made.rows.groups, made.rows.y)
    sampler = CellSampler(inside, made.views, seed=1)
    draw = sampler.draw().view(len(made.views), len(inside), sampler.per_cell)
    for net, view in enumerate(made.views):
        for cell, member in enumerate(inside):
            rows = draw[net, cell]
            assert member[rows].all()
            assert set(rows.tolist()) <= set(view.tolist())


def test_the_soup_of_agents_from_one_trunk_still_works(encoded: EncodedDataset) -> None:
    trained, _ = run(encoded, num_agents=4, steps=120)
    rows = encoded.rows("validation", GENOME.encoding)
    layout = shapes(GENOME, rows.width, 1)

    x = rows.batch(torch.arange(len(rows)))

    def accuracy(theta: torch.Tensor) -> float:
        out = forward(GENOME, unflatten(theta, layout), x[None])[0, 0, :, 0]
        return ((out > 0) == rows.y).double().mean().item()

    soup = accuracy(trained.agents.mean(0, keepdim=True))
    worst = min(accuracy(trained.agents[i : i + 1]) for i in range(4))
    assert soup >= worst - 0.03
