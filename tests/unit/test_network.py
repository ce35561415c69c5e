"""Networks: stacked nets equal single ones, and answers depend on nothing else."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from training_world import GENOME, prepared, prepared_three_classes

from safescale_ammt.data.coding import encode, width
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import DataError, InputError
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.model.device import keep_freed_memory, settled
from safescale_ammt.model.fair_head import FairHead, Part
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.logits import BY_LIBRARY, EXACT, GRID
from safescale_ammt.model.network import (
    Dropout,
    flatten,
    forward,
    initial,
    predicted,
    probability,
    unflatten,
)
from safescale_ammt.model.predictor import BATCH, BLOCK, Deployable, Predictor

PLAIN = Genome(widths=(6, 5), dropout=0.0)
GENOMES = [
    PLAIN,
    Genome(widths=(), dropout=0.0),
    Genome(widths=(7, 7), residual=True, activation="tanh", dropout=0.0),
    Genome(widths=(6, 5), heads=3, activation="gelu", dropout=0.0),
    Genome(widths=(6, 6), heads=2, residual=True, activation="silu", dropout=0.0),
]


def stacked(genome: Genome, n_out: int = 1, k: int = 3) -> dict[str, torch.Tensor]:
    theta = initial(genome, 4, n_out, range(k))
    return unflatten(theta, shapes(genome, 4, n_out))


@pytest.mark.parametrize("genome", GENOMES)
@pytest.mark.parametrize("n_out", [1, 3])
def test_stacked_nets_answer_as_each_net_alone(genome: Genome, n_out: int) -> None:
    weights = stacked(genome, n_out)
    x = torch.randn(3, 10, 4)
    together = forward(genome, weights, x)
    assert together.shape == (3, genome.heads, 10, n_out)
    for i in range(3):
        alone = {name: w[i : i + 1] for name, w in weights.items()}
        torch.testing.assert_close(forward(genome, alone, x[i : i + 1])[0], together[i])


def test_a_plain_net_is_torch_s_multilayer_perceptron() -> None:
    weights = {name: w[0] for name, w in stacked(PLAIN, k=1).items()}
    layers: list[torch.nn.Module] = []
    for name in ("layer0", "layer1", "out"):
        matrix = weights[f"{name}.weight"].reshape(-1, weights[f"{name}.bias"].shape[1])
        linear = torch.nn.Linear(*matrix.shape)
        linear.weight.data, linear.bias.data = matrix.T, weights[f"{name}.bias"][0]
        layers += [linear, torch.nn.ReLU()]
    reference = torch.nn.Sequential(*layers[:-1])
    x = torch.randn(20, 4)
    ours = forward(PLAIN, {n: w[None] for n, w in weights.items()}, x[None])[0, 0]
    torch.testing.assert_close(ours, reference(x))


def test_each_head_is_a_rank_one_change_of_the_shared_matrix() -> None:
    genome = Genome(widths=(5,), heads=3, dropout=0.0)
    weights = stacked(genome, k=1)
    x = torch.randn(8, 4)
    found = forward(genome, weights, x[None])[0]
    for h in range(3):
        scale_in = weights["layer0.scale_in"][0, h]
        scale_out = weights["layer0.scale_out"][0, h]
        matrix = scale_in[:, None] * weights["layer0.weight"][0] * scale_out
        hidden = torch.relu(x @ matrix + weights["layer0.bias"][0, h])
        out = hidden @ weights["out.weight"][0, h] + weights["out.bias"][0, h]
        torch.testing.assert_close(found[h], out)
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("genome", GENOMES)
def test_flattening_and_cutting_are_inverse(genome: Genome) -> None:
    theta = initial(genome, 4, 2, [1, 2])
    assert theta.shape == (2, genome.parameters(4, 2))
    assert torch.equal(flatten(unflatten(theta, shapes(genome, 4, 2))), theta)


def test_a_net_s_first_weights_depend_on_its_own_seed_alone() -> None:
    both = initial(PLAIN, 4, 1, [5, 6])
    assert torch.equal(both[1], initial(PLAIN, 4, 1, [6])[0])
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("probability_", [0.0, 0.1, 0.5])
def test_dropout_keeps_the_expectation(probability_: float) -> None:
    dropped = Dropout(probability_, 3)(torch.ones(1000, 1001))
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert (dropped == 0).float().mean().item() == pytest.approx(
        round(probability_ * 256) / 256, abs=0.01
    )


def test_classes_and_probabilities_agree() -> None:
    one = torch.tensor([[-1.0], [0.0], [2.0]])
    assert predicted(one).tolist() == [0, 1, 1]
    total = probability(one, 1) + probability(one, 0)
    torch.testing.assert_close(total, torch.ones(3))
    many = torch.tensor([[0.0, 2.0, 1.0]])
    assert predicted(many).tolist() == [1]
    assert sum(float(probability(many, c)) for c in range(3)) == pytest.approx(1)


# --- the predictor ---


def deployable(genome: Genome = PLAIN, k: int = 2, n_out: int = 1) -> Deployable:
    return Deployable(genome, stacked(genome, n_out, k), "ensemble", 1)


ROWS = np.random.default_rng(0).normal(size=(2 * BLOCK + 100, 4)).astype(np.float32)


@pytest.mark.parametrize("definition", [BY_LIBRARY, EXACT])
@pytest.mark.parametrize("genome", GENOMES)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_row_s_score_is_the_same_bits_whatever_is_beside_it(
    genome: Genome, definition: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(1)
    part = (rng.normal(size=size).astype(np.float32) for size in ((4, 3), 3, 3))
    head = FairHead((Part(None, *part),))
    model = replace(deployable(genome), definition=definition, head=head)
    whole = model.answer(ROWS)
    size = data.draw(st.integers(1, len(ROWS)))
    seed = data.draw(st.integers(0, 2**32 - 1))
    chosen = np.random.default_rng(seed).permutation(len(ROWS))[:size]
    part = model.answer(ROWS[chosen])
    assert part.score.tobytes() == whole.score[chosen].tobytes()
    assert np.array_equal(part.prediction, whole.prediction[chosen])


def test_members_are_averaged_by_their_logits() -> None:
    model = deployable(k=2)
    x = torch.tensor(ROWS[:5], dtype=torch.float64)
    weights = {name: w.double() for name, w in model.weights.items()}
    expected = torch.sigmoid(forward(PLAIN, weights, x[None]).mean((0, 1))[:, 0])
    np.testing.assert_allclose(model.answer(ROWS[:5]).score, expected, atol=1e-6)


def test_no_rows_get_no_answers() -> None:
    answer = deployable().answer(ROWS[:0])
    assert answer.score.shape == answer.prediction.shape == (0,)


def test_with_several_classes_the_score_is_the_declared_class_s() -> None:
    model = deployable(n_out=3)
    declared = model.answer(ROWS[:50])
    free = Deployable(PLAIN, model.weights, "ensemble", None).answer(ROWS[:50])
    assert np.array_equal(declared.prediction, free.prediction)
    same = declared.prediction == 1
    assert np.array_equal(declared.score[same], free.score[same])
    assert (declared.score[~same] < free.score[~same]).all()
    assert (free.score >= 1 / 3).all()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset.load(prepared(tmp_path_factory.mktemp("loans"), rows=400))


def for_dataset(dataset: Dataset, head: FairHead | None = None) -> Deployable:
    d_in = width(dataset.schema, "ple")
    theta = initial(GENOME, d_in, 1, [1, 2])
    return Deployable(
        GENOME, unflatten(theta, shapes(GENOME, d_in, 1)), "ensemble", 1, head
    )


def test_a_saved_model_answers_raw_rows_with_the_same_bits(
    dataset: Dataset, tmp_path: Path
) -> None:
    d_in = width(dataset.schema, "ple")
    sizes = ((d_in, 2), 2, 2)
    part = Part(True, *(torch.randn(size).numpy() for size in sizes))
    model = for_dataset(dataset, FairHead((part,)))
    model.save(tmp_path, dataset.schema)
    table = dataset.splits["select"].features
    again = Predictor.load(tmp_path).predict_table(table)
    direct = model.answer(encode(dataset.schema, table, "ple"))
    assert again.score.tobytes() == direct.score.tobytes()
    shifted = table.slice(7)
    part_again = Predictor.load(tmp_path).predict_table(shifted)
    assert part_again.score.tobytes() == direct.score[7:].tobytes()


def test_a_model_is_asked_by_the_definition_that_it_was_saved_with(
    dataset: Dataset, tmp_path: Path
) -> None:
    d_in = width(dataset.schema, "ple")
    sizes = ((d_in, 2), 2, 2)
    head = FairHead((Part(None, *(torch.randn(size).numpy() for size in sizes)),))
    new = for_dataset(dataset, head)
    old = replace(new, definition=BY_LIBRARY)
    table = dataset.splits["select"].features
    for name, model in (("new", new), ("old", old)):
        model.save(tmp_path / name, dataset.schema)
        answer = Predictor.load(tmp_path / name).predict_table(table)
        x = encode(dataset.schema, table, "ple")
        assert answer.score.tobytes() == model.answer(x).score.tobytes()
    # The form that was written before there was a second definition.
    assert read_json(tmp_path / "old/decision.json")["schema"] == 1
    assert read_json(tmp_path / "new/decision.json")["schema"] == 2
    # What torch gave then, by the network that training computes.
    weights = {n: torch.as_tensor(w).double() for n, w in old.weights.items()}
    x = torch.tensor(encode(dataset.schema, table, "ple"), dtype=torch.float64)
    logits = forward(GENOME, weights, x[None]).mean((0, 1))[:, 0]
    eta = torch.sigmoid(torch.round(logits * GRID) / GRID)
    part = head.parts[0]
    weight, bias, shift = (
        torch.tensor(t).double() for t in (part.weight, part.bias, part.shift)
    )
    pull = torch.softmax(torch.addmm(bias, x, weight), 1) @ shift
    then = (eta - pull / 2).clamp(0, 1).numpy()
    found = Predictor.load(tmp_path / "old").predict_table(table).score
    np.testing.assert_allclose(found, then, atol=1e-14)


def test_rows_beyond_a_batch_are_answered_as_the_first_ones_are(
    dataset: Dataset, tmp_path: Path
) -> None:
    for_dataset(dataset).save(tmp_path, dataset.schema)
    model, few = Predictor.load(tmp_path), dataset.splits["train"].features
    times = BATCH // few.num_rows + 2
    many = model.predict_table(pa.concat_tables([few] * times))
    for found, own in zip(many, model.predict_table(few), strict=True):
        assert found.tobytes() == np.tile(own, times).tobytes()
    none = model.predict_table(few.slice(0, 0))
    assert none.score.shape == none.prediction.shape == (0,)


def test_saving_twice_gives_the_same_readable_bytes(
    dataset: Dataset, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        for_dataset(dataset).save(tmp_path / name, dataset.schema)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
        assert os.access(file, os.R_OK)
        assert file.stat().st_mode & 0o044 == 0o044


def test_rows_without_a_needed_column_are_refused(
    dataset: Dataset, tmp_path: Path
) -> None:
    for_dataset(dataset).save(tmp_path, dataset.schema)
    with pytest.raises(DataError, match="no column 'age'"):
        Predictor.load(tmp_path).predict_table(pa.table({"x": [1.0]}))


DECISION = {
    "schema": 1,
    "form": "ensemble",
    "members": 2,
    "threshold": 0.5,
    "head": None,
}


HALF = save({"out.bias": torch.zeros(1, dtype=torch.bfloat16)})
"""Numbers that numpy does not know."""


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("weights.safetensors", None, "does not exist"),
        ("weights.safetensors", b"nothing", "is not a safetensors file"),
        ("weights.safetensors", HALF, "is not a safetensors file"),
        ("decision.json", {"schema": 1}, "is not a decision rule"),
        ("decision.json", {**DECISION, "schema": 3}, "is not a decision rule of schem"),
        ("decision.json", {**DECISION, "threshold": 1.5}, "has threshold 1.5"),
        ("decision.json", {**DECISION, "threshold": None}, "has threshold None"),
        ("genome.json", Genome(widths=(9,)).to_dict(), "do not fit its genome"),
        ("genome.json", Genome(widths=(8, 8)).to_dict(), "has shape None"),
    ],
)
def test_a_damaged_model_is_one_sentence(
    dataset: Dataset, tmp_path: Path, file: str, content: Any, said: str
) -> None:
    for_dataset(dataset).save(tmp_path, dataset.schema)
    if content is None:
        (tmp_path / file).unlink()
    elif isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    else:
        write_json(tmp_path / file, content)
    with pytest.raises(InputError, match=said):
        Predictor.load(tmp_path)


def test_numbers_that_a_library_has_taught_numpy_are_refused_as_before(
    dataset: Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("ml_dtypes")
    for_dataset(dataset).save(tmp_path, dataset.schema)
    (tmp_path / "weights.safetensors").write_bytes(HALF)
    with pytest.raises(InputError, match="is not a safetensors file"):
        Predictor.load(tmp_path)


def test_three_classes_are_predicted_from_raw_rows(tmp_path: Path) -> None:
    data = Dataset.load(prepared_three_classes(tmp_path, rows=300, positive=""))
    d_in = width(data.schema, "ple")
    theta = initial(GENOME, d_in, 3, [1])
    weights = unflatten(theta, shapes(GENOME, d_in, 3))
    Deployable(GENOME, weights, "soup", None).save(tmp_path / "m", data.schema)
    answer = Predictor.load(tmp_path / "m").predict_table(data.splits["train"].features)
    assert set(answer.prediction) <= {0, 1, 2}


def test_settings_of_torch_are_restored() -> None:
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    with settled(before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.get_deterministic_debug_mode()) == before
    keep_freed_memory()
