"""What a person sees while a run goes on: one line per event.

On a terminal the running stage has a spinner, a clock and how far it is
(`live_progress`); elsewhere (CI, a pipe) each event is one plain line that bears the
run's id, and a stage that takes long says now and then how far it is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from safescale_ammt.printable import printable

QUARTER_AFTER, SILENCE = 5.0, 30.0
"""Least seconds from a plain line to the one of the next quarter, and to any other."""


class Progress:
    """Shows a run's events as plain lines; see `progress_choice`.

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
