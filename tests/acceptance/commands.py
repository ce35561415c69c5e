"""Commands of the product: processes whose lines are read while they run."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Done:
    """A command that has ended.

    Attributes:
        code: its exit code.
        out, err: what it printed.
        seconds: from start to end.
    """

    code: int
    out: str
    err: str
    seconds: float

    @property
    def last(self) -> str:
        """The last line for people: of stderr where it failed, else of stdout."""
        lines = (self.err if self.code else self.out).strip().splitlines()
        return lines[-1] if lines else ""

    @property
    def said(self) -> str:
        """All that it printed."""
        return f"{self.out}\n{self.err}"


class Command:
    """A command that goes on."""

    def __init__(
        self, arguments: Sequence[str], *, folder: Path, environ: Mapping[str, str]
    ) -> None:
        self.arguments = arguments
        self.begun = time.monotonic()
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        self._process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=dict(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout
        assert self._process.stderr
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in (
                ("out", self._process.stdout),
                ("err", self._process.stderr),
            )
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, which: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self._lines[which].append(line)

    @property
    def said(self) -> str:
        """All that it has printed so far."""
        return "".join([*self._lines["out"], *self._lines["err"]])

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None

    def end(self, timeout: float) -> Done:
        """Waits for its end.

        Raises:
            AssertionError: it goes on after this time; it is killed.
        """
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            shown = " ".join(self.arguments[2:4])
            last = self.said.strip().splitlines()[-1:]
            raise AssertionError(
                f"`{shown}` goes on after {timeout:g} s; its last line: {last}"
            ) from None
        for reader in self._readers:
            reader.join()
        seconds = time.monotonic() - self.begun
        return Done(
            code, "".join(self._lines["out"]), "".join(self._lines["err"]), seconds
        )

    def kill(self) -> None:
        """Ends it at once; nothing if it has ended."""
        if self.running:
            self._process.kill()
            self._process.wait()
