"""What a person sees while a run goes on: a live line, or one line per event.

On a terminal the running stage has a spinner, a clock and how far it is; elsewhere
(CI, a pipe) each event is one plain line that bears the run's id, and a stage that
takes long says now and then how far it is.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from safescale_ammt.printable import printable

QUARTER_AFTER, SILENCE = 5.0, 30.0
"""Least seconds from a plain line to the one of the next quarter, and to any other."""


class Progress:
    """Shows a run's events as plain lines; see `progress_for`.

    Args:
        run: the run's id.
        clock: returns seconds.
    """

    def __init__(self, run: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.run = run
        self.stage = ""
        self._clock = clock
        self._quarters, self._shown_at = 0, 0.0
        self._news: tuple[float, str] | None = None  # of the running stage

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
        print(f"[{self.run}] {printable(text)}", file=sys.stderr, flush=True)

    def begin(self, text: str) -> None:
        """Shows what has begun and will take a while."""
        self.say(text)

    def close(self) -> None:
        """Ends what `begin` began."""

    def advance(self, share: float, text: str) -> None:
        """Shows how far the running stage is, if that is worth a line.

        Args:
            share: of its work, 0 to 1.
            text: the same in words; "" = it said nothing yet.
        """
        now, quarters = self._clock(), int(4 * share)
        wait = QUARTER_AFTER if quarters > self._quarters else SILENCE
        # The end has a line of its own.
        if share < 1 and now - self._shown_at >= wait:
            self._quarters, self._shown_at = quarters, now
            self.say(f"{self.stage} {share:.0%}, {text or 'at work'}")

    def event(self, event: dict[str, Any]) -> None:
        """Shows an event of the child (see `pipelines.local.child`)."""
        if event["event"] == "started":
            self.stage = event["stage"]
            self._quarters, self._shown_at = 0, self._clock()
            self._news = 0.0, ""
            self.begin(f"{self.stage} ...")
        elif event["event"] == "progress":
            self._news = event["share"], event["text"]
            self.advance(*self._news)
        elif event["event"] == "tick" and self._news:
            self.advance(*self._news)
        elif event["event"] == "finished":
            self._news = None
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
        self.console.print(self._line(text), highlight=False, soft_wrap=True)

    def begin(self, text: str) -> None:
        """Starts spinner and clock."""
        self.close()
        columns = (SpinnerColumn(), TextColumn("{task.description}"))
        self.bar = Bar(
            *columns, TimeElapsedColumn(), console=self.console, transient=True
        )
        self.bar.add_task(self._line(text), total=None)
        self.bar.start()

    def advance(self, share: float, text: str) -> None:
        """Writes beside the spinner how far the stage is."""
        if self.bar is not None and text:
            line = self._line(f"{self.stage} {share:.0%}, {text}")
            self.bar.update(self.bar.task_ids[0], description=line)

    def close(self) -> None:
        """Takes them away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _line(self, text: str) -> str:
        # Unescaped, a folder's name with brackets is a style that rich applies or,
        # where it knows none, fails on.
        return f"[dim]{escape(self.run)}[/] {escape(printable(text))}"


def progress_for(run: str) -> Progress:
    """Returns the live form on a terminal, the plain one in CI or a pipe."""
    console = Console(stderr=True)
    # A CI may give its jobs a terminal, and keeps each frame of a spinner as a line.
    if console.is_terminal and not os.environ.get("CI"):
        return LiveProgress(run, console)
    return Progress(run)
