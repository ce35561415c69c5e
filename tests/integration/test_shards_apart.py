"""Shards over a store that refuses, falters or breaks off."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from children import Child
from patience import PATIENCE, eventually
from sick_store import KEYS, SickStore, sick_store

from safescale_ammt.errors import StorageError, StoreInputError
from safescale_ammt.files.artifacts import Manifest, read_manifest, writing
from safescale_ammt.store.shards import Shards, check_shards, put_shard
from safescale_ammt.store.uri import STORE

ROWS = b"PAR1 many rows PAR1" * 1000


@pytest.fixture
def sick() -> Iterator[SickStore]:
    """A store that is well until its script says otherwise."""
    with sick_store() as server:
        yield server


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """The file of a split, before it is in a store."""
    file = tmp_path / "train.parquet"
    file.write_bytes(ROWS)
    return file


@pytest.fixture
def manifest(sick: SickStore, shard: Path, tmp_path: Path) -> Manifest:
    """A dataset of that one shard, which lies apart."""
    with writing(tmp_path / "dataset", kind="dataset", stage="test") as draft:
        draft.apart[shard.name] = put_shard(sick.store(), shard)
    return read_manifest(tmp_path / "dataset")


def read(sick: SickStore, manifest: Manifest, folder: Path) -> bytes:
    """Reads the shard as a stage does, beside what it would write."""
    environ = {**KEYS, STORE: "s3://bucket", "AWS_ENDPOINT_URL": sick.endpoint}
    shards = Shards(folder / "dataset", manifest, environ, folder / "out" / "model")
    [file] = shards.of("train")
    with file.open() as source:
        return source.read()


def test_a_key_that_does_not_open_datasets_is_one_sentence(
    sick: SickStore, shard: Path, manifest: Manifest, tmp_path: Path
) -> None:
    """Whoever reads and whoever writes."""
    assert read(sick, manifest, tmp_path) == ROWS
    sick.script = ["403"]
    with pytest.raises(
        StoreInputError, match=r"SAFESCALE_STORE, has to read\."
    ) as reads:
        read(sick, manifest, tmp_path)
    sick.objects.clear()
    sick.script = ["404", "403"]
    with pytest.raises(StoreInputError, match="who prepares data has to") as writes:
        put_shard(sick.store(), shard)
    for error in (reads, writes):
        sentence = str(error.value)
        assert "the credentials do not permit this action" in sentence
        assert "datasets/" in sentence
        assert "\n" not in sentence
        assert error.value.exit_code == 2
    assert not [*(tmp_path / "out").iterdir()]


@pytest.mark.parametrize("script", [["503"], ["500", "503"], ["well", "half"]])
def test_a_store_that_falters_is_tried_again(
    sick: SickStore, manifest: Manifest, script: list[str]
) -> None:
    sick.script = script
    check_shards(sick.store(), manifest)
    assert sick.script == []


def test_a_store_that_breaks_off_gives_no_row(
    sick: SickStore, manifest: Manifest
) -> None:
    sick.script = ["well", *["half"] * 9]
    with pytest.raises(StorageError):
        check_shards(sick.store(), manifest)


FETCH = """
import sys
from pathlib import Path
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.store.shards import Shards

folder = Path(sys.argv[1])
environ = dict(pair.split("=", 1) for pair in sys.argv[2:])
manifest = read_manifest(folder / "dataset")
[file] = Shards(folder, manifest, environ, folder / "out" / "model").of("train")
with file.open():
    pass
"""


def test_a_process_that_is_killed_while_it_fetches_leaves_nothing(
    sick: SickStore, manifest: Manifest, tmp_path: Path
) -> None:
    assert manifest.files
    sick.script, before = ["well", "stall"], len(sick.seen)
    environ = {**KEYS, STORE: "s3://bucket", "AWS_ENDPOINT_URL": sick.endpoint}
    pairs = [f"{name}={value}" for name, value in environ.items()]
    with Child([sys.executable, "-c", FETCH, str(tmp_path), *pairs]) as process:
        eventually(lambda: len(sick.seen) == before + 2)
        process.kill()
        process.wait(PATIENCE)
    sick.well.set()
    assert not [*(tmp_path / "out").iterdir()]
