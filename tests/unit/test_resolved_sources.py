"""Where the rows lie: what a name in a workload becomes, here and on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from pipelines.sources import (
    default_parameters,
    default_store,
    resolve_for_cluster,
    resolve_locally,
)
from pipelines.workload import Workload
from safescale_ammt.errors import (
    ConfigError,
    DataError,
    IntegrityError,
    StoreInputError,
)
from safescale_ammt.files.canonical import digest_bytes, digest_json
from safescale_ammt.reading.catalogue import CATALOGUE, BuiltinDataset, Member
from safescale_ammt.reading.sources import content_digest
from safescale_ammt.store.folder import FileStore

ADULT = Path(__file__).parents[2] / "pipelines" / "adult.yaml"
STORE = "s3://team"
DIGEST = "sha256:" + "0" * 64


@pytest.fixture(autouse=True)
def _without_keys(monkeypatch):
    for name in ("SAFESCALE_STORE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)


def workload(**data: str) -> Workload:
    """Returns Adult's workload with other values in its data section."""
    return Workload.load(ADULT).replace("data", **data)


def test_a_built_in_data_set_has_its_digest_without_a_look_at_its_bytes():
    data = resolve_for_cluster(workload(), STORE).data
    assert data.source == "s3://team/data/adult/adult.data"
    assert data.sealed_source == "s3://team/data/adult/adult.test"
    members = CATALOGUE["adult"].members
    parts = {
        "source": {"": members["source"].sha256},
        "sealed": {"": members["sealed_source"].sha256},
    }
    assert data.source_digest == digest_json(parts)


class Reading(FileStore):
    """A folder that keeps which keys were opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.opened: list[str] = []

    def open(self, key: str) -> BinaryIO:
        self.opened.append(key)
        return super().open(key)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A built-in data set of two short files, which lie in a cache already."""
    texts = {"source": b"a,b\n1,2\n", "sealed_source": b"a,b\n3,4\n"}
    members = {
        r: Member(f"x/{r}.csv", digest_bytes(t), len(t)) for r, t in texts.items()
    }
    builtin = BuiltinDataset("none==1", *members.values(), data={})
    monkeypatch.setitem(CATALOGUE, "small", builtin)
    (tmp_path / "cache" / "small").mkdir(parents=True)
    for role, text in texts.items():
        (tmp_path / "cache" / "small" / f"{role}.csv").write_bytes(text)
    return workload(source="small", sealed_source="small")


def test_stored_bytes_of_a_built_in_data_set_are_read_once_for_check_and_digest(
    small, tmp_path
):
    store = Reading(tmp_path / "store")
    for _ in range(2):
        store.opened.clear()
        data = resolve_locally(small, store, tmp_path, tmp_path / "cache").data
        assert data.source_digest == content_digest(data.source, data.sealed_source)
        assert len(store.opened) == len({*store.opened})
    assert len(store.opened) == 2


def test_stored_bytes_that_were_changed_are_brought_again(small, tmp_path):
    store = Reading(tmp_path / "store")
    data = resolve_locally(small, store, tmp_path, tmp_path / "cache").data
    store.put("data/small/source.csv", b"a,b\n9,9\n")
    again = resolve_locally(small, store, tmp_path, tmp_path / "cache").data
    assert store.get("data/small/source.csv") == b"a,b\n1,2\n"
    assert again.source_digest == data.source_digest
    assert again.source_digest == content_digest(data.source, data.sealed_source)


def test_a_built_in_data_set_that_a_cache_has_changed_is_refused(small, tmp_path):
    (tmp_path / "cache" / "small" / "source.csv").write_bytes(b"a,b\n9,9\n")
    for store in (FileStore(tmp_path / "store"), None):
        with pytest.raises(IntegrityError, match="is not the file of the catalogue"):
            resolve_locally(small, store, tmp_path, tmp_path / "cache")


def test_a_digest_that_was_given_stays_and_a_window_of_a_file_is_refused(
    small, tmp_path
):
    given = small.replace("data", source_digest=DIGEST)
    kept = resolve_locally(given, None, tmp_path, tmp_path / "cache").data
    assert kept.source_digest == DIGEST
    dated = small.replace("data", window="7d")
    with pytest.raises(DataError, match="is one file"):
        resolve_locally(dated, None, tmp_path, tmp_path / "cache")


def test_rows_beside_a_built_in_data_set_are_digested_not_taken_for_its_own():
    mixed = workload(sealed_source="s3://team/later.csv")
    with pytest.raises(StoreInputError, match=r"or give the digest of the bytes"):
        resolve_for_cluster(mixed, STORE)
    given = resolve_for_cluster(
        workload(sealed_source="s3://team/later.csv", source_digest=DIGEST), STORE
    )
    assert given.data.source_digest == DIGEST
    assert given.data.sealed_source == "s3://team/later.csv"


@pytest.mark.parametrize(
    ("data", "store", "part"),
    [
        ({"source": "rows.csv"}, STORE, "'rows.csv', which lies on this machine alone"),
        ({"source": "file:///rows.csv"}, STORE, "lies on this machine alone"),
        ({"source": ""}, STORE, "data.source is empty"),
        ({}, "", "which no cluster knows"),
        ({}, "file:///store", "which no cluster knows"),
    ],
)
def test_what_no_cluster_can_read_is_refused(data, store, part):
    with pytest.raises(ConfigError, match=part):
        resolve_for_cluster(workload(**data), store)


def test_a_schedule_gives_no_digest():
    data = resolve_for_cluster(workload(), STORE, recurring=True).data
    assert data.source_digest == ""


def test_a_built_in_data_set_without_official_test_rows_is_none_for_them(
    file_store, tmp_path
):
    wrong = workload(sealed_source="compas")
    sentence = "data.sealed_source is 'compas', a built-in data set without such rows"
    with pytest.raises(ConfigError, match=sentence):
        resolve_locally(wrong, file_store, tmp_path, tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        resolve_for_cluster(wrong, STORE)
    with pytest.raises(ConfigError, match=sentence):
        default_parameters(wrong, STORE)


def test_defaults_of_a_compiled_file_leave_out_what_lies_on_this_machine():
    values = default_parameters(workload(sealed_source="here.csv"), STORE)
    assert values["source"] == "s3://team/data/adult/adult.data"
    assert "sealed_source" not in values


@pytest.mark.parametrize(
    ("session", "store"),
    [("", "s3://safescale"), ("file:///here", "s3://safescale"), (STORE, STORE)],
)
def test_a_folder_is_no_store_of_a_cluster(session, store):
    assert default_store(session) == store
