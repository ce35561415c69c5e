"""A thread of a test that dies ends the test, whatever that waits for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import thread_deaths
from patience import PATIENCE


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the hook before was told: pytest's own would fail the test."""
    found: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", found.append)
    return found


def breaks() -> None:
    time.sleep(0.05)
    raise RuntimeError("what it died of")


WAITS: dict[str, Callable[[], object]] = {
    "an event": lambda: threading.Event().wait(PATIENCE),
    "a time": lambda: time.sleep(PATIENCE),
    "a process": lambda: subprocess.run(
        [sys.executable, "-c", f"import time; time.sleep({PATIENCE})"], check=False
    ),
}


@pytest.mark.parametrize("wait", WAITS)
def test_who_waits_for_a_thread_that_dies_waits_no_longer(
    told: list[Any], wait: str
) -> None:
    def attempt() -> None:
        with thread_deaths.end_the_test():
            threading.Thread(target=breaks, name="watcher").start()
            WAITS[wait]()

    begun = time.monotonic()
    with pytest.raises(AssertionError, match="watcher died: RuntimeError: what it"):
        attempt()
    assert time.monotonic() - begun < PATIENCE / 2
    assert len(told) == 1


def test_a_thread_that_ends_well_interrupts_nobody(told: list[Any]) -> None:
    with thread_deaths.end_the_test():
        thread = threading.Thread(target=time.sleep, args=(0.01,))
        thread.start()
        thread.join()
    assert told == []


def test_afterwards_all_is_as_before(told: list[Any]) -> None:
    before = threading.excepthook
    with thread_deaths.end_the_test():
        assert threading.excepthook is not before
    assert threading.excepthook is before
