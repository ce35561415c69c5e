"""Forked processes: they begin as started ones do, and end with a code of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.local.forked import possible, safe

pytestmark = pytest.mark.skipif(not possible(), reason="Nothing is forked here.")

ROOT = Path(__file__).parents[2]
HEAD = """
import os, signal, sys, threading, time
from pathlib import Path
from safescale_ammt.library_imports import spare_imports
spare_imports()
from pipelines.local.forked import Forked, fork, safe
nothing = os.open(os.devnull, os.O_RDONLY)
"""


def said(code: str) -> list[str]:
    """Runs code in a program of ours; returns the lines that it and forks print."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_program_of_others_and_one_with_threads_are_not_forked() -> None:
    assert not safe()  # pytest is no program of ours
    lines = said(
        "print(safe())\n"
        "wait = threading.Event()\n"
        "threading.Thread(target=wait.wait).start()\n"
        "print(safe())\n"
        "wait.set()"
    )
    assert lines == ["True", "False"]


def test_a_fork_has_its_own_files_signals_session_and_name() -> None:
    lines = said(
        "before = open('/dev/null')\n"
        "signal.signal(signal.SIGTERM, lambda *_: None)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "kept = os.dup(nothing)\n"
        "def main():\n"
        "    files = {int(p.name) for p in Path('/proc/self/fd').iterdir()}\n"
        "    print(before.fileno() in files, kept in files, sys.stdin.read() == '')\n"
        "    print(signal.getsignal(15) == signal.SIG_DFL,\n"
        "          signal.getsignal(2) == signal.SIG_IGN)\n"
        "    print(os.getsid(0) == os.getpid(), signal.pthread_sigmask(0, []))\n"
        "    print(Path('/proc/self/comm').read_text().strip())\n"
        "    return 0\n"
        "print('above')\n"
        "one = fork(main, 'a-name', (nothing, 1, 2), {kept}, new_session=True)\n"
        "one.wait()\n"
        "print(callable(signal.getsignal(15)), before.read() == '')"
    )
    assert lines == [
        *("above", "False True True", "True True", "True set()", "a-name"),
        "True True",
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return 0", 0),
        ("return 3", 3),
        ("raise ValueError", 1),
        ("raise SystemExit(0)", 1),
        ("os.kill(os.getpid(), 15)\n    time.sleep(60)", -15),
    ],
)
def test_a_fork_ends_with_the_code_of_its_program(body: str, code: int) -> None:
    lines = said(
        f"def main():\n    {body}\n"
        "one = fork(main, 'a-name', (nothing, 1, 2))\n"
        "print(one.wait(), one.poll(), one.returncode)"
    )
    assert lines == [f"{code} {code} {code}"]


def test_a_fork_that_goes_on_is_killed_once_and_what_it_said_was_said() -> None:
    lines = said(
        "def main():\n"
        "    sys.stdout.write('up ')\n"
        "    os.write(told, b'.')\n"
        "    time.sleep(600)\n"
        "heard, told = os.pipe()\n"
        "one = fork(main, 'a-name', (nothing, 1, 2), {told})\n"
        "os.read(heard, 1)\n"
        "print(one.poll())\n"
        "one.kill()\n"
        "one.wait()\n"
        "one.kill()\n"
        "print(one.returncode)"
    )
    assert lines == ["up None", "-9"]
