"""What tells of sealed rows one by one lies apart, below one prefix of the store."""

from __future__ import annotations

import resource
import shutil
import signal
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest

from safescale_ammt.data.holdout import SAMPLING, SEALED_ROWS
from safescale_ammt.data.row_keys import KEYS, PARTS
from safescale_ammt.errors import (
    InputError,
    IntegrityError,
    StorageError,
    StoreInputError,
)
from safescale_ammt.files.artifacts import (
    APART,
    PROTECTED,
    Manifest,
    read_manifest,
    verify,
    writing,
)
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.judging.evidence import EVIDENCE
from safescale_ammt.store.base import Store
from safescale_ammt.store.protected import made_whole, private_scratch, set_apart
from safescale_ammt.store.uri import open_store

ROWS = b"PAR1 a person's row PAR1" * 1000
CONTENTS = {
    "holdout": {SEALED_ROWS: ROWS, KEYS: b"keys", PARTS: b"parts"},
    "verdict": {EVIDENCE: ROWS, "findings/one.json": b"{}", "report.html": b"page"},
}


def whole_artifact(folder: Path, kind: str = "holdout", rows: bytes = ROWS) -> Path:
    """Writes an artifact with all that it has."""
    with writing(folder, kind=kind, stage="test", parents={"a": "sha256:b"}) as draft:
        draft.code_version = "0.0.9+another"
        write_json(draft.folder / "schema.json", {"schema": 1})
        draft.outside_identity.add("report.html")
        for name, data in CONTENTS[kind].items():
            (draft.folder / name).parent.mkdir(exist_ok=True)
            (draft.folder / name).write_bytes(rows if data is ROWS else data)
    return folder


