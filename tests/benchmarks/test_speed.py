"""How fast the inner pieces are: `pytest tests/benchmarks --benchmark-only`.

No figure is asserted: speed depends on the machine. Each benchmark checks that the
timed work gave a result.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from safescale_ammt.binomial.two_rates import difference_upper
from safescale_ammt.data.coding import encode
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.files.artifacts import verify, writing
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    from training_world import prepared

    return Dataset.load(prepared(tmp_path_factory.mktemp("data"), rows=6000))


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_store((tmp_path / "store").as_uri())


def test_encoding_of_a_table(benchmark, dataset: Dataset) -> None:
    train = dataset.splits["train"]
    encoded = benchmark(encode, dataset.schema, train.features)
    assert len(encoded) == len(train)


@pytest.mark.parametrize("form", ["codes", "floats"])
def test_drawing_of_a_batch(benchmark, dataset: Dataset, form: str) -> None:
    rows = EncodedDataset(dataset).rows("train", "ple")
    if form == "floats":
        everything = rows.batch(torch.arange(len(rows)))
        rows = EncodedRows(everything, rows.y, rows.groups)
    index = torch.randint(len(rows), (9, 512))
    assert benchmark(rows.batch, index).shape == (9, 512, rows.width)


def test_a_bound_at_the_counts_of_adult(benchmark) -> None:
    # 590 women and 3,256 men above the line: the exact test.
    bound = benchmark.pedantic(
        difference_upper, args=(360, 590, 2000, 3256, 0.05), rounds=3
    )
    assert -0.1 < bound < 0.1


def test_an_artifact_is_written_and_verified(benchmark, tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(16 * MEGABYTE)

    def write_and_verify() -> str:
        with writing(tmp_path / "a", kind="dataset", stage="prepare_data") as draft:
            (draft.folder / "x.bin").write_bytes(data)
        return verify(tmp_path / "a").identity

    assert benchmark(write_and_verify).startswith("sha256:")


def test_a_store_takes_and_gives_back(benchmark, folder_store: Store) -> None:
    data = np.random.default_rng(0).bytes(16 * MEGABYTE)

    def there_and_back() -> bytes:
        folder_store.put("x", data)
        return folder_store.get("x")

    assert benchmark(there_and_back) == data
