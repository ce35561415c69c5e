"""The store's contract on a folder and a real SeaweedFS, and on sick stores."""

from __future__ import annotations

import io
import os
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from sick_store import KEYS, QUICK, sick_store

from safescale_ammt.errors import (
    IntegrityError,
    PreconditionFailed,
    SafescaleError,
    StorageError,
    StoreInputError,
)
from safescale_ammt.store.base import CONDITIONAL_LIMIT, Store
from safescale_ammt.store.event_log import EventLog
from safescale_ammt.store.s3 import S3Store
from safescale_ammt.store.uri import open_store, read_uri

MB = 1 << 20


def test_bytes_streams_and_files_come_back_from_either_store(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"file")
    store.put("odd/a b+c%20?#é/ü.txt", b"bytes")
    store.put("stream", io.BytesIO(b"stream"))
    store.put("file", tmp_path / "f")
    store.put("empty", b"")
    assert store.get("odd/a b+c%20?#é/ü.txt") == b"bytes"
    assert store.get("stream") == b"stream"
    assert store.get("file") == b"file"
    assert store.get("empty") == b""
    assert {i.key: i.size for i in store.list()} == {
        "odd/a b+c%20?#é/ü.txt": 5,
        "stream": 6,
        "file": 4,
        "empty": 0,
    }
    assert [i.key for i in store.list("odd/a")] == ["odd/a b+c%20?#é/ü.txt"]
    store.delete("file")
    store.delete("file")
    assert not store.exists("file")
    with pytest.raises(StoreInputError, match="file does not exist"):
        store.get("file")


