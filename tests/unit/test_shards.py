"""Shards: rows of a dataset in several files, inside of it or in the store of data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from preparing import environ_of, lay_apart, run, store_of
from small_tables import config, loans, save, spell

from pipelines.cli import run_command
from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.dataset import BATCH_ROWS, Dataset, Split
from safescale_ammt.data.local_table import Held
from safescale_ammt.errors import (
    DataError,
    InputError,
    IntegrityError,
)
from safescale_ammt.files.artifacts import (
    MANIFEST,
    FileEntry,
    Manifest,
    read_manifest,
    verify,
)
from safescale_ammt.files.canonical import write_json
from safescale_ammt.files.parquet import ROW_GROUP
from safescale_ammt.files.shards import (
    DATASETS,
    MOST_SHARDS,
    SHARD_ROWS,
    is_shard,
    shard_name,
    shards_of,
)
from safescale_ammt.store.shards import Shards, check_shards, put_shard
from safescale_ammt.store.uri import STORE
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.kept_rows import compacted, in_batches, kept_rows
from safescale_ammt.training.thinning import TRAINING, Limits

SMALL = Held(shard_rows=50)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table prepared as one file a split, as shards, and as shards that lie apart."""
    folder = tmp_path_factory.mktemp("shards")
    source = save(folder / "raw.csv", spell(loans(600, 0)))
    for name, held in {"one": Held(), "many": SMALL}.items():
        section = config(source=source)
        (folder / name).mkdir()
        run(section, folder / name / "dataset", folder / name / "holdout", held)
    (folder / "apart").mkdir()
    lay_apart(folder / "many" / "dataset", folder / "apart" / "dataset")
    return folder


def opened(world: Path, name: str, beside: Path | None = None) -> Dataset:
    """Loads one of the three datasets."""
    path = world / name / "dataset"
    return Dataset.load(path, environ_of(path) if name == "apart" else {}, beside)


@pytest.fixture
def apart(world: Path, tmp_path: Path) -> Path:
    """The same dataset with its rows apart, in a store that a test may spoil."""
    lay_apart(world / "many" / "dataset", tmp_path / "dataset")
    return tmp_path / "dataset"


def place(dataset: Path, name: str) -> Path:
    """Returns the file of the store with a shard's bytes."""
    return dataset.parent / "store" / read_manifest(dataset).place(name)


def rows_of(dataset: Path, split: str = "train") -> int:
    """Reads a split from the store beside a dataset, and returns its rows."""
    loaded = Dataset.load(dataset, environ_of(dataset), dataset.parent / "out" / "x")
    return sum(map(len, loaded.batches(split)))


# --- the rule ---


def test_a_shard_is_whole_row_groups_and_batches() -> None:
    assert SHARD_ROWS % ROW_GROUP == 0
    assert ROW_GROUP % BATCH_ROWS == 0
    with pytest.raises(ValueError, match="no multiple"):
        Held(shard_rows=ROW_GROUP + 1)


def test_shards_are_named_in_the_order_of_their_rows() -> None:
    names = [shard_name("train", i) for i in (0, 1, 9, 10, 99_999)]
    assert names == sorted(names, key=lambda name: (len(name) > 13, name))
    assert names[:2] == ["train.parquet", "train-00001.parquet"]
    with pytest.raises(DataError, match="more than 100,000 shards"):
        shard_name("train", MOST_SHARDS)
    among = [shard_name("train", i) for i in (0, 1, 2, 4)]
    assert shards_of("train", among) == among[:3]


def test_only_files_of_development_splits_are_shards() -> None:
    assert all(is_shard(shard_name(split, i)) for split in SPLITS for i in (0, 7))
    for name in (
        "sealed.parquet",
        "train-00000.parquet",
        "train-0001.parquet",
        "train-00001.parquet\n",
        "x/train.parquet",
        "schema.json",
    ):
        assert not is_shard(name)


def test_a_small_split_is_one_file_and_a_large_one_shards(world: Path) -> None:
    one, many = (read_manifest(world / name / "dataset") for name in ("one", "many"))
    parquet = [name for name in one.files if name.endswith(".parquet")]
    assert sorted(parquet) == sorted(f"{split}.parquet" for split in SPLITS)
    names = shards_of("train", many.files)
    rows = [
        pq.read_metadata(world / "many" / "dataset" / name).num_rows for name in names
    ]
    assert len(rows) > 3
    assert set(rows[:-1]) == {50}
    assert sum(rows) == opened(world, "one").rows("train")


def test_shards_hold_the_rows_of_one_file_in_their_order(world: Path) -> None:
    one, many, apart = (opened(world, name) for name in ("one", "many", "apart"))
    for split in SPLITS:
        whole = one.splits[split]
        for other in (many.splits[split], apart.splits[split]):
            assert other.rows.tobytes() == whole.rows.tobytes()
            assert other.features.equals(whole.features)
    assert one.counts == many.counts
    assert one.class_shares() == many.class_shares() == apart.class_shares()


# --- apart ---


