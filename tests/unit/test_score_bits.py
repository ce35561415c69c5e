"""Scores have the same bits in every library, beside any rows and in any order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import score_definition
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safescale_ammt.model import arithmetic
from safescale_ammt.model.fair_head import FairHead, Part
from safescale_ammt.model.genome import ACTIVATIONS, Genome, shapes
from safescale_ammt.model.logits import BY_LIBRARY, EXACT
from safescale_ammt.model.network import initial, unflatten
from safescale_ammt.model.predictor import BLOCK, Deployable

ROOT = Path(__file__).parents[2]
SIZES = (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 1023, 1024, 1025)
MAGNITUDES = (1.0, 1e-3, 1e6, 1e-42, 0.0, 3e38)


@st.composite
def models(draw: st.DrawFn, d_in: int) -> Deployable:
    """Any form of a model: nets, heads, classes, a fair head, a threshold."""
    width = st.sampled_from([1, 3, 4, 20])
    genome = Genome(
        widths=tuple(draw(st.lists(width, max_size=3))),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        residual=draw(st.booleans()),
        heads=draw(st.sampled_from([1, 1, 3])),
    )
    classes, members = draw(st.sampled_from([1, 1, 3])), draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**32 - 1))
    theta = initial(genome, d_in, classes, range(seed, seed + members))
    theta *= draw(st.sampled_from([1.0, 30.0, 1e-30]))
    layout = shapes(genome, d_in, classes)
    weights = {n: w.numpy() for n, w in unflatten(theta, layout).items()}
    positive = draw(st.sampled_from([None, 0])) if classes > 1 else 1
    head = None
    if classes == 1 and draw(st.booleans()):
        rng = np.random.default_rng(seed)
        head = FairHead(
            tuple(
                Part(condition, *(rng.normal(size=s).astype(np.float32) for s in sizes))
                for condition, sizes in (
                    (True, ((d_in, 2), 2, 2)),
                    (None, ((d_in, 3), 3, 3)),
                    (False, ((d_in, 1), 1, 1)),
                )
            )
        )
    threshold = draw(st.sampled_from([0.5, 0.123456789, 0.0, 1.0]))
    return Deployable(genome, weights, "ensemble", positive, head, threshold)


def rows(n: int, d: int, seed: int, magnitudes: Any = MAGNITUDES) -> np.ndarray:
    """Draws encoded rows, each of its own size: denormal, huge and nothing too."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).clip(-1, 1)
    x *= rng.choice(magnitudes, size=(n, 1))
    x[rng.random((n, d)) < 0.3] = 0.0
    return x.astype(np.float32)


def same(found: tuple[np.ndarray, np.ndarray], own: Any) -> bool:
    score, prediction = found
    # Of two zeros, and of two that are no numbers, the bits say nothing.
    equal = np.array_equal(score, own.score, equal_nan=True)
    return equal and np.array_equal(prediction, own.prediction)


LIBRARIES = [
    pytest.param(score_definition.Torch, id="torch"),
    pytest.param(score_definition.Onnx, id="onnxruntime"),
]


def answered(library: Any, model: Deployable, x: np.ndarray) -> Any:
    if library is score_definition.Onnx:
        for name in ("onnx", "onnxruntime"):
            pytest.importorskip(name)
    return score_definition.answered(library(x), model)


@pytest.mark.parametrize("library", LIBRARIES)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_library_computes_every_model_s_scores_to_the_last_bit(
    library: Any, data: st.DataObject
) -> None:
    d_in = data.draw(st.sampled_from([1, 5]))
    model = data.draw(models(d_in))
    x = rows(data.draw(st.sampled_from(SIZES)), d_in, data.draw(st.integers(0, 99)))
    assert same(answered(library, model, x), model.answer(x))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_more_inputs_and_units_than_a_piece_have_the_same_bits_too(
    library: Any, activation: str
) -> None:
    genome = Genome(widths=(515, 70), activation=activation, heads=2)
    weights = unflatten(initial(genome, 1100, 1, [7]), shapes(genome, 1100, 1))
    model = Deployable(genome, {n: w.numpy() for n, w in weights.items()}, "soup", 1)
    x = rows(90, 1100, 5)
    assert same(answered(library, model, x), model.answer(x))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_neither_neighbours_nor_the_order_of_inputs_and_units_show(
    data: st.DataObject,
) -> None:
    d_in = 7
    model = data.draw(models(d_in))
    x = rows(700, d_in, 3)
    whole = model.answer(x)
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(700)
    some = order[: data.draw(st.integers(0, 700))]
    assert same((whole.score[some], whole.prediction[some]), model.answer(x[some]))
    # The same net with its inputs in another order adds in another order.
    turn = np.random.default_rng(1).permutation(d_in)
    weights = dict(model.weights)
    first = "layer0" if model.genome.widths else "out"
    at = 1 if first == "layer0" else 2
    weights[f"{first}.weight"] = np.take(weights[f"{first}.weight"], turn, at)
    if f"{first}.scale_in" in weights:
        scale = weights[f"{first}.scale_in"]
        weights[f"{first}.scale_in"] = np.take(scale, turn, 2)
    head = model.head and FairHead(
        tuple(
            Part(p.condition, p.weight[turn], p.bias, p.shift) for p in model.head.parts
        )
    )
    # A residual link adds the inputs themselves to the units, which have an order too.
    if not (model.genome.residual and model.genome.widths[:1] == (d_in,)):
        turned = Deployable(
            *(model.genome, weights, "soup", model.positive, head, model.threshold)
        )
        assert same((whole.score, whole.prediction), turned.answer(x[:, turn]))