def test_a_large_object_streams_in_parts_and_bounded_memory(
    store: Store, tmp_path: Path
) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        for _ in range(20):
            file.write(os.urandom(10 * MB))
    tracemalloc.start()
    store.put("large", source)
    store.download("large", tmp_path / "copy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * MB  # the object has 200
    assert store.digest("large") == open_store(tmp_path.as_uri()).digest("large")
    assert (tmp_path / "copy").stat().st_size == 200 * MB
    info = store.stat("large")
    assert info is not None
    assert store.holds(info, source)


def test_a_folder_is_mirrored_and_only_changes_are_sent(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "artifact"
    (folder / "deep").mkdir(parents=True)
    for name in ("manifest.json", "deep/a.bin", "empty"):
        (folder / name).write_bytes(name.encode() if name != "empty" else b"")
    assert store.upload_folder(folder, "runs/1") == 3
    assert store.upload_folder(folder, "runs/1") == 0
    (folder / "deep/a.bin").write_bytes(b"DEEP/A.BIN")
    assert store.upload_folder(folder, "runs/1") == 1
    assert store.download_folder("runs/1", tmp_path / "back") == 3
    assert store.download_folder("runs/1", tmp_path / "back") == 0
    assert (tmp_path / "back/deep/a.bin").read_bytes() == b"DEEP/A.BIN"


class Counted(S3Store):
    """An S3 store that keeps which keys were opened."""

    opened: tuple[str, ...] = ()

    def open(self, key: str) -> BinaryIO:
        self.opened = (*self.opened, key)
        return super().open(key)


def test_an_event_is_fetched_once_and_again_when_it_was_changed(
    s3_store: Store, s3_environ: dict[str, str]
) -> None:
    bucket, _, prefix = s3_store.uri.removeprefix("s3://").partition("/")
    counted = Counted.from_environ(bucket, prefix, s3_environ)
    assert isinstance(counted, Counted)
    log = EventLog(counted, "log")
    log.append(lambda _: ("said", {"word": "one"}))
    EventLog(s3_store, "log").append(lambda _: ("said", {"word": "two"}))
    assert [e.body["word"] for e in log.read()] == ["one", "two"]
    before = counted.opened
    assert [e.body["word"] for e in EventLog(counted, "log").read()] == ["one", "two"]
    assert counted.opened == before
    # As long as it was, by somebody else, within the same second.
    key = "log/events/00000001.json"
    s3_store.put(key, s3_store.get(key).replace(b"one", b"two"))
    with pytest.raises(IntegrityError, match="was changed after it was written"):
        log.read()
    s3_store.delete(key)
    with pytest.raises(IntegrityError):
        log.read()


@pytest.mark.parametrize("size", [100, 20 * MB], ids=["small", "20MB"])
def test_of_racing_conditional_writes_exactly_one_wins(store: Store, size: int) -> None:
    for key in ("r1", "r2", "r3"):
        outcome: dict[int, str] = {}
        start = threading.Barrier(4)

        def write(
            mark: int,
            key: str = key,
            start: threading.Barrier = start,
            outcome: dict[int, str] = outcome,
        ) -> None:
            start.wait()
            try:
                store.put(key, bytes([mark]) * size, if_absent=True)
                outcome[mark] = "won"
            except PreconditionFailed:
                outcome[mark] = "lost"

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcome.values()) == ["lost", "lost", "lost", "won"]
        winner = next(mark for mark, how in outcome.items() if how == "won")
        assert store.get(key) == bytes([winner]) * size


def test_a_conditional_write_never_becomes_a_multipart_upload(
    s3_store: Store,
) -> None:
    with pytest.raises(StorageError, match="more than a conditional write can hold"):
        s3_store.put("a", io.BytesIO(bytes(CONDITIONAL_LIMIT + 1)), if_absent=True)
    assert not s3_store.exists("a")


def test_read_uri_reads_one_object(s3_store: Store, s3_environ: dict[str, str]) -> None:
    s3_store.put("x/y", b"z")
    assert read_uri(f"{s3_store.uri}/x/y", environ=s3_environ) == b"z"


ACTIONS: dict[str, Callable[[Store], object]] = {
    "writing": lambda store: store.put("k", b"x"),
    "reading": lambda store: store.get("k"),
    "looking for": lambda store: store.exists("k"),
    "listing": lambda store: list(store.list()),
    "deleting": lambda store: store.delete("k"),
}


@pytest.mark.parametrize("action", [a for a in ACTIONS if a != "deleting"])
def test_a_missing_bucket_is_bad_input(s3_environ: dict[str, str], action: str) -> None:
    store = open_store("s3://no-such-bucket", environ=s3_environ)
    with pytest.raises(
        StoreInputError, match="bucket no-such-bucket does not exist at http"
    ) as error:
        ACTIONS[action](store)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("action", ACTIONS)
def test_a_wrong_secret_names_action_and_bucket_but_no_secret(
    s3_environ: dict[str, str], action: str
) -> None:
    wrong = {**s3_environ, "AWS_SECRET_ACCESS_KEY": "wrong-secret"}
    store = open_store("s3://safescale", environ=wrong)
    with pytest.raises(StoreInputError, match=f"{action} s3://safescale") as error:
        ACTIONS[action](store)
    for secret in ("wrong-secret", *wrong.values()):
        if secret not in ("", store.uri, wrong["AWS_ENDPOINT_URL"]):
            assert secret not in str(error.value)


def test_an_unknown_access_key_is_bad_input(s3_environ: dict[str, str]) -> None:
    wrong = {**s3_environ, "AWS_ACCESS_KEY_ID": "nobody"}
    with pytest.raises(StoreInputError, match="the access key or its secret"):
        open_store("s3://safescale", environ=wrong).get("k")


def test_a_store_that_is_gone_is_one_sentence() -> None:
    with sick_store() as server:
        store = server.store()
    for action in ACTIONS.values():
        with pytest.raises(StorageError, match=r"could not be reached.*in 4 tries\."):
            action(store)


@pytest.mark.parametrize("symptom", ["500", "503", "409", "429", "lost-reply"])
def test_a_store_that_recovers_is_not_noticed(symptom: str) -> None:
    with sick_store(symptom, symptom) as server:
        store = server.store()
        store.put("k", b"x")
        server.script = [symptom, symptom]
        assert store.get("k") == b"x"
        assert server.objects == {"/bucket/k": b"x"}


def test_a_store_that_only_fails_is_given_up() -> None:
    with sick_store(*["500"] * 20) as server:
        with pytest.raises(StorageError, match="only with server errors in 4 tries"):
            server.store().get("k")
        assert server.seen == ["GET 500"] * 4


def test_a_store_that_stalls_is_given_up() -> None:
    with sick_store(*["stall"] * 20) as server:
        store = server.store(replace(QUICK, retries=1, connect=1.0, read=0.2))
        with pytest.raises(StorageError, match="did not answer in time"):
            store.get("k")


def test_the_lost_reply_of_a_conditional_write_is_its_own_success() -> None:
    with sick_store("lost-reply") as server:
        server.store().put("k", b"mine", if_absent=True)
        assert server.seen[:2] == ["PUT lost-reply", "PUT well"]
        assert server.objects == {"/bucket/k": b"mine"}


def test_a_lost_reply_does_not_make_somebody_elses_write_ours() -> None:
    with sick_store("503") as server:
        server.objects["/bucket/k"] = b"theirs"
        with pytest.raises(PreconditionFailed, match="s3://bucket/k exists already"):
            server.store().put("k", b"mine", if_absent=True)
        assert server.objects["/bucket/k"] == b"theirs"


def test_a_half_body_is_taken_up_where_it_broke() -> None:
    data = os.urandom(3 * MB)
    with sick_store("half", "half", "500", "half") as server:
        server.objects["/bucket/k"] = data
        assert server.store().get("k") == data


def test_a_body_that_always_ends_early_is_never_taken_for_the_whole(
    tmp_path: Path,
) -> None:
    with sick_store(*["half"] * 20) as server:
        server.objects["/bucket/k"] = os.urandom(MB)
        with pytest.raises(StorageError, match="the store broke off 4 times"):
            server.store().download("k", tmp_path / "k")
        assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_send_the_rest_is_said_so() -> None:
    with sick_store("half", "ignores-range") as server:
        server.objects["/bucket/k"] = os.urandom(MB)
        with pytest.raises(StorageError, match="cannot send the rest alone"):
            server.store().get("k")


def test_an_object_that_changes_while_it_is_read_is_noticed() -> None:
    with sick_store("half", "412") as server:
        server.objects["/bucket/k"] = os.urandom(MB)
        with pytest.raises(StorageError, match="overwritten while it was being read"):
            server.store().get("k")


def test_an_error_inside_a_200_is_no_success(tmp_path: Path) -> None:
    """S3 may complete a multipart upload with status 200 and an error in it."""
    with sick_store("error-inside") as server:
        store = server.store()
        with pytest.raises(StorageError, match="the store did not confirm it"):
            store.put("k", bytes(20 * MB))


def test_the_lost_reply_of_a_large_upload_is_its_own_success() -> None:
    data = os.urandom(17 * MB)
    with sick_store("lost-reply") as server:
        server.store().put("k", data)
        assert server.objects == {"/bucket/k": data}


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("RequestTimeTooSkewed", 403, "clocks of this machine and of the store"),
        ("AccountProblem", 403, "a problem with the account"),
        ("AuthorizationHeaderMalformed", 400, "another region than AWS_REGION"),
        ("QuotaExceeded", 403, "the quota of bucket bucket is used up"),
        ("XMinioAdminBucketQuotaExceeded", 400, "the quota of bucket bucket"),
        ("AccessDenied", 403, "do not permit this action in bucket bucket"),
    ],
)
def test_a_refusal_that_has_a_cause_says_it(code: str, status: int, said: str) -> None:
    with sick_store(f"{status} {code}") as server:
        with pytest.raises(StorageError, match=said) as error:
            server.store().put("k", b"x")
        assert str(error.value).startswith("writing s3://bucket/k was refused at http")
        assert "secret" not in str(error.value).replace("AWS_SECRET_ACCESS_KEY", "")


