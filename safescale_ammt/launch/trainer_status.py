"""Trainer status: what rank 0 reports to Kubeflow Trainer of its progress.

From Trainer 2.2 on, with the alpha gate `TrainJobStatus`, the controller puts an
address, a CA and a token into the train pods; what is posted there stands in the
TrainJob's `status.trainerStatus`, where `kubectl` and the stage read it. Without
the gate nothing is set, and nothing is sent. Reports are a courtesy: whatever goes
wrong, training goes on, and it never waits. A thread of its own sends the newest
report, less and less often to a server that is not reached: behind a network policy
that says nothing of port 10443 each try lasts until its time is up.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

URL = "KUBEFLOW_TRAINER_SERVER_URL"
CA = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"  # noqa: S105  the variable with its path
LONGEST = 64
"""Characters of a metric's name and value (TrainJob's CRD, Trainer 2.2 and 2.3)."""
MOST = 256
"""Metrics of one report."""
_SECONDS = 2**31 - 1  # the field for the seconds left holds 32 bits
_TIMEOUT = 2.0  # seconds
_PAUSE = 300.0  # seconds; the longest between two tries


@dataclass
class TrainerStatus:
    """Sends percent, seconds left and violations, at most every few seconds."""

    steps: int
    """Steps of the whole training."""
    url: str = ""
    """Where to; "" = nowhere."""
    ca: str = ""
    """File of the CA of that server."""
    token: str = ""
    """File of the token; it is renewed there, so it is read each time."""
    every: float = 5.0
    """Least seconds between two reports, as Trainer asks for."""
    clock: Callable[[], float] = time.monotonic
    _start: float = field(init=False)
    _last: float | None = field(init=False, default=None)
    _next: dict[str, Any] | None = field(init=False, default=None)
    _changed: threading.Condition = field(init=False, repr=False)
    _ends: bool = field(init=False, default=False)
    _thread: threading.Thread | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Starts the clock."""
        self._start = self.clock()
        self._changed = threading.Condition()

    @classmethod
    def from_environ(
        cls, steps: int, environ: Mapping[str, str] = os.environ
    ) -> TrainerStatus:
        """Reads where to report to; nowhere if Trainer does not say."""
        return cls(
            steps, environ.get(URL, ""), environ.get(CA, ""), environ.get(TOKEN, "")
        )

    def note(self, event: Mapping[str, Any]) -> bool:
        """Takes a training event; returns whether it is to be reported."""
        kind, step = event.get("event"), event.get("step")
        if kind in ("plan", "budget", "batch"):
            # Epochs, a budget or a batch may be other steps than the section names.
            self.steps = event["steps"]
        if not self.url or not isinstance(step, int):
            return False
        due = self._last is None or self.clock() - self._last >= self.every
        # The end is always reported, or the last percentage would stay below 100.
        if kind != "end" and not (due and kind == "round"):
            return False
        self._last = self.clock()
        with self._changed:
            self._next = self.report(step, event.get("violation") or {})
            self._changed.notify()
            if self._thread is None:
                # A daemon: a server that is silent must not keep a worker alive.
                name = "trainer status"
                self._thread = threading.Thread(None, self.run, name, daemon=True)
                self._thread.start()
        return True

    def report(self, step: int, violations: Mapping[str, float]) -> dict[str, Any]:
        """Returns a report that Trainer's validation takes."""
        fraction = min(1.0, step / max(1, self.steps))
        elapsed = self.clock() - self._start
        left = min(_SECONDS, round(elapsed / fraction - elapsed)) if fraction else None
        metrics = {"step": str(step)} | {
            f"violation {name}": f"{value:+.4f}" for name, value in violations.items()
        }
        return {
            "progressPercentage": int(100 * fraction),
            **({} if left is None else {"estimatedRemainingSeconds": max(0, left)}),
            "lastUpdatedTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "metrics": [
                {"name": shortened(name), "value": value[:LONGEST]}
                for name, value in list(metrics.items())[:MOST]
            ],
        }

    def close(self) -> None:
        """Lets the last report out, if the server is there, and ends."""
        with self._changed:
            self._ends = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(2 * _TIMEOUT)

    def run(self) -> None:
        """Sends what is there to send until it is closed; the thread's body."""
        pause = self.every
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next or self._ends)
                status, self._next = self._next, None
            if status is None:
                return
            if self.send(status):
                pause = self.every
                continue
            with self._changed:
                # A report that comes meanwhile takes the place of this one, and waits.
                self._changed.wait_for(lambda: self._ends, pause)
            pause = min(2 * pause, _PAUSE)

    def send(self, status: Mapping[str, Any]) -> bool:
        """Sends one report; returns whether it arrived and was taken."""
        try:
            token = Path(self.token).read_text(encoding="utf-8").strip()
            request = Request(  # noqa: S310  the URL is the controller's
                self.url,
                json.dumps({"trainerStatus": status}).encode(),
                {
                    "Authorization": f"Bearer {token}",
                    "Content-Type": "application/json",
                },
                method="POST",
            )
            context = ssl.create_default_context(cafile=self.ca) if self.ca else None
            with urlopen(request, timeout=_TIMEOUT, context=context):  # noqa: S310
                return True
        except (URLError, OSError, ValueError):
            return False


def shortened(name: str) -> str:
    """Returns a metric's name in as many characters as Trainer takes."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
