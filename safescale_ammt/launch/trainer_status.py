"""Trainer status: what rank 0 reports to Kubeflow Trainer of its progress.

From Trainer 2.2 on, with the alpha gate `TrainJobStatus`, the controller puts an
address, a CA and a token into the train pods; what is posted there stands in the
TrainJob's `status.trainerStatus`, where `kubectl` and the stage read it. Without
the gate nothing is set, and nothing is sent. Reports are a courtesy: whatever goes
wrong, training goes on.
"""

from __future__ import annotations

import json
import os
import ssl
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
# Seconds; training waits for each report, so it is short.
_TIMEOUT = 2.0


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

    def __post_init__(self) -> None:
        """Starts the clock."""
        self._start = self.clock()

    @classmethod
    def from_environ(
        cls, steps: int, environ: Mapping[str, str] = os.environ
    ) -> TrainerStatus:
        """Reads where to report to; nowhere if Trainer does not say."""
        return cls(
            steps, environ.get(URL, ""), environ.get(CA, ""), environ.get(TOKEN, "")
        )

    def note(self, event: Mapping[str, Any]) -> bool:
        """Reports a training event if one is due; returns whether it arrived."""
        kind, step = event.get("event"), event.get("step")
        if not self.url or not isinstance(step, int):
            return False
        due = self._last is None or self.clock() - self._last >= self.every
        # The end is always reported, or the last percentage would stay below 100.
        if kind != "end" and not (due and kind == "round"):
            return False
        self._last = self.clock()
        fraction = min(1.0, step / max(1, self.steps))
        elapsed = self._last - self._start
        remaining = round(elapsed / fraction - elapsed) if fraction else None
        violations = event.get("violation") or {}
        status = {
            "progressPercentage": int(100 * fraction),
            **({} if remaining is None else {"estimatedRemainingSeconds": remaining}),
            "lastUpdatedTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "metrics": [{"name": "step", "value": str(step)}]
            + [
                {"name": f"violation {name}", "value": f"{value:+.4f}"}
                for name, value in violations.items()
            ],
        }
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
