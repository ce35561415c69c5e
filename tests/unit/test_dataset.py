"""Datasets: what is written is read back, verified, and in one order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import preparing
import pyarrow.parquet as pq
import pytest
from preparing import run
from small_tables import GROUPS, config, loans, save, spell

from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.dataset import Dataset, Split
from safescale_ammt.data.schema import Schema
from safescale_ammt.data.splitting import row_hex
from safescale_ammt.errors import DataError, InputError, IntegrityError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    source = save(folder / "loans.csv", spell(loans()))
    run(config(source=source, **GROUPS), folder / "dataset", folder / "holdout")
    return folder


def test_a_dataset_has_five_splits_and_counts_of_six(prepared: Path) -> None:
    dataset = Dataset.load(prepared / "dataset")
    assert tuple(dataset.splits) == SPLITS
    assert set(dataset.counts.splits) == {*SPLITS, "sealed"}
    for name, split in dataset.splits.items():
        assert len(split) == dataset.counts.split(name).rows > 0


def test_a_split_has_typed_features_codes_and_row_hashes(prepared: Path) -> None:
    dataset = Dataset.load(prepared / "dataset")
    for split in dataset.splits.values():
        assert split.features.column_names == list(dataset.schema.names)
        assert [str(t) for t in split.features.schema.types] == [
            "double",
            "double",
            "string",
        ]
        assert split.label.dtype == np.int64
        assert split.rows.dtype == np.dtype("V16")
        assert set(split.groups) == {"gender", "origin", "north", "both"}
        for name, codes in split.groups.items():
            assert codes.max() < len(dataset.schema.groups[name])
            assert codes.min() >= 0


def test_the_files_have_the_columns_of_the_contract(prepared: Path) -> None:
    table = pq.read_table(prepared / "dataset" / "train.parquet")
    assert table.column_names == [
        *("age", "gain", "city", "_label", "_row"),
        *("_group:both", "_group:gender", "_group:north", "_group:origin"),
    ]
    assert str(table.schema.field("_row").type) == "fixed_size_binary[16]"
    assert str(table.schema.field("_label").type) == "int64"


def test_dataset_and_holdout_share_a_schema_and_no_row(prepared: Path) -> None:
    dataset, holdout = (
        Dataset.load(prepared / "dataset"),
        preparing.sealed(prepared / "holdout"),
    )
    assert holdout.schema == dataset.schema
    assert holdout.identity != dataset.identity
    seen = [set(row_hex(split.rows)) for split in dataset.splits.values()]
    seen.append(set(row_hex(holdout.split.rows)))
    assert len(set.union(*seen)) == sum(map(len, seen)) == 600


def test_a_holdout_has_the_sealed_split_its_keys_and_the_schema(prepared: Path) -> None:
    names = sorted(p.name for p in (prepared / "holdout").iterdir())
    assert names == ["manifest.json", "schema.json"]
    rows = sorted(p.name for p in preparing.rows_of(prepared / "holdout").iterdir())
    assert rows == ["keys.parquet", "parts.parquet", "sealed.parquet"]


def test_rows_are_taken_by_mask_and_by_index(prepared: Path) -> None:
    split = Dataset.load(prepared / "dataset").splits["train"]
    index = np.array([3, 1])
    part = split.take(index)
    assert part.features.equals(split.features.take([3, 1]))
    assert row_hex(part.rows) == [row_hex(split.rows)[i] for i in (3, 1)]
    mask = split.label == 1
    assert len(split.take(mask)) == mask.sum()


def test_a_changed_byte_is_refused(prepared: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "loans.csv", spell(loans()))
    run(config(source=source), tmp_path / "dataset", tmp_path / "holdout")
    for path, load in (
        (tmp_path / "dataset" / "select.parquet", Dataset.load),
        (preparing.rows_of(tmp_path / "holdout") / "sealed.parquet", preparing.sealed),
    ):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(IntegrityError, match="was changed"):
            load(tmp_path / ("dataset" if load == Dataset.load else "holdout"))


def test_a_holdout_is_no_dataset(prepared: Path) -> None:
    with pytest.raises(InputError, match="expected a dataset artifact"):
        Dataset.load(prepared / "holdout")


def test_a_file_of_another_schema_is_refused(prepared: Path) -> None:
    path = prepared / "dataset"
    raw = Schema.load(path).to_dict()
    raw["groups"]["gender"] = ["f"]
    with pytest.raises(DataError, match="group value that its schema does not know"):
        Split.read(path / "train.parquet", Schema.from_dict(raw))
    del raw["features"][0]
    with pytest.raises(DataError, match="its schema says gain"):
        Split.read(path / "train.parquet", Schema.from_dict(raw))