def test_what_a_store_refuses_to_show_may_be_absent() -> None:
    """AWS answers 403 for an absent object to a key that lists its prefix alone."""
    with (
        sick_store("403 AccessDenied") as server,
        pytest.raises(StoreInputError, match="s3://bucket/k does not exist"),
    ):
        server.store().get("k")
    with sick_store("403 AccessDenied", "403") as server:
        assert server.store().stat("k") is None
    with sick_store("403 AccessDenied") as server:
        server.objects["/bucket/k"] = b"x"
        with pytest.raises(StoreInputError, match="reading s3://bucket/k was refused"):
            server.store().get("k")
    with sick_store("403 AccessDenied") as server:
        server.objects["/bucket/k"] = b"x"
        with pytest.raises(StoreInputError, match="looking for s3://bucket/k was ref"):
            server.store().stat("k")


@pytest.mark.parametrize(
    "bucket",
    ["10.0.0.1", "192.168.1.1:9000", "minio:9000", "s3.example.org:8333", "[::1]:9000"],
)
def test_an_address_in_the_place_of_a_bucket_is_named_as_such(bucket: str) -> None:
    with pytest.raises(StoreInputError, match="holds an address where a bucket is"):
        open_store(f"s3://{bucket}/data", environ=KEYS)


def test_a_bucket_that_may_be_an_address_is_named_so_once_it_is_missing(
    s3_environ: dict[str, str],
) -> None:
    """Such a name is allowed; only the store knows that there is none."""
    store = open_store("s3://minio.team.svc.cluster.local", environ=s3_environ)
    with pytest.raises(StoreInputError, match=r"looks like an address.*names no host"):
        store.get("k")
    store = open_store("s3://my.bucket.1", environ=s3_environ)
    with pytest.raises(StoreInputError, match="create it or check the name"):
        store.get("k")


