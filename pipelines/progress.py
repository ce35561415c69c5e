"""What a person sees while a run goes on: a live line, or one line per event.

On a terminal the running stage has a spinner and a clock; elsewhere (CI, a pipe)
each event is one plain line that bears the run's id.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn


class Progress:
    """Shows a run's events as plain lines; see `progress_for`."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.stage = ""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def say(self, text: str) -> None:
        """Shows one line."""
        # Standard output is for the command's result alone, so that it can be piped.
        print(f"[{self.run}] {text}", file=sys.stderr, flush=True)

    def begin(self, text: str) -> None:
        """Shows what has begun and will take a while."""
        self.say(text)

    def close(self) -> None:
        """Ends what `begin` began."""

    def event(self, event: dict[str, Any]) -> None:
        """Shows an event of the child (see `pipelines.local.child`)."""
        if event["event"] == "started":
            self.stage = event["stage"]
            self.begin(f"{self.stage} ...")
        elif event["event"] == "finished":
            self.close()
            how = "from the cache" if event["cached"] else f"{event['seconds']:.1f} s"
            self.say(f"{self.stage} done ({how})")
        elif event["event"] == "failed":
            self.close()
            self.say(f"{self.stage or 'run'} failed (exit code {event['code']})")


class LiveProgress(Progress):
    """Shows a run on a terminal, with a spinner beside the running stage."""

    def __init__(self, run: str, console: Console) -> None:
        super().__init__(run)
        self.console = console
        self.bar: Bar | None = None

    def say(self, text: str) -> None:
        """Shows one line above the spinner."""
        self.console.print(self._line(text), highlight=False)

    def begin(self, text: str) -> None:
        """Starts spinner and clock."""
        self.close()
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        self.bar = Bar(
            *columns, TimeElapsedColumn(), console=self.console, transient=True
        )
        self.bar.add_task(self._line(text), total=None)
        self.bar.start()

    def close(self) -> None:
        """Takes them away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _line(self, text: str) -> str:
        # Unescaped, a folder's name with brackets is a style that rich applies or,
        # where it knows none, fails on.
        return f"[dim]{escape(self.run)}[/] {escape(text)}"


def progress_for(run: str) -> Progress:
    """Returns the live form on a terminal, the plain one in CI or a pipe."""
    console = Console(stderr=True)
    # A CI may give its jobs a terminal, and keeps each frame of a spinner as a line.
    if console.is_terminal and not os.environ.get("CI"):
        return LiveProgress(run, console)
    return Progress(run)
