"""Logs of containers: lines with the time at which they were written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime


def spell(nanoseconds: int) -> str:
    """Writes a time as a kubelet does: nine digits of a second, UTC."""
    seconds, rest = divmod(nanoseconds, 10**9)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{rest:09d}Z"


@dataclass
class PodLog:
    """The lines of one pod's container; `closed` once it has ended."""

    lines: list[tuple[int, str]] = field(default_factory=list)
    closed: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def write(self, line: str, at: int | None = None) -> None:
        """Adds a line, written now or at a time in nanoseconds."""
        with self.changed:
            self.lines.append((time.time_ns() if at is None else at, line))
            self.changed.notify_all()

    def close(self) -> None:
        """The container has ended."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def read(
        self, since: int, follow: bool, stop: threading.Event
    ) -> Iterator[tuple[int, str] | None]:
        """Yields lines written at `since` or later; None while nothing comes."""
        at = 0
        while not stop.is_set():
            with self.changed:
                fresh, closed = self.lines[at:], self.closed
                if not fresh and follow and not closed:
                    self.changed.wait(0.05)
            yield from (line for line in fresh if line[0] >= since)
            at += len(fresh)
            if not fresh:
                if closed or not follow:
                    return
                yield None