def test_a_dataset_is_the_same_wherever_its_rows_lie(world: Path) -> None:
    inside = verify(world / "many" / "dataset", "dataset")
    apart = verify(world / "apart" / "dataset", "dataset")
    assert apart.identity == inside.identity
    assert not [*(world / "apart" / "dataset").glob("*.parquet")]
    for name in filter(is_shard, inside.files):
        hexdigits = inside.files[name].sha256.removeprefix("sha256:")
        assert apart.place(name) == f"{DATASETS}{hexdigits}"
    check_shards(store_of(world / "apart" / "dataset"), apart)


def test_a_shard_is_written_once_and_again_if_its_bytes_are_others(
    world: Path, tmp_path: Path
) -> None:
    shard, store = world / "many" / "dataset" / "train.parquet", store_of(tmp_path)
    entry = put_shard(store, shard)
    assert entry == FileEntry(entry.sha256, shard.stat().st_size, apart=True)
    [info] = store.list(DATASETS)
    assert put_shard(store, shard) == entry
    assert store.stat(info.key) == info
    store.put(info.key, b"x" * entry.size)
    put_shard(store, shard)
    assert store.digest(info.key) == entry.sha256


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("schema.json", "{own}"),
        ("train.parquet", "datasets/" + "0" * 64),
        ("train.parquet", "sealed/dataset/{own}"),
        ("train.parquet", "datasets/../{own}"),
    ],
)
def test_a_manifest_with_another_place_is_refused(
    apart: Path, name: str, place: str
) -> None:
    raw = json.loads((apart / MANIFEST).read_text())
    own = "datasets/" + raw["files"][name]["sha256"].removeprefix("sha256:")
    raw["files"][name]["place"] = place.format(own=own)
    write_json(apart / MANIFEST, raw)
    with pytest.raises((InputError, IntegrityError), match=r"manifest"):
        read_manifest(apart)


def test_no_other_artifact_has_shards_apart() -> None:
    entry = {"sha256": "sha256:" + "0" * 64, "size": 1, "identity": True}
    stated: dict[str, Any] = {
        "kind": "model",
        "stage": "x",
        "files": {"train.parquet": {**entry, "place": "datasets/" + "0" * 64}},
        "parents": {},
        "config_digest": "",
        "code_version": "",
    }
    with pytest.raises(TypeError, match="apart"):
        Manifest.from_dict(stated)
    assert Manifest.from_dict({**stated, "kind": "dataset"}).files


# --- reading ---


@pytest.mark.parametrize("limits", [TRAINING, Limits(60, 20)])
def test_rows_are_encoded_alike_wherever_they_lie(world: Path, limits: Limits) -> None:
    sets = [EncodedDataset(opened(world, name), limits) for name in ("one", "apart")]
    for splits in (("train", "constraint"), ("select",)):
        for encoding in ("ple", "standard"):
            rows = [each.joined(splits, encoding) for each in sets]
            everything = torch.arange(len(rows[0]))
            assert torch.equal(*(each.batch(everything) for each in rows))
            assert torch.equal(rows[0].y, rows[1].y)
            for name, codes in rows[0].groups.items():
                assert torch.equal(codes, rows[1].groups[name])


def test_a_shard_is_fetched_once_for_all_that_training_asks(apart: Path) -> None:
    encoded = EncodedDataset(Dataset.load(apart, environ_of(apart)), Limits(60, 20))
    first = encoded.joined(("train", "constraint"), "ple")
    for name in filter(is_shard, read_manifest(apart).files):
        if name.startswith(("train", "constraint")):
            place(apart, name).unlink()
    again = [encoded.rows(split, "standard") for split in ("train", "constraint")]
    assert sum(map(len, again)) == len(first)
    with pytest.raises(InputError, match="is not there"):
        Dataset.load(apart, environ_of(apart)).splits["train"]


