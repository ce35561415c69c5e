"""Signals as errors: a command that is interrupted ends with a sentence and a code."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from safescale_ammt.errors import Interrupted

# From whoever stops a service, from the keyboard, from a terminal that closes.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interruptions:
    """Turns signals into `Interrupted`, or forwards them to a child while one runs."""

    def __init__(self) -> None:
        self.received: int = 0
        self.forward: Callable[[int], None] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruptions:
        for signum in _SIGNALS:
            # What was ignored from the start (nohup) stays ignored.
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for signum, before in self._before.items():
            signal.signal(signum, before)

    @property
    def sentence(self) -> str:
        """Says which signal came."""
        name = signal.Signals(self.received).name
        return f"The run was stopped by {name}; run it again to go on from there."

    def check(self) -> None:
        """Raises again for a signal whose error somebody else has caught.

        Raises:
            Interrupted: a signal came.
        """
        # A handler may raise in the middle of an import, and a library that only tries
        # that import takes it for a package that is not there.
        if self.received:
            raise Interrupted(self.sentence)

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        self.received = signum
        if self.forward is None:
            raise Interrupted(self.sentence)
        # Whatever came, the child gets the one signal that all its stages handle: a
        # process started in the background ignores SIGINT.
        self.forward(signal.SIGTERM)
