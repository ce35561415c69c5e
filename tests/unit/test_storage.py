"""The folder store, URIs, and every way in which a request is refused early."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safescale_ammt.errors import (
    PreconditionFailed,
    StorageError,
    StoreInputError,
)
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.store.base import Store, check_key
from safescale_ammt.store.uri import open_store, read_uri, split_uri

KEYS = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "very-secret"}


def test_what_was_put_comes_back(file_store: Store) -> None:
    file_store.put("a/b.txt", b"hello")
    assert file_store.get("a/b.txt") == b"hello"
    assert file_store.digest("a/b.txt") == digest_bytes(b"hello")
    assert file_store.exists("a/b.txt")
    assert not file_store.exists("a/c.txt")
    assert not file_store.exists("a")


def test_a_later_put_replaces_the_object(file_store: Store) -> None:
    file_store.put("a", b"one")
    file_store.put("a", io.BytesIO(b"two"))
    assert file_store.get("a") == b"two"


def test_a_conditional_put_loses_against_an_object_that_exists(
    file_store: Store,
) -> None:
    file_store.put("a", b"one", if_absent=True)
    with pytest.raises(PreconditionFailed, match="exists already"):
        file_store.put("a", b"two", if_absent=True)
    assert file_store.get("a") == b"one"


def test_a_file_can_be_put_and_downloaded(file_store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(os.urandom(3_000_000))
    file_store.put("big", source)
    file_store.download("big", tmp_path / "new" / "copy.bin")
    assert (tmp_path / "new" / "copy.bin").read_bytes() == source.read_bytes()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["copy.bin"]


def test_list_takes_any_beginning_of_a_key(file_store: Store) -> None:
    for key in ("runs/a/1", "runs/ab/2", "runs/b/3", "other"):
        file_store.put(key, b"x")
    assert {i.key for i in file_store.list("runs/a")} == {"runs/a/1", "runs/ab/2"}
    assert {i.key for i in file_store.list("runs/a/")} == {"runs/a/1"}
    assert len(list(file_store.list())) == 4
    assert list(file_store.list("nothing/")) == []
    info = next(file_store.list("other"))
    assert (info.size, info.modified.tzinfo is not None) == (1, True)


def test_deleting_twice_is_no_error(file_store: Store) -> None:
    file_store.put("a", b"x")
    file_store.delete("a")
    file_store.delete("a")
    assert not file_store.exists("a")


def test_a_missing_object_is_bad_input(file_store: Store) -> None:
    with pytest.raises(StoreInputError, match=r"store/nope does not exist\.") as error:
        file_store.get("nope")
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../up", "a/../../up", "a//b", "a/./b", "a\\b", "a\0b", "a/"],
)
def test_a_key_that_climbs_is_refused(file_store: Store, key: str) -> None:
    for action in (file_store.get, file_store.exists, file_store.delete):
        with pytest.raises(StoreInputError, match="not allowed"):
            action(key)
    with pytest.raises(StoreInputError, match="not allowed"):
        file_store.put(key, b"x")


def test_a_prefix_that_climbs_is_refused(file_store: Store) -> None:
    with pytest.raises(StoreInputError, match="not allowed"):
        list(file_store.list("../"))


def test_the_names_used_for_writing_aside_are_no_keys(file_store: Store) -> None:
    with pytest.raises(StoreInputError):
        file_store.put(".partial/x", b"")
    with pytest.raises(StoreInputError):
        check_key("k" * 1025)


def test_a_link_that_leads_out_of_the_store_is_refused(
    file_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("s")
    file_store.put("a", b"x")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreInputError, match="leads out of the store"):
        file_store.get("link/secret")


def test_a_source_that_breaks_off_leaves_the_old_object(file_store: Store) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    file_store.put("a", b"old")
    with pytest.raises(StorageError, match="Input/output error"):
        file_store.put("a", Broken())  # type: ignore[arg-type]
    assert file_store.get("a") == b"old"
    assert [i.key for i in file_store.list()] == ["a"]


def test_a_key_below_an_object_is_one_clear_sentence(file_store: Store) -> None:
    file_store.put("a", b"x")
    with pytest.raises(StorageError, match="part of its path is an object already"):
        file_store.put("a/b", b"x")
    file_store.put("c/d", b"x")
    with pytest.raises(StorageError, match="writing c to"):
        file_store.put("c", b"x")


def test_a_missing_source_is_bad_input(file_store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreInputError, match="is no file"):
        file_store.put("a", tmp_path / "nope")


_FULL = """
import resource, sys
from pathlib import Path
from safescale_ammt.errors import StorageError
from safescale_ammt.store.uri import open_store
store = open_store(sys.argv[1])
store.put("small", b"x")
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
for if_absent in (False, True):
    try:
        store.put("large", b"x" * (2 << 20), if_absent=if_absent)
    except StorageError as error:
        print(error)
try:
    open_store(sys.argv[2]).download("source", Path(sys.argv[3]))
except StorageError as error:
    print(error)
