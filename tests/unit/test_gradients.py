"""Gradients by hand equal autograd's, and rows as pairs equal the rows themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_world import prepared, prepared_three_classes

from safescale_ammt.config.roles import ROLES
from safescale_ammt.data.coding import Coding
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.network import Dropout, forward, initial, shapes, unflatten
from safescale_ammt.training.constraints import Cell
from safescale_ammt.training.encoded import CodedInputs, EncodedDataset, EncodedRows
from safescale_ammt.training.genome_nets import GenomeLearner
from safescale_ammt.training.gradients import Backprop, Objective, at_lines
from safescale_ammt.training.learner import soft_rates, task_loss
from safescale_ammt.training.pairs import Pairs

PER_CELL, BATCH, NETS = 8, 40, 3
CELLS = [
    Cell("g", code, value, outcome, None)
    for outcome in (0, 1)
    for code, value in enumerate("ab")
]
BRIER = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = tmp_path_factory.mktemp("loans")
    return EncodedDataset(Dataset.load(prepared(folder)))


def objective(n_out: int) -> Objective:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, max(2, n_out), (NETS, BATCH), generator=generator)
    weight = torch.randn(NETS, len(CELLS), generator=generator) / PER_CELL
    outcomes = torch.tensor([c.outcome for c in CELLS])
    each = (outcomes, weight)
    return Objective(labels, BRIER, *(t.repeat_interleave(PER_CELL, -1) for t in each))


def by_autograd(out: torch.Tensor, held: Objective) -> torch.Tensor:
    """Returns the Lagrangians by the functions that nets of several heads use."""
    task = task_loss(out[:, :, :BATCH], held.label, torch.tensor(BRIER))
    soft = soft_rates(out[:, :, BATCH:].mean(1), CELLS)
    weights = held.weight[:, ::PER_CELL] * PER_CELL
    return (task + (soft * weights).sum(1)).sum()


@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize(
    "shape",
    [
        {"widths": ()},
        {"widths": (12, 8)},
        {"widths": (9, 9, 9), "residual": True},
        {"widths": (16, 16), "residual": True, "activation": "tanh"},
        {"widths": (10, 6), "activation": "gelu"},
        {"widths": (10, 6), "activation": "silu"},
    ],
)
def test_a_gradient_by_hand_is_autograd_s(
    shape: dict[str, Any], dropout: float, n_out: int
) -> None:
    genome = Genome(**{"dropout": dropout, **shape})
    # As wide as a hidden layer: a residual link then adds the inputs too.
    d, rows = 9, BATCH + len(CELLS) * PER_CELL
    layout = shapes(genome, d, n_out)
    theta = initial(genome, d, n_out, range(NETS)).double().requires_grad_()
    x = torch.randn(NETS, rows, d, dtype=torch.float64)
    held = objective(n_out)

    def drop() -> Dropout:
        masks = Dropout(genome.dropout, 5)
        masks.place(range(NETS), NETS)
        return masks

    out = forward(genome, unflatten(theta, layout), x, drop())
    (expected,) = torch.autograd.grad(by_autograd(out, held), theta)
    same = drop()
    masks = [same.masks(rows * units) for units in genome.widths]
    logits, grad = Backprop(genome, layout)(theta.detach(), [*x], masks, held)
    torch.testing.assert_close(logits, out[:, 0])
    torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-9)


def inputs(rows: EncodedRows) -> torch.Tensor:
    return rows.batch(torch.arange(len(rows)))


def test_ladders_are_ones_a_fraction_and_zeros(encoded: EncodedDataset) -> None:
    coding, x = Coding(encoded.schema, "ple"), inputs(encoded.rows("train", "ple"))
    assert coding.ladders
    for columns in coding.ladders:
        part = x[:, columns.start : columns.stop]
        assert (part[:, :-1] >= part[:, 1:]).all()
        assert ((part[:, :-1] == 1) | (part[:, 1:] == 0)).all()
    assert not Coding(encoded.schema, "standard").ladders


@pytest.mark.parametrize("kept", [True, False])
def test_rows_as_pairs_have_the_same_products_both_ways(
    encoded: EncodedDataset, kept: bool
) -> None:
    rows = encoded.rows("train", "ple")
    index = torch.randint(0, len(rows), (50,))
    assert isinstance(rows.x, CodedInputs)
    # Of very many rows those that are drawn become pairs.
    drawn = Pairs.of(rows.x.coding, rows.x.codes.take(index.numpy()))
    batch = rows.pairs(index) if kept else drawn
    assert batch is not None
    x = torch.cat([rows.batch(index), torch.ones(50, 1)], 1)
    table = torch.randn(2, x.shape[1], 16)
    sums = batch.ladders.sum_(table.clone())
    slope = torch.randn(50, 16)
    torch.testing.assert_close(
        batch.product(sums[1]), x @ table[1], rtol=1e-4, atol=1e-4
    )
    back = batch.ladders.sum_(batch.back(slope)[None], back=True)[0]
    torch.testing.assert_close(back, x.T @ slope, rtol=1e-4, atol=1e-4)


def test_rows_of_unknown_making_and_dense_ones_stay_as_they_are(
    encoded: EncodedDataset,
) -> None:
    x, index = torch.ones(3, 40), torch.arange(2)
    assert EncodedRows(x, x[:, 0], {}).pairs(index) is None
    assert encoded.rows("train", "standard").pairs(index) is None


@pytest.mark.parametrize("classes", [2, 3])
def test_a_step_on_pairs_is_the_step_on_the_rows(
    encoded: EncodedDataset, classes: int, tmp_path: Path
) -> None:
    of = encoded
    if classes == 3:
        of = EncodedDataset(Dataset.load(prepared_three_classes(tmp_path)))
    rows = of.rows("train", "ple")
    plain = EncodedRows(inputs(rows), rows.y, rows.groups)
    assert rows.pairs(torch.arange(2)) is not None
    genome, d = Genome(widths=(16, 8), dropout=0.1), rows.width
    names = ("generalist", "robust", "safety")
    found = []
    for each in (rows, plain):
        theta = initial(genome, d, of.n_out, [0])
        net = GenomeLearner(
            genome, each, theta, n_out=of.n_out, ema=0.9, stability=1e3, seed=1,
            cells=CELLS,
        )  # fmt: skip
        net.fork([ROLES[name] for name in names])
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            index = torch.randint(0, len(rows), (3, 64), generator=generator)
            extra = torch.randint(0, len(rows), (3, 20), generator=generator)
            net.step(index, extra, torch.tensor([0.1, -0.1, 0.2, 0.0]), 0.01)
        found.append(net.theta)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_net_has_the_same_bits_alone_and_beside_others(
    encoded: EncodedDataset, activation: str
) -> None:
    # Widths that end on no edge of a cache line or of a vector.
    genome = Genome(widths=(13, 7), dropout=0.2, activation=activation)
    rows = encoded.rows("train", "ple")
    theta = initial(genome, rows.width, 1, range(NETS))
    backprop = Backprop(genome, shapes(genome, rows.width, 1))
    drop, n = Dropout(genome.dropout, 5), BATCH + len(CELLS) * PER_CELL
    drop.place(range(NETS), NETS)
    masks = [drop.masks(n * units) for units in genome.widths]
    index = torch.randint(0, len(rows), (NETS * n,))
    pairs, held = rows.pairs(index), objective(1)
    assert pairs is not None
    # The middle net reads inputs, the others pairs.
    each = [*pairs.split(n)[:1], rows.batch(index[n : 2 * n]), *pairs.split(n)[2:]]
    _, together = backprop(theta, each, masks, held)
    for i in range(NETS):
        own = Objective(
            held.label[i : i + 1], BRIER[i : i + 1], held.outcome, held.weight[i][None]
        )
        mine = [layer[i : i + 1] for layer in masks]
        _, alone = backprop(theta[i : i + 1], each[i : i + 1], mine, own)
        assert torch.equal(alone[0], together[i])


def test_nets_begin_where_cache_lines_do() -> None:
    room = at_lines(torch.zeros(3, 5, 7))
    assert room.shape == (3, 5, 7)
    assert [net.data_ptr() % 64 for net in room.unbind()] == [0, 0, 0]
    assert all(net.is_contiguous() for net in room.unbind())