def files_in(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def artifact(tmp_path: Path, store: Store) -> Path:
    """A holdout as a run has it; its rows are in `store`."""
    set_apart(store, whole_artifact(tmp_path / "whole"), tmp_path / "holdout")
    return tmp_path / "holdout"


def fetch(store: Store, artifact: Path, kind: str = "holdout") -> None:
    with made_whole(store, artifact, kind):
        pass


def key_of(artifact: Path, name: str = SEALED_ROWS) -> str:
    return read_manifest(artifact).place(name)


def test_the_files_that_lie_apart_are_those_that_tell_of_single_rows() -> None:
    assert APART["holdout"] == {SEALED_ROWS, SAMPLING, KEYS, PARTS}
    assert APART["verdict"] == {EVIDENCE}


@pytest.mark.parametrize("kind", ["holdout", "verdict"])
def test_an_artifact_that_was_set_apart_is_made_whole_again(
    tmp_path: Path, store: Store, kind: str
) -> None:
    whole = whole_artifact(tmp_path / "whole", kind)
    manifest = set_apart(store, whole, tmp_path / "apart")
    assert verify(tmp_path / "apart", kind) == manifest
    assert manifest.identity == read_manifest(whole).identity
    apart = APART[kind] & manifest.files.keys()
    assert files_in(tmp_path / "apart") == files_in(whole) - apart
    assert {info.key for info in store.list()} == {manifest.place(n) for n in apart}
    assert all(info.key.startswith(PROTECTED) for info in store.list())
    with made_whole(store, tmp_path / "apart", kind) as again:
        # To the last byte of its manifest, which is the one that a bundle holds.
        assert files_in(again) == files_in(whole)
        for name in files_in(whole):
            assert (again / name).read_bytes() == (whole / name).read_bytes()
        assert again.parent.stat().st_mode & 0o777 == 0o700
        assert (again / max(apart)).stat().st_mode & 0o777 == 0o600
    assert not again.parent.exists()


def test_the_artifact_names_place_digest_and_size_of_what_lies_apart(
    artifact: Path,
) -> None:
    raw = read_json(artifact / "manifest.json")
    entry = raw["files"][SEALED_ROWS]
    hexdigits = raw["identity"].removeprefix("sha256:")
    assert entry["place"] == f"sealed/holdout/{hexdigits}/{SEALED_ROWS}"
    assert entry["size"] == len(ROWS)
    assert entry["sha256"].startswith("sha256:")
    assert "place" not in raw["files"]["schema.json"]
    for file in artifact.iterdir():
        assert b"a person's row" not in file.read_bytes()


def test_equal_work_is_stored_once_and_other_rows_elsewhere(
    tmp_path: Path, store: Store, artifact: Path
) -> None:
    before = {info.key: info.etag for info in store.list()}
    again = whole_artifact(tmp_path / "again")
    set_apart(store, again, tmp_path / "same")
    assert {info.key: info.etag for info in store.list()} == before
    set_apart(store, whole_artifact(tmp_path / "b", rows=b"other"), tmp_path / "other")
    assert len(list(store.list())) == 2 * len(before)
    assert store.get(key_of(artifact)) == ROWS


def test_what_was_damaged_is_put_again_by_equal_work(
    tmp_path: Path, store: Store, artifact: Path
) -> None:
    store.put(key_of(artifact), ROWS[::-1])
    set_apart(store, tmp_path / "whole", artifact)
    assert store.get(key_of(artifact)) == ROWS


@pytest.mark.parametrize(
    ("damaged", "says"),
    [
        (ROWS[:-1], r"found 23,999 bytes"),
        (b"", r"found 0 bytes"),
        (ROWS + b"x", r"found 24,001 bytes"),
        (ROWS[::-1], r"24,000 bytes, found sha256:[0-9a-f]{64}"),
    ],
    ids=["truncated", "empty", "longer", "exchanged"],
)
def test_other_bytes_are_refused_with_digest_and_size(
    store: Store, artifact: Path, damaged: bytes, says: str
) -> None:
    store.put(key_of(artifact), damaged)
    with pytest.raises(IntegrityError, match=says) as error:
        fetch(store, artifact)
    sentence = str(error.value)
    assert read_manifest(artifact).files[SEALED_ROWS].sha256 in sentence
    assert f"{store.uri}/{key_of(artifact)} was changed" in sentence
    assert "a person" not in sentence
    assert sentence.endswith("prepare the data anew, not from a cache (--no-cache).")


@pytest.mark.parametrize(
    ("kind", "what"), [("holdout", "prepare the data"), ("verdict", "judge the model")]
)
def test_what_was_removed_is_named_with_what_writes_it_again(
    tmp_path: Path, store: Store, kind: str, what: str
) -> None:
    whole = whole_artifact(tmp_path / "whole", kind)
    manifest = set_apart(store, whole, tmp_path / "apart")
    name = max(APART[kind] & manifest.files.keys())
    store.delete(manifest.place(name))
    with pytest.raises(InputError, match=f"{what} anew, not from a cache") as error:
        fetch(store, tmp_path / "apart", kind)
    assert f"{store.uri}/{manifest.place(name)} is not there" in str(error.value)
    assert error.value.exit_code == 2


def test_another_store_is_a_store_without_the_rows(
    tmp_path: Path, artifact: Path
) -> None:
    other = open_store((tmp_path / "other").as_uri())
    with pytest.raises(InputError, match="was removed, or this is another store"):
        fetch(other, artifact)


@pytest.mark.parametrize(("kind", "name"), [("holdout", KEYS), ("verdict", EVIDENCE)])
def test_an_artifact_of_the_earlier_form_is_refused(
    tmp_path: Path, file_store: Store, kind: str, name: str
) -> None:
    whole = whole_artifact(tmp_path / "old", kind)
    with pytest.raises(InputError, match="of an earlier form") as error:
        fetch(file_store, whole, kind)
    assert f"with {name} in it" in str(error.value)
    assert "not from a cache (--no-cache)" in str(error.value)


def test_rows_that_lie_in_the_artifact_too_are_refused(artifact: Path) -> None:
    (artifact / SEALED_ROWS).write_bytes(ROWS)
    with pytest.raises(IntegrityError, match=r"sealed\.parquet was added to"):
        verify(artifact)


def test_no_manifest_sends_a_reader_to_another_place(artifact: Path) -> None:
    raw = read_json(artifact / "manifest.json")
    raw["files"][SEALED_ROWS]["place"] = "sealed/holdout/other/sealed.parquet"
    write_json(artifact / "manifest.json", raw)
    with pytest.raises(IntegrityError, match="changed after it was written"):
        verify(artifact)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("holdout", "schema.json"), ("verdict", "report.html"), ("model", "weights")],
)
def test_nothing_else_can_lie_apart(kind: str, name: str, tmp_path: Path) -> None:
    """Else a verified artifact could lack its weights or its report."""
    with writing(tmp_path / "a", kind=kind, stage="test") as draft:
        (draft.folder / name).write_bytes(b"x")
    raw = read_json(tmp_path / "a" / "manifest.json")
    (tmp_path / "a" / name).unlink()
    place = Manifest.from_dict(raw).place(name)
    raw["files"][name]["place"] = place
    write_json(tmp_path / "a" / "manifest.json", raw)
    with pytest.raises(InputError, match="is not the manifest of an artifact"):
        read_manifest(tmp_path / "a")