def test_a_fetched_shard_has_no_name_and_goes(apart: Path) -> None:
    out = apart.parent / "out"
    shards = Shards(apart, read_manifest(apart), environ_of(apart), out / "model")
    for file in shards.of("train"):
        with file.open() as source:
            assert pq.read_metadata(source).num_rows
            # A process that is killed here leaves nothing.
            assert not [*out.iterdir()]
    assert rows_of(apart) == rows_of(apart)
    assert not [*out.iterdir()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_one_shard_at_a_time_is_on_disk(apart: Path) -> None:
    out, most = apart.parent / "out", 0
    data = Dataset.load(apart, environ_of(apart), out / "model")
    for _ in data.batches("train"):
        held = 0
        for file in [*Path("/proc/self/fd").iterdir()]:
            with suppress(FileNotFoundError):  # that of this listing
                held += str(out) in str(file.readlink())
        most = max(most, held)
    assert most == 1


def test_what_was_drawn_is_kept_in_few_batches_with_few_texts(world: Path) -> None:
    """However many rows and texts a batch had of which they were drawn."""
    data = opened(world, "many")
    texts = [
        i
        for i, column in enumerate(data.splits["train"].features.columns)
        if pa.types.is_string(column.type)
    ]
    parts = [part.take(np.arange(0, len(part), 25)) for part in data.batches("train")]
    [batch] = in_batches(parts)
    assert len(batch) == sum(map(len, parts)) < len(parts) * 3
    for i in texts:
        whole = pa.chunked_array([c for p in parts for c in p.features[i].chunks])
        assert batch.features[i].to_pylist() == whole.to_pylist()
        kept = compacted(parts[0]).features[i].chunk(0).dictionary
        assert sorted(kept.to_pylist()) == sorted(
            set(parts[0].features[i].drop_null().to_pylist())
        )
    kept = kept_rows(in_batches(parts), data.schema)
    read = list(Split.batches(kept, data.schema))
    assert np.concatenate([each.label for each in read]).tolist() == (
        batch.label.tolist()
    )
    assert pa.concat_tables([each.features for each in read]).to_pylist() == (
        batch.features.to_pylist()
    )


def test_verify_reads_what_lies_apart(
    apart: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["verify", str(apart), "--store", environ_of(apart)[STORE]]
    assert run_command(ask) == 0
    tampered(place(apart, "train-00001.parquet"), apart)
    assert run_command(ask) != 0
    assert "was changed" in capsys.readouterr().err


def test_a_dataset_with_its_rows_inside_needs_no_store(world: Path) -> None:
    data = Dataset.load(world / "many" / "dataset", {STORE: "nonsense"})
    assert len(data.splits["train"]) == data.rows("train")


def test_rows_apart_without_a_store_are_one_sentence(apart: Path) -> None:
    data = Dataset.load(apart, {})
    sentence = "has its rows apart.*SAFESCALE_DATASETS_STORE nor SAFESCALE_STORE"
    with pytest.raises(InputError, match=sentence):
        next(data.batches("train"))


def test_a_store_of_datasets_alone_is_read_before_the_other(apart: Path) -> None:
    other = (apart.parent / "other").as_uri()
    own = {"SAFESCALE_DATASETS_STORE": environ_of(apart)[STORE], STORE: other}
    assert len(Dataset.load(apart, own).splits["train"])
    with pytest.raises(InputError, match=r"is not there.*or this is another store"):
        Dataset.load(apart, {STORE: other}).splits["train"]


def removed(file: Path, _: Path) -> None:
    """Takes a shard away."""
    file.unlink()


def truncated(file: Path, _: Path) -> None:
    """Cuts a shard short."""
    file.write_bytes(file.read_bytes()[:-1])


def tampered(file: Path, _: Path) -> None:
    """Changes one byte."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def swapped(file: Path, other: Path) -> None:
    """Puts another whole shard there."""
    file.write_bytes(other.read_bytes())


@pytest.mark.parametrize(
    ("spoil", "error", "sentence"),
    [
        (removed, InputError, "is not there.*prepare the data anew"),
        (truncated, IntegrityError, "was changed.*bytes, found [0-9,]+ bytes"),
        (tampered, IntegrityError, "was changed.*found sha256:.*prepare the data anew"),
        (swapped, IntegrityError, "was changed"),
    ],
)
def test_a_spoiled_shard_is_one_sentence_and_no_row_of_it_is_read(
    apart: Path,
    spoil: Callable[[Path, Path], None],
    error: type[Exception],
    sentence: str,
) -> None:
    spoil(place(apart, "train-00002.parquet"), place(apart, "train.parquet"))
    data = Dataset.load(apart, environ_of(apart), apart.parent / "out" / "x")
    read: list[Split] = []
    with pytest.raises(error, match=sentence):
        read.extend(data.batches("train"))
    assert sum(map(len, read)) == 100
    assert not [*(apart.parent / "out").iterdir()]
    with pytest.raises(error, match=sentence):
        check_shards(store_of(apart), read_manifest(apart))
    assert len(data.splits["select"])


@pytest.mark.parametrize("split", ["train", "select"])
def test_a_dataset_that_lost_its_last_shard_is_no_smaller_dataset(
    world: Path, tmp_path: Path, split: str
) -> None:
    lay_apart(world / "many" / "dataset", tmp_path / "dataset")
    manifest = read_manifest(tmp_path / "dataset")
    last = shards_of(split, manifest.files)[-1]
    files = {name: entry for name, entry in manifest.files.items() if name != last}
    short = Manifest(**{**vars(manifest), "files": files})
    write_json(tmp_path / "dataset" / MANIFEST, short.to_dict())
    with pytest.raises(DataError, match=r"counts.json of its dataset says"):
        rows_of(tmp_path / "dataset", split)


def test_labels_without_a_group_are_counted_from_the_rows(world: Path) -> None:
    data = opened(world, "apart")
    plain = Dataset(
        data.schema,
        data.splits,
        type(data.counts)(
            data.counts.classes,
            data.counts.positive,
            {n: type(s)(s.rows, {}) for n, s in data.counts.splits.items()},
        ),
        data.identity,
    )
    assert plain.class_shares() == data.class_shares()
    label = data.splits["train"].label
    np.testing.assert_allclose(data.class_shares()[1], label.mean())
