"""Scalars: the numbers of a training's events, for whoever draws or watches them.

    TensorBoard   `safescale runs tensorboard`, from the log of a finished training
    Prometheus    `PrometheusFile`, while it trains: a file for node exporter's textfile
                  collector, which `SAFESCALE_PROMETHEUS` names
    live progress `Tally.words`, beside the spinner

All of them read events of the log, which are some fifty in a thousand steps, and none
of them a net: the training loop knows nothing of it. An event holds figures of groups
and no value of a row, and so do its scalars.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

PROMETHEUS = "SAFESCALE_PROMETHEUS"
"""Variable that names a file for the metrics of a training; unset is nowhere."""
PREFIX = "safescale_training_"
_LEAST_SECONDS = 1.0
"""Between two writings of the file; Prometheus asks every fifteen or so."""
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_MEANINGS = {
    "step": "Steps of each net, or rounds of each booster, so far.",
    "steps_per_second": "Steps of all nets together, by the wall clock.",
    "loss": "Mean loss since the last round, of the agents or the twin.",
    "accuracy": "Mean accuracy on validation, of the agents or the twin.",
    "violation": "Pooled gap on held-out rows minus its tau; below 0 it is kept.",
    "multiplier": "Multiplier of an ordered pair of groups.",
    "agents": "Agents in all, with a loss that is finite, and that may teach.",
    "fresh_gap": "Gap on fresh rows since the last alarm.",
    "fresh_rows": "Rows of split monitor that were answered.",
    "wealth": "Of the bets that a promise is broken; an alarm at 1 / alpha.",
    "alarms": "Alarms of the monitor.",
    "corrections": "Rungs of the ladder that were taken.",
}


class Scalar(NamedTuple):
    """One number.

    Attributes:
        name: key of the meanings above.
        of: what it is of, by name; as labels.
        value: finite, as all that the log holds.
    """

    name: str
    of: Mapping[str, str]
    value: float

    @property
    def tag(self) -> str:
        """The name as TensorBoard groups it."""
        return "/".join((self.name, *self.of.values()))


def scalars(event: Mapping[str, Any]) -> Iterator[Scalar]:
    """Yields the numbers of an event; none of most events."""
    kind = event["event"]
    if kind == "round":
        k = len(event["loss"])
        yield from means("loss", [*event["loss"], *event["twin_loss"]], k)
        yield from means("accuracy", event.get("accuracy", []), k)
        for principle, value in event["violation"].items():
            yield Scalar("violation", {"principle": principle}, value)
        for principle, pairs in event["multiplier"].items():
            for pair, value in pairs.items():
                yield Scalar(
                    "multiplier", {"principle": principle, "pair": pair}, value
                )
        alive = sum(loss is not None for loss in event["loss"])
        states = {"all": k, "alive": alive, "teaching": sum(event["teaches"])}
        for state, count in states.items():
            yield Scalar("agents", {"state": state}, count)
    elif kind in {"monitor", "alarm"}:
        yield Scalar("wealth", {}, event["wealth"])
        yield Scalar("fresh_rows", {}, event["rows"])
        for principle, value in event["gap"].items():
            yield Scalar("fresh_gap", {"principle": principle}, value)
    elif kind == "trunk":
        yield from means("loss", event["loss"], 1)


def means(name: str, values: Sequence[float | None], agents: int) -> Iterator[Scalar]:
    """Yields the means over the agents and over the twin that are known."""
    for nets, part in (("agents", values[:agents]), ("twin", values[agents:])):
        known = [value for value in part if value is not None]
        if known:
            yield Scalar(name, {"nets": nets}, sum(known) / len(known))


class Tally:
    """The newest scalar of each name and label, and what only a sequence tells."""

    def __init__(self) -> None:
        self.newest: dict[tuple[str, ...], Scalar] = {}
        self._from: tuple[float, float] | None = None
        self._counts = {"alarms": 0, "corrections": 0}

    def add(self, event: Mapping[str, Any], seconds: float) -> list[Scalar]:
        """Returns the scalars of an event, counts and speed with them.

        Args:
            event: of the log.
            seconds: since the start, when it happened.
        """
        found = list(scalars(event))
        kind = f"{event['event']}s"
        if kind in self._counts:
            self._counts[kind] += 1
            found.append(Scalar(kind, {}, self._counts[kind]))
        if "step" in event:
            found.append(Scalar("step", {}, event["step"]))
            before = self.newest.get(("step",))
            # The steps before were another process's, or those of fewer agents.
            if kind == "resumeds" or (before and event["step"] < before.value):
                self._from = None
                self.newest.pop(("steps_per_second",), None)
            # Before the first step the rows were read: that is no step's time.
            first, since = self._from = self._from or (event["step"], seconds)
            if event["step"] > first and seconds > since:
                speed = (event["step"] - first) / (seconds - since)
                found.append(Scalar("steps_per_second", {}, speed))
        self.newest.update({(s.name, *s.of.values()): s for s in found})
        return found

    def counts(self) -> list[Scalar]:
        """Returns what is counted, from 0 on."""
        return [Scalar(name, {}, count) for name, count in self._counts.items()]

    def words(self) -> str:
        """Returns accuracy, worst violation, multiplier, agents and speed in words."""
        largest: dict[str, float] = {}
        for scalar in self.newest.values():
            if scalar.of.get("nets") != "twin":
                before = largest.get(scalar.name, scalar.value)
                largest[scalar.name] = max(before, scalar.value)
        forms = {
            "accuracy": "accuracy {:.3f}",
            "violation": "violation {:+.3f}",
            "multiplier": "multiplier {:.3f}",
            "steps_per_second": "{:.0f} steps/s",
        }
        told = [form.format(largest[n]) for n, form in forms.items() if n in largest]
        alive = self.newest.get(("agents", "alive"))
        if alive:
            told.append(f"{alive.value:g} of {largest['agents']:g} agents")
        return ", ".join(told)


class PrometheusFile:
    """The newest scalars as a file in Prometheus' text format.

    Written aside and renamed, so that whoever reads it never sees half of it, at most
    once a second and at the end. A disk that fails ends the file, and not the training.

    Args:
        path: the file, which the collector reads if it ends in `.prom`; None is
            nowhere.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._written_at = path, -_LEAST_SECONDS

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> PrometheusFile:
        """Returns the file that the environment names, or nowhere."""
        path = environ.get(PROMETHEUS)
        return cls(Path(path) if path else None)

    def write(self, tally: Tally, seconds: float) -> None:
        """Writes the newest scalars, unless it did so just now.

        Args:
            tally: holds them.
            seconds: since the start; infinite at the end.
        """
        if self._path is None or seconds - self._written_at < _LEAST_SECONDS:
            return
        self._written_at = seconds
        aside = Path(f"{self._path}.{os.getpid()}")
        try:
            aside.write_text(exposition(tally), encoding="utf-8")
            aside.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            print(f"No more metrics for Prometheus: {error.strerror}.", flush=True)
            self._path = None


def exposition(tally: Tally) -> str:
    """Returns the newest scalars in Prometheus' text format, version 0.0.4."""
    lines = []
    # Who asks for a rise needs the 0 before it.
    every = [*tally.counts(), *tally.newest.values()]
    for name, meaning in _MEANINGS.items():
        full = PREFIX + name
        of_name = list({s.tag: s for s in every if s.name == name}.values())
        if of_name:
            lines += [f"# HELP {full} {meaning}", f"# TYPE {full} gauge"]
        for scalar in of_name:
            of = {k: v.translate(_ESCAPES) for k, v in scalar.of.items()}
            labels = ",".join(f'{k}="{v}"' for k, v in of.items())
            lines.append(full + (f"{{{labels}}}" if of else "") + f" {scalar.value!r}")
    return "\n".join([*lines, ""])
