"""Muon: torch's own steps for each net's matrices, and Adam's for all the rest."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

from safescale_ammt import SAFESCALEAMMTTrainer, TrainingConfig
from safescale_ammt.errors import ConfigError
from safescale_ammt.modules.architectures import Architectures
from safescale_ammt.training import muon
from safescale_ammt.training.adam import Adam
from safescale_ammt.training.muon import Matrix, Muon, matrices_of, orthogonal

SHAPES = ((6, 9), (9,), (9, 4), (4, 1))
"""Of a net's tensors, one after the other in its row."""
MATRICES = matrices_of([(i in (0, 2), shape) for i, shape in enumerate(SHAPES)])
WIDTH = sum(math.prod(shape) for shape in SHAPES)


def rows(seed: int, k: int = 3) -> torch.Tensor:
    return torch.randn(k, WIDTH, generator=torch.Generator().manual_seed(seed))


def stepped(optimizer: Adam, theta: torch.Tensor, steps: int = 4) -> torch.Tensor:
    for step in range(steps):
        optimizer.step(theta, rows(10 + step, len(theta)), 0.01 * (step + 1))
    return theta


def test_matrices_lie_where_their_tensors_do() -> None:
    assert (Matrix(0, 6, 9), Matrix(63, 9, 4)) == MATRICES
    kernels = matrices_of([(True, (8, 3, 5, 5)), (True, (8,)), (True, (1, 7))])
    assert kernels == (Matrix(0, 8, 75),)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
def test_singular_values_are_brought_near_one(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    found = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=generator)))
    assert found.min() > 0.3
    assert found.max() < 1.3
    assert orthogonal(torch.zeros(shape)).abs().max() == 0


def test_steps_are_those_of_torch_s_own_muon_and_adam() -> None:
    theta, decay = rows(0), torch.tensor([[0.0], [0.1], [0.0]])
    ours = stepped(Muon(theta, decay, matrices=[MATRICES] * 3), theta.clone())
    for net, (start, weight_decay) in enumerate(zip(theta, decay[:, 0], strict=True)):
        parts = torch.split(start, [math.prod(shape) for shape in SHAPES])
        theirs = [
            nn.Parameter(part.clone().view(shape))
            for part, shape in zip(parts, SHAPES, strict=True)
        ]
        matrices, rest = theirs[::2][:2], [theirs[1], theirs[3]]
        for step in range(4):
            slopes = torch.split(
                rows(10 + step)[net], [math.prod(shape) for shape in SHAPES]
            )
            for parameter, slope in zip(theirs, slopes, strict=True):
                parameter.grad = slope.view_as(parameter).clone()
            options = {"lr": 0.01 * (step + 1), "weight_decay": float(weight_decay)}
            if step == 0:
                one = torch.optim.Muon(
                    matrices,
                    momentum=muon.MOMENTUM,
                    ns_steps=muon.STEPS,
                    adjust_lr_fn="match_rms_adamw",
                    **options,
                )
                other = torch.optim.AdamW(rest, **options)
            for optimizer in (one, other):
                optimizer.param_groups[0].update(options)
                optimizer.step()
        flat = torch.cat([parameter.detach().flatten() for parameter in theirs])
        # torch's iterates in bfloat16, three digits of each step.
        torch.testing.assert_close(ours[net], flat, rtol=0, atol=2e-3)
        exact = torch.ones(WIDTH, dtype=torch.bool)
        for at in MATRICES:
            exact[at.piece] = False
        torch.testing.assert_close(ours[net][exact], flat[exact])


def test_a_net_is_moved_as_it_would_be_alone_to_the_bit() -> None:
    theta = rows(0)
    together = stepped(Muon(theta, torch.zeros(3, 1), matrices=[MATRICES] * 3), theta)
    alone = Muon(theta, torch.zeros(3, 1), matrices=[MATRICES, (), MATRICES])
    plain = stepped(alone, rows(0))
    assert torch.equal(together[[0, 2]], plain[[0, 2]])
    adam = stepped(Adam(theta, torch.zeros(3, 1)), rows(0))
    assert torch.equal(plain[1], adam[1])
    assert not torch.equal(together[1], adam[1])


def test_a_net_that_skips_and_one_that_is_copied_keep_their_matrices() -> None:
    theta = rows(0)
    optimizer = Muon(theta, torch.zeros(3, 1), stability=1e3, matrices=[MATRICES] * 3)
    slope = rows(1)
    slope[1, 0] = math.nan
    assert optimizer.step(theta, slope, 0.01).tolist() == [True, False, True]
    assert torch.equal(theta[1], rows(0)[1])
    assert optimizer.first[1].abs().max() == 0
    copies = optimizer.select(torch.tensor([2, 2, 0]), torch.zeros(3, 1))
    moved = theta[[2, 2, 0]]
    copies.step(moved, rows(2)[[2, 2, 0]], 0.01)
    optimizer.step(theta, rows(2), 0.01)
    assert torch.equal(moved, theta[[2, 2, 0]])


def test_of_a_module_hidden_layers_alone_are_matrices() -> None:
    net = nn.Sequential(
        nn.Embedding(5, 4), nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), nn.Linear(6, 2)
    )
    (found,) = Architectures.of([net]).matrices([0])
    assert found == (Matrix(20, 6, 12),)


def test_a_trainer_learns_by_muon_in_a_line_and_another_optimizer_is_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    data = torch.utils.data.TensorDataset(x, y)
    settings = {"num_agents": 2, "steps": 120, "trunk_steps": 40, "batch_size": 64}
    settings |= {"learning_rate": 0.01, "warmup_steps": 5}
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1))
    accuracy = {}
    for optimizer in ("adam", "muon"):
        config = TrainingConfig(**settings, optimizer=optimizer, schedule="linear")
        _, metrics = SAFESCALEAMMTTrainer(config).train(net, data, data, {})
        accuracy[optimizer] = metrics["final_accuracy"]
    assert accuracy["muon"] > 0.8
    assert accuracy["muon"] != accuracy["adam"]
    with pytest.raises(ConfigError, match=re.escape("training.optimizer")):
        TrainingConfig(optimizer="sgd")