@pytest.mark.parametrize("size", [1, 5, 511, 512, 513, 1300])
def test_a_sum_of_products_is_the_same_in_any_order(size: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.normal(size=(40, size)) * 10.0 ** rng.integers(-9, 9, (40, 1))
    matrix = rng.normal(size=(size, 3)) * 10.0 ** rng.integers(-9, 9, 3)
    found = arithmetic.exact(matrix)(x)
    # Python adds one by one, backwards; math.fsum would do as well.
    for i in range(0, 40, 13):
        for j in range(3):
            expected = 0.0
            for at in range(0, size, arithmetic.PIECE):
                a = arithmetic.on_grid(x[i : i + 1, at : at + arithmetic.PIECE], 1)[0]
                b = arithmetic.on_grid(matrix[at : at + arithmetic.PIECE], 0)[:, j]
                total = 0.0
                for left, right in zip(a[::-1], b[::-1], strict=True):
                    total += float(left) * float(right)
                expected = total if at == 0 else expected + total
            assert found[i, j] == expected
    # And it is the product: no factor is rounded by more than 2^-22 of the largest.
    scale = np.abs(x).max(1, keepdims=True) * np.abs(matrix).max(0) * size
    assert (np.abs(found - x @ matrix) <= scale * 2.0**-21).all()


@pytest.mark.parametrize("exponent", [-500, -30, -1, 0, 1, 30, 900])
@pytest.mark.parametrize("mantissa", [1.0, 1.0 + 2.0**-52, 1.5, 2.0 - 2.0**-52])
def test_a_row_is_rounded_to_a_grid_that_its_largest_says(
    exponent: int, mantissa: float
) -> None:
    top = mantissa * 2.0**exponent
    x = np.concatenate([[top], top * np.random.default_rng(0).uniform(-1, 1, 50)])
    nearest = 2.0 ** (exponent + (1.5 <= mantissa < 2.0 - 2.0**-52))
    unit = 2 * nearest * 2.0**-arithmetic.BITS
    expected = np.rint(x / unit) * unit
    assert np.array_equal(arithmetic.on_grid(x[None], 1)[0], expected)
    assert np.array_equal(arithmetic.on_grid(x[:, None], 0)[:, 0], expected)


def test_functions_are_those_of_the_textbooks_to_a_few_last_bits() -> None:
    x = np.concatenate([np.linspace(-60, 60, 4001), [-1e300, 1e300, 0.0, 1e-300]])
    t = torch.from_numpy(x)
    pairs = {
        arithmetic.sigmoid: torch.sigmoid(t),
        arithmetic.tanh: torch.tanh(t),
        arithmetic.relu: torch.relu(t),
        arithmetic.silu: torch.nn.functional.silu(t),
        arithmetic.gelu: torch.nn.functional.gelu(t),
    }
    with np.errstate(over="ignore"):
        for ours, theirs in pairs.items():
            np.testing.assert_allclose(ours(x), theirs, rtol=3e-15, atol=3e-15)
    low = -np.abs(x[np.abs(x) < 60])
    np.testing.assert_allclose(arithmetic.exp(low), np.exp(low), rtol=3e-16)
    assert arithmetic.sigmoid(np.zeros(1)) == 0.5
    # A larger logit never has a smaller score.
    steps = np.arange(-(2**17), 2**17) * 2.0**-14
    assert (np.diff(arithmetic.sigmoid(steps)) >= 0).all()


def test_numbers_that_are_none_have_no_score_and_give_no_warning() -> None:
    genome = Genome(widths=(4,), activation="gelu")
    weights = unflatten(initial(genome, 3, 1, [0]), shapes(genome, 3, 1))
    model = Deployable(genome, {n: w.numpy() for n, w in weights.items()}, "soup", 1)
    x = rows(4, 3, 0, (1.0,))
    x[1, 0], x[2, 1] = np.nan, np.inf
    answer = model.answer(x)
    assert np.isnan(answer.score).tolist() == [False, True, True, False]
    assert answer.prediction[1:3].tolist() == [0, 0]


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_both_definitions_are_a_step_of_the_grid_apart_at_most(
    data: st.DataObject,
) -> None:
    genome = Genome(
        widths=(64, 64),
        activation=data.draw(st.sampled_from(ACTIVATIONS)),
        heads=data.draw(st.sampled_from([1, 4])),
    )
    theta = initial(genome, 100, 1, [data.draw(st.integers(0, 2**32 - 1))])
    weights = unflatten(theta, shapes(genome, 100, 1))
    arrays = {n: w.numpy() for n, w in weights.items()}
    x = np.random.default_rng(0).random((50, 100), np.float32)
    one, two = (
        Deployable(genome, arrays, "soup", 1, definition=d).answer(x).score
        for d in (BY_LIBRARY, EXACT)
    )
    assert np.abs(one - two).max() <= 3 * 2.0**-22


def test_threads_and_other_kernels_of_the_library_do_not_show(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from safescale_ammt.model.arithmetic import exact\n"
        "rng = np.random.default_rng(0)\n"
        "x, w = rng.normal(size=(300, 900)), rng.normal(size=(900, 70))\n"
        "import hashlib\n"
        "print(hashlib.sha256(exact(w)(x).tobytes()).hexdigest())\n"
    )
    kinds = (
        {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell"},
        {"OPENBLAS_NUM_THREADS": "4", "OPENBLAS_CORETYPE": "Prescott"},
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(ROOT), **kind},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for kind in kinds
    }
    assert len(said) == 1
