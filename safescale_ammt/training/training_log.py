"""The training log, and what a stage shows of a model by it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safescale_ammt.errors import IntegrityError
from safescale_ammt.files.artifacts import verify
from safescale_ammt.files.canonical import read_json_lines
from safescale_ammt.stage_progress import say_progress
from safescale_ammt.training.scalars import PrometheusFile, Tally

LOG = "training.jsonl"
Log = Callable[[dict[str, Any]], None]
"""Receives the events of a training, JSON mappings, as they happen."""

_PRINT_EVERY = 10
"""Rounds per round that is printed."""
_TELL_EVERY = 0.25
"""Least seconds between two lines of progress, which cost a step or two."""
_ALARMS = ("alarm", "correction", "escalated")
_SENTENCES = {
    "left_out": "{reason}",
    "unapplied": "{reason}",
    "tuning": "{reason}",
    "budget": "{reason}",
    "batch": "{reason}",
    "budget_spent": "{reason}",
    "agents": "{reason}",
    "more_agents": "{reason}",
    "alarm": "{reason}",
    "correction": "{reason}",
    "escalated": "{reason}",
    "stopped": "{reason}",
    "merge": "Merged into one model: {choice}.",
    "doubt": "{reason}",
    "resumed": "Went on from the checkpoint before step {step}.",
    "checkpoint_ignored": "Ignored a checkpoint: {reason}",
    "checkpoint_failed": "Went on without a checkpoint: {reason}",
    "checkpoint_left": "An old checkpoint stays: {reason}",
}


def discard(event: Mapping[str, Any]) -> None:
    """Logs nothing: rank 0 does for all processes, and a trial needs no log."""
    del event


class TrainingLog:
    """The training log: one JSON line per event, with its seconds since the start.

    It is written as events happen and is no part of the model's identity. Every
    tenth round and everything rare is also printed, and how far the steps are. Its
    numbers go to Prometheus where the environment names a file (`scalars`).

    Args:
        path: the file.
        note: receives every event too.
    """

    def __init__(
        self, path: Path, note: Callable[[Mapping[str, Any]], object] | None = None
    ) -> None:
        self._note = note
        self._steps = 0  # until the plan says how many
        self._told_at = -_TELL_EVERY
        self._file = path.open("w", encoding="utf-8")
        self._start = time.perf_counter()
        self._rounds = 0
        self._tally, self._prometheus = Tally(), PrometheusFile.from_environ()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._prometheus.write(self._tally, math.inf)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return round(time.perf_counter() - self._start, 3)

    def write(self, event: Mapping[str, Any]) -> None:
        """Writes one event."""
        seconds = self.seconds
        # NaN is no JSON: better an error here than a log that nothing can read.
        line = json.dumps({**event, "seconds": seconds}, allow_nan=False)
        self._file.write(line + "\n")
        if self._note is not None:
            self._note(event)
        kind = event["event"]
        sentence = _SENTENCES.get(kind, "").format(**event)
        if kind == "round":
            self._rounds += 1
            if self._rounds % _PRINT_EVERY == 1:
                gaps = "; ".join(f"{n} {v:+.3f}" for n, v in event["violation"].items())
                sentence = (
                    f"Step {event['step']}: violations {gaps or 'none enforced'}."
                )
        self._tally.add(event, seconds)
        self._prometheus.write(self._tally, seconds)
        # A budget or another batch says anew how many there are.
        if kind in ("plan", "budget", "batch"):
            self._steps = event["steps"]
        step = event.get("step")
        if step is not None and seconds - self._told_at >= _TELL_EVERY:
            self._told_at = seconds
            words = f"step {step} of {self._steps}, {self._tally.words()}"
            say_progress(step, self._steps, words.removesuffix(", "))
        if sentence:
            # Flushed: people follow the log of a pod while it trains.
            print(f"{sentence} [{seconds:.1f} s]", flush=True)


def only(kind: str, log: Log) -> Log:
    """Returns a log that hands on the events of one kind alone."""

    def take(event: dict[str, Any]) -> None:
        if event["event"] == kind:
            log(event)

    return take


def steps_left(events: Sequence[Mapping[str, Any]]) -> int:
    """Returns how many of its steps the last trunk has left out (`branching`)."""
    left = [event["left"] for event in events if event["event"] == "branch"]
    return left[-1] if left else 0


def summary(model: Path | str, parents: Mapping[str, str]) -> dict[str, Any]:
    """Returns what a stage shows of a model artifact that was trained anywhere.

    Args:
        model: the artifact.
        parents: identities of what it must have been trained on.

    Raises:
        IntegrityError: a byte was changed, or it was trained on other artifacts.
    """
    manifest = verify(model, "model")
    if dict(manifest.parents) != dict(parents):
        raise IntegrityError(
            f"The model at {model} was trained on other artifacts than train_agents "
            "was given; train again."
        )
    events = read_json_lines(Path(model) / LOG)
    merged = next(e for e in events if e["event"] == "merge")
    return {
        "model": manifest.identity,
        "form": merged["choice"],
        "members": merged["members"],
        "feasible": merged["feasible"],
        # An agent that took over is no form, and has no score of its own.
        "accuracy": merged["scores"].get(merged["choice"], {}).get("accuracy"),
        "doubts": merged["doubts"],
        "steps": events[-1]["step"] - steps_left(events),
        "agents": events[-1]["agents"],
        # How it was decided that they are enough; nothing where the section says so.
        "decided": [e["reason"] for e in events if "agents" in e["event"]],
        "left_out": [e["reason"] for e in events if e["event"] == "left_out"],
        "alarms": [e["reason"] for e in events if e["event"] in _ALARMS],
        "metrics": metrics_of(events),
    }


def metrics_of(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns what a pipeline's page lists of a training: finite floats by name.

    Args:
        events: the training log.
    """
    tally = Tally()
    for event in events:
        tally.add(event, event["seconds"])
    merged = next(e for e in events if e["event"] == "merge")
    accuracy = merged["scores"].get(merged["choice"], {}).get("accuracy")
    found = {s.tag: s.value for s in tally.newest.values()}
    found |= {"feasible": merged["feasible"], "members": merged["members"]}
    if accuracy is not None:
        found["accuracy/select"] = accuracy
    # KFP's page shows numbers alone, and takes an int for another number than it is.
    return {name: float(value) for name, value in found.items()}