def test_an_answer_that_is_not_s3_is_said_so() -> None:
    with sick_store("not-s3") as server:
        with pytest.raises(StorageError, match="did not answer as S3 does") as error:
            server.store().get("k")
        assert "proxy login" not in str(error.value)


def test_a_refusal_names_what_the_store_answered() -> None:
    with sick_store("400") as server:
        store = server.store()
        with pytest.raises(StorageError, match=r"answered Sick \(HTTP 400\)"):
            store.put("k", b"x")


def test_no_permission_names_the_action_and_the_bucket() -> None:
    with (
        sick_store("403") as server,
        pytest.raises(
            StoreInputError, match=r"writing s3://bucket/k .* in bucket bucket"
        ),
    ):
        server.store().put("k", b"x")


def test_a_source_that_shrinks_is_an_error(tmp_path: Path) -> None:
    class Shrunk(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            raise OSError("gone")

    with sick_store() as server:
        with pytest.raises(StorageError, match="the data ended too early"):
            server.store().put("k", Shrunk())  # type: ignore[arg-type]
        assert server.objects == {}


def test_delegated_credentials_that_fail_repeat_no_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("very-secret-token")
    with sick_store(*["500"] * 20) as server:
        environ = {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/x",
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ENDPOINT_URL_STS": server.endpoint,
        }
        store = S3Store.from_environ("bucket", "", environ, QUICK)
        os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"] = str(token)
        try:
            with pytest.raises(
                StoreInputError, match="AWS_WEB_IDENTITY_TOKEN_FILE is set, but"
            ) as error:
                store.get("k")
        finally:
            del os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"]
    assert "very-secret-token" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_a_profile_file_gives_credentials(
    s3_environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\n"
        f"aws_access_key_id = {s3_environ['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {s3_environ['AWS_SECRET_ACCESS_KEY']}\n"
    )
    place = {"AWS_ENDPOINT_URL": s3_environ["AWS_ENDPOINT_URL"]}
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    store = open_store(
        "s3://safescale", environ={**place, "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    )
    assert store.exists("nothing") is False


def test_every_sentence_is_one_sentence() -> None:
    """What, where, found: no line breaks, one full stop at the end."""
    with sick_store("403", "400", "500", "500", "500", "500") as server:
        store = server.store()
        for _ in range(3):
            with pytest.raises(SafescaleError) as error:
                store.put("k", b"x")
            text = str(error.value)
            assert text.endswith(".")
            assert "\n" not in text
            assert KEYS["AWS_SECRET_ACCESS_KEY"] not in text
