"""Large splits: a drawn part of their rows, read in batches, with equal results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_world import DP, GENOME, TPR, brief, constitution, prepared

from safescale_ammt.data import dataset as stored
from safescale_ammt.data.dataset import Dataset, Split
from safescale_ammt.errors import DataError
from safescale_ammt.training import dual_update, encoded
from safescale_ammt.training.dual_update import DualUpdate, measured
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import merge
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import make_plan
from safescale_ammt.training.sampling import CellSampler
from safescale_ammt.training.thinning import Limits, Thinning
from safescale_ammt.training.trainer import learner_of, train
from safescale_ammt.training.training_log import discard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("loans"), sensitive_in_model=True)


def thinned(rows: int, most: int, strata: np.ndarray, cuts: list[int]) -> np.ndarray:
    """Returns the row numbers that stay when the rows come in such batches."""
    thinning, found, start = Thinning(rows, most), [], 0
    for part in np.split(strata, sorted({min(c, rows) for c in cuts})):
        found.append(start + thinning.kept(part))
        start += len(part)
    return np.concatenate(found)


@given(
    st.integers(1, 400),
    st.integers(1, 60),
    st.lists(st.integers(1, 399), max_size=5),
    st.integers(0, 9),
)
@settings(deadline=None)
def test_the_part_keeps_the_shares_of_strata_in_whatever_batches(
    rows: int, most: int, cuts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    strata = rng.choice(4, rows, p=[0.7, 0.2, 0.05, 0.05])
    kept = thinned(rows, most, strata, cuts)
    np.testing.assert_array_equal(kept, thinned(rows, most, strata, []))
    assert len(set(kept.tolist())) == len(kept)
    if rows <= most:
        assert len(kept) == rows
        return
    for stratum in range(4):
        expected = (strata == stratum).sum() * most / rows
        assert abs((strata[kept] == stratum).sum() - expected) < 1 + 1e-9


def test_every_row_is_as_likely_to_stay_as_any_other() -> None:
    # Of 40,000 strata of ten rows each one row in five stays.
    strata = np.repeat(np.arange(40_000), 10)
    kept = thinned(len(strata), len(strata) // 5, strata, [])
    share = np.bincount(kept % 10) / 40_000
    # Three standard errors, of ten places at once.
    np.testing.assert_allclose(share, 0.2, atol=3.5 * np.sqrt(0.2 * 0.8 / 40_000))


def test_a_stored_split_in_batches_is_the_split(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.load(folder)
    whole = dataset.splits["train"]
    monkeypatch.setattr(stored, "BATCH_ROWS", 100)
    batches = list(dataset.batches("train"))
    assert dataset.rows("train") == len(whole) == sum(map(len, batches))
    assert max(map(len, batches)) <= 100
    assert all(len(batch.rows) == 0 for batch in batches)
    label = np.concatenate([batch.label for batch in batches])
    np.testing.assert_array_equal(label, whole.label)
    for name, codes in whole.groups.items():
        found = np.concatenate([batch.groups[name] for batch in batches])
        np.testing.assert_array_equal(found, codes)
    whole_rows = EncodedDataset(Dataset.load(folder)).rows("train", "ple")
    rows = EncodedDataset(dataset).rows("train", "ple")
    everything = torch.arange(len(rows))
    assert torch.equal(rows.batch(everything), whole_rows.batch(everything))


def test_a_batch_with_another_schema_is_refused(folder: Path) -> None:
    dataset = Dataset.load(folder)
    groups = {**dataset.schema.groups, "planet": ("earth",)}
    other = dataclasses.replace(dataset.schema, groups=groups)
    with pytest.raises(DataError, match="its schema says"):
        list(Split.batches(folder / "train.parquet", other))


def test_training_on_a_part_is_training_and_bounded(folder: Path) -> None:
    data = Dataset.load(folder)
    small = EncodedDataset(data, Limits(200, 60))
    rows = small.joined(("train", "constraint"), "ple")
    assert 200 + 60 - 8 <= len(rows) <= 200 + 60 + 8
    promises = constitution(TPR, DP, min_n=5, min_pos=2)
    trained = train(GenomeNets(small, GENOME), brief(), promises, log=discard)
    assert trained.finite.all()
    merged = merge(trained, promises)
    again = merge(
        train(GenomeNets(small, GENOME), brief(), promises, log=discard), promises
    )
    assert merged.to_dict() == again.to_dict()
    # A limit that no split reaches changes nothing.
    wide = Limits(10_000, 10_000)
    plain = train(
        GenomeNets(EncodedDataset(data), GENOME), brief(), promises, log=discard
    )
    ample = train(
        GenomeNets(EncodedDataset(data, wide), GENOME), brief(), promises, log=discard
    )
    assert torch.equal(plain.agents, ample.agents)


def test_rows_of_entities_are_drawn_with_numbers_without_gaps(tmp_path: Path) -> None:
    path = prepared(tmp_path, rows=900, entity="id", drop=[])
    rows = EncodedDataset(Dataset.load(path), Limits(100, 30)).joined(
        ("train", "constraint"), "ple"
    )
    assert rows.entity is not None
    assert sorted(set(rows.entity.tolist())) == list(range(int(rows.entity.max()) + 1))
    make_plan(
        GenomeNets(EncodedDataset(Dataset.load(path), Limits(100, 30)), GENOME),
        brief(),
        constitution(TPR, min_n=5, min_pos=2),
    )


# --- what looks at all rows ---


def test_a_large_cell_is_measured_on_a_part_and_a_small_one_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside = torch.zeros(2, 1000, dtype=torch.bool)
    inside[0, :900], inside[1, ::100] = True, True
    folds = [torch.arange(0, 1000, 2), torch.arange(1, 1000, 2)]
    whole = measured(inside, folds, 1)
    assert [part.sum(1).tolist() for part, _ in whole] == [[450, 10], [450, 0]]
    monkeypatch.setattr(dual_update, "MEASURED", 400)
    for (part, rows), (same, numbers), fold in zip(
        measured(inside, folds, 1), measured(inside, folds, 1), folds, strict=True
    ):
        assert torch.equal(part, same)
        assert torch.equal(rows, numbers)
        assert part.sum(1).tolist() == [100, int(inside[1, fold].sum())]
        assert set(rows.tolist()) <= set(fold.tolist())
        assert not (part & ~inside[:, rows]).any()


def test_hits_in_blocks_are_the_hits_of_all_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nets = GenomeNets(EncodedDataset(Dataset.load(folder)), GENOME)
    plan = make_plan(nets, brief(), constitution(TPR, DP))
    learner = learner_of(nets, plan)
    learner.fork(plan.slots)
    dual = DualUpdate.start(plan, learner_of(nets, plan).averaged, Placement(4))
    whole = dual.hits(learner.averaged)
    monkeypatch.setattr(dual_update, "CHUNK_ROWS", 70)
    assert torch.equal(dual.hits(learner.averaged), whole)
    assert whole.sum() > 0


def test_answers_in_chunks_are_the_answers_of_all_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = EncodedDataset(Dataset.load(folder))
    promises = constitution(TPR)
    nets = GenomeNets(data, GENOME)
    model = merge(train(nets, brief(), promises, log=discard), promises)
    rows = data.rows("train", GENOME.encoding)
    whole = rows.answers(model.model)
    monkeypatch.setattr(encoded, "BLOCK", 32)
    monkeypatch.setattr(encoded, "CHUNK_ROWS", 96)
    assert [len(x) for x in rows.blocks()][:2] == [96, 96]
    np.testing.assert_array_equal(rows.answers(model.model).score, whole.score)


def test_a_drawn_part_keeps_its_order_and_is_the_same_twice() -> None:
    rows = EncodedRows(torch.arange(50.0)[:, None], torch.zeros(50).long(), {})
    part = rows.part(20, seed=3).batch(torch.arange(20))[:, 0].tolist()
    assert part == sorted(part) == rows.part(20, seed=3).x[:, 0].tolist()  # type: ignore[index]
    assert len(set(part)) == 20
    assert rows.part(50) is rows


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None)
def test_cells_rows_are_those_that_a_table_of_them_would_give(
    n: int, folds: int, cells: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    fold = torch.randint(0, folds, (n,), generator=generator)
    inside = torch.rand(cells, n, generator=generator) < 0.6
    views = [(fold != i).nonzero()[:, 0] for i in range(folds)] + [torch.arange(n)]
    sampler = CellSampler(inside, views, seed)
    drawn = sampler.draw().view(len(views), cells, -1)
    draws = torch.rand(
        len(views),
        cells,
        sampler.per_cell,
        generator=sampler.generator.manual_seed(seed),
    )
    for i, view in enumerate(views):
        for c in range(cells):
            rows = view[inside[c][view]]
            if len(rows):
                expected = rows[(draws[i, c] * len(rows)).long()]
                assert torch.equal(drawn[i, c], expected)