print(sorted(info.key for info in store.list()), len(list(store.root.rglob("*"))))
"""


def test_a_full_disk_leaves_no_half_object(file_store: Store, tmp_path: Path) -> None:
    """A limit on file sizes stands in for the full disk: both end in the middle."""
    other = open_store((tmp_path / "other").as_uri())
    other.put("source", b"x" * (2 << 20))
    done = subprocess.run(
        [sys.executable, "-c", _FULL, file_store.uri, other.uri, str(tmp_path / "d")],
        capture_output=True,
        text=True,
        check=True,
    )
    *sentences, listing = done.stdout.splitlines()
    assert len(sentences) == 3
    assert all("the disk has no room left" in sentence for sentence in sentences)
    assert listing == "['small'] 2"  # the object, and the empty folder for writing
    assert not (tmp_path / "d").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_permission_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StoreInputError, match="no permission"):
        open_store((tmp_path / "closed").as_uri()).put("a", b"x")


def test_a_folder_goes_and_comes_back_with_its_manifest_last(
    file_store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "artifact"
    for name in ("manifest.json", "a.txt", "model/manifest.json", "model/z/w.bin"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    assert file_store.upload_folder(folder, "runs/1/") == 4
    written = sorted(file_store.list("runs/1/"), key=lambda info: info.modified)
    assert [info.key for info in written[-2:]] == [
        "runs/1/model/manifest.json",
        "runs/1/manifest.json",
    ]
    back = tmp_path / "back"
    assert file_store.download_folder("runs/1", back) == 4
    assert (back / "model/z/w.bin").read_text() == "model/z/w.bin"


def test_unchanged_files_are_not_sent_again(file_store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text("same size")
    file_store.upload_folder(folder, "p")
    (folder / "b").write_text("SAME SIZE")
    assert file_store.upload_folder(folder, "p") == 1
    assert file_store.get("p/b") == b"SAME SIZE"
    (folder / "a").write_text("damaged!!")
    assert file_store.download_folder("p", folder) == 1
    assert (folder / "a").read_text() == "same size"


def test_an_empty_folder_or_prefix_is_bad_input(
    file_store: Store, tmp_path: Path
) -> None:
    with pytest.raises(StoreInputError, match="holds no file"):
        file_store.upload_folder(tmp_path / "nope", "p")
    with pytest.raises(StoreInputError, match="nothing is stored under"):
        file_store.download_folder("p", tmp_path / "back")


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket/a/b.csv", ("s3://bucket", "a/b.csv")),
        ("s3://bucket/a/", ("s3://bucket", "a/")),
        ("s3://bucket", ("s3://bucket", "")),
        ("s3://bucket/odd?#%20name", ("s3://bucket", "odd?#%20name")),
        ("file:///no/such/b.csv", ("file:///no/such", "b.csv")),
        ("file:///no/such/", ("file:///no", "such/")),
        ("file://localhost/no/a%20b", ("file:///no", "a b")),
        ("file:///", ("file:///", "")),
    ],
)
def test_a_uri_splits_into_store_and_key(uri: str, parts: tuple[str, str]) -> None:
    assert split_uri(uri) == parts


def test_a_linked_file_is_read_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "data.csv").write_text("1")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "data.csv")
    assert read_uri((tmp_path / "link.csv").as_uri()) == b"1"


@pytest.mark.parametrize(
    "uri",
    [
        "adult",
        "gs://bucket/x",
        "file://relative/x",
        "s3://",
        "s3://Bucket",
        "s3://a",
        "s3://u_v",
    ],
)
def test_a_malformed_uri_is_bad_input(uri: str) -> None:
    with pytest.raises(StoreInputError, match=r"\.$"):
        open_store(uri, environ=KEYS)


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/prefix/", "file:///d/"])
def test_a_uri_of_many_objects_is_not_read_as_one(uri: str) -> None:
    with pytest.raises(StoreInputError, match="names no single object"):
        read_uri(uri, environ=KEYS)


def test_missing_credentials_are_bad_input() -> None:
    with pytest.raises(StoreInputError, match="no credentials for s3://bucket: set"):
        open_store("s3://bucket", environ={})


@pytest.mark.parametrize("name", sorted(KEYS))
def test_half_the_credentials_are_bad_input(name: str) -> None:
    environ = {key: value for key, value in KEYS.items() if key != name}
    with pytest.raises(StoreInputError, match=f"{name} is not set") as error:
        open_store("s3://bucket", environ=environ)
    assert "very-secret" not in str(error.value)


@pytest.mark.parametrize(
    "endpoint",
    ["localhost:8333", "ftp://host", "http://", "http://host/path", "http://u:pw@host"],
)
def test_a_malformed_endpoint_is_bad_input_and_not_repeated(endpoint: str) -> None:
    with pytest.raises(StoreInputError, match="AWS_ENDPOINT_URL") as error:
        open_store("s3://bucket", environ={**KEYS, "AWS_ENDPOINT_URL": endpoint})
    assert "pw" not in str(error.value)


def test_a_file_store_does_not_load_the_s3_client(tmp_path: Path) -> None:
    code = (
        "import sys; from safescale_ammt.store.uri import open_store;"
        f"open_store({tmp_path.as_uri()!r}).put('a', b'x');"
        "assert not {'minio', 'urllib3', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@given(st.text(alphabet=st.sampled_from("ab./\\\0é"), max_size=12))
def test_no_accepted_key_ever_leaves_the_store(key: str) -> None:
    try:
        check_key(key)
    except StoreInputError:
        return
    root = Path("/root/of/store")
    assert Path(os.path.normpath(root / key)) == root / key != root
