"""The embedded store's supervisor, with small programs in the server's place."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from safescale_ammt.store.embedded import supervisor


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, action in zip(numbers, before, strict=True):
        signal.signal(number, action)


@pytest.fixture
def supervise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], int]]:
    """Runs a shell line under supervision, used by one user: us."""
    (tmp_path / "users.lock").touch()
    pipe = SimpleNamespace(buffer=io.BytesIO(b'{"MARK": "seen"}'))
    monkeypatch.setattr(sys, "stdin", pipe)
    monkeypatch.chdir(tmp_path)
    with (
        (tmp_path / "life.lock").open("ab") as life,
        (tmp_path / "users.lock").open("rb") as user,
    ):
        fcntl.flock(user, fcntl.LOCK_SH)

        def run(line: str) -> int:
            command = ["/bin/sh", "-c", line]
            fixed = ["users.lock", str(life.fileno()), "[1]"]
            return supervisor.main([*fixed, *command])

        run.user = user  # type: ignore[attr-defined]
        yield run


def _once(path: Path, deed: Callable[[], object]) -> threading.Thread:
    """Does something as soon as a file exists, that is, once the server runs."""

    def wait() -> None:
        while not path.exists():
            time.sleep(0.01)
        deed()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_server_that_nobody_uses_is_ended(
    supervise: Callable[[str], int], tmp_path: Path
) -> None:
    user = supervise.user  # type: ignore[attr-defined]
    leaving = _once(tmp_path / "up", lambda: fcntl.flock(user, fcntl.LOCK_UN))
    assert supervise("env > up; exec sleep 60") == 0
    leaving.join()
    seen = (tmp_path / "up").read_text().split()
    assert "MARK=seen" in seen
    assert not any(word.startswith("HOME=") for word in seen)


def test_a_server_that_dies_is_started_again_until_it_is_hopeless(
    supervise: Callable[[str], int], tmp_path: Path
) -> None:
    assert supervise("echo start >> log; exit 1") == 1
    assert (tmp_path / "log").read_text().split() == ["start"] * 4


def test_a_terminated_supervisor_ends_its_server(
    supervise: Callable[[str], int], tmp_path: Path
) -> None:
    asking = _once(tmp_path / "up", lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert (
        supervise(
            "trap 'touch ended; exit' TERM; touch up; while :; do sleep .05; done"
        )
        == 0
    )
    asking.join()
    assert (tmp_path / "ended").exists()


def test_a_server_that_does_not_listen_is_killed(
    supervise: Callable[[str], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_GRACE", 0.2)
    leaving = _once(tmp_path / "up", lambda: os.kill(os.getpid(), signal.SIGTERM))
    line = "trap '' TERM; echo $$ > pid; touch up; while :; do sleep .05; done"
    assert supervise(line) == 0
    leaving.join()
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_sockets_of_a_killed_server_are_removed(
    supervise: Callable[[str], int],
) -> None:
    socket = Path("/tmp/seaweedfs-test-1.sock")
    socket.touch()
    supervise("exit 1")
    assert not socket.exists()