def test_nothing_names_rows_that_did_not_arrive(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    (root / "sealed").write_text("in the way")
    store = open_store(root.as_uri())
    with pytest.raises(StorageError):
        set_apart(store, whole_artifact(tmp_path / "whole"), tmp_path / "holdout")
    assert not (tmp_path / "holdout").exists()


def test_a_file_of_the_wrong_kind_is_one_sentence(
    tmp_path: Path, file_store: Store
) -> None:
    whole_artifact(tmp_path / "verdict", "verdict")
    with pytest.raises(InputError, match="expected a holdout artifact"):
        fetch(file_store, tmp_path / "verdict", "holdout")


def test_a_key_without_the_right_is_told_whose_right_it_is(
    tmp_path: Path, file_store: Store, artifact: Path
) -> None:
    set_apart(file_store, tmp_path / "whole", artifact)
    root = tmp_path / "store"
    shutil.rmtree(root / "sealed")
    # A link out of the store: what a store in a folder refuses to open.
    (root / "sealed").symlink_to(tmp_path)
    with pytest.raises(StoreInputError) as error:
        fetch(file_store, artifact, "holdout")
    assert "below sealed/, which the key of prepare, judge and gate" in str(error.value)
    assert "\n" not in str(error.value)


def test_rows_stream_and_never_lie_in_memory(tmp_path: Path, file_store: Store) -> None:
    large = b"0123456789abcdef" * (4 << 20)
    whole = whole_artifact(tmp_path / "whole", rows=large)
    del large
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    set_apart(file_store, whole, tmp_path / "apart")
    with made_whole(file_store, tmp_path / "apart", "holdout") as again:
        assert (again / SEALED_ROWS).stat().st_size == 64 << 20
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A manifest is read into room for the largest one, 32 MiB.
    assert peak < 40 << 20
    assert pa.total_allocated_bytes() == before


def test_a_private_scratch_is_nobody_elses_and_goes(tmp_path: Path) -> None:
    with private_scratch() as folder:
        assert folder.name.startswith(".safescale-")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()
    # Where a stage writes, in a container: its group has to be able to tidy up.
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage").chmod(0o2770)
    with private_scratch(tmp_path / "stage" / "holdout") as folder:
        assert folder.parent == tmp_path / "stage"
        assert folder.stat().st_mode & 0o7777 == 0o2770
    assert list((tmp_path / "stage").iterdir()) == []


@pytest.mark.parametrize("kind", ["holdout", "verdict"])
@pytest.mark.parametrize("room", [0, 1, 20_000])
def test_a_disk_without_room_is_one_sentence_wherever_it_ends(
    tmp_path: Path, file_store: Store, kind: str, room: int
) -> None:
    artifact = tmp_path / kind
    set_apart(file_store, whole_artifact(tmp_path / "whole", kind), artifact)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(StorageError, match="the disk has no room left"):
            fetch(file_store, artifact, kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    fetch(file_store, artifact, kind)


def test_a_place_for_temporary_files_that_takes_none_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(StorageError, match="making a private folder failed"):
        private_scratch().__enter__()
