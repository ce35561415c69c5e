"""Following a run to its end, through outages, and saying how it ended.

KFP's API holds a task's state but neither its sentence nor its exit code: a
refusal and a crash look the same there. The gate's own outcome record in the
object store tells them apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipelines.kubeflow.answers import Unreachable
from pipelines.kubeflow.api import Kubeflow
from pipelines.progress import Progress
from safescale_ammt.errors import SafescaleError, StorageError
from safescale_ammt.execution import error_of
from safescale_ammt.releasing.run_outcome import CRASHED, RunOutcome
from safescale_ammt.store.uri import open_store

SUCCEEDED = "SUCCEEDED"
ENDED = (SUCCEEDED, "FAILED", "CANCELED", "SKIPPED")
GATE = "register-model"
_LATE = 10.0  # seconds that a record may come after the run's end was reported
_WORDS = {
    "RUNNING": "...",
    SUCCEEDED: "done",
    "FAILED": "failed",
    "SKIPPED": "skipped",
    "CANCELED": "stopped",
    "CANCELING": "is being stopped",
}


@dataclass
class RunFollower:
    """What a person has seen of a run so far.

    Attributes:
        progress: where it is shown.
        titles: task name -> title; other tasks are KFP's own helpers.
        states: task name -> the state that was shown last.
        away_since: when the API went away; 0 = it is there.
    """

    progress: Progress
    titles: Mapping[str, str]
    states: dict[str, str] = field(default_factory=dict)
    away_since: float = 0.0

    def show(self, run: Any) -> None:
        """Shows what changed since the last look."""
        if self.away_since:
            seconds = time.monotonic() - self.away_since
            self.progress.say(f"the API is back after {seconds:.0f} s")
            self.away_since = 0.0
        states = task_states(run)
        for name, title in self.titles.items():
            state = states.get(name, "")
            # A state that is no news, such as PENDING, has no word and is passed over.
            if state not in _WORDS or state == self.states.get(name):
                continue
            self.states[name] = state
            text = f"{title} {_WORDS[state]}"
            if state == "RUNNING":
                self.progress.begin(text)
            else:
                self.progress.close()
                self.progress.say(text)

    def show_outage(self, error: Unreachable) -> None:
        """Says once that the API is away; the run goes on without us."""
        if not self.away_since:
            self.away_since = time.monotonic()
            self.progress.close()
            self.progress.say(f"{str(error).rstrip('.')}; still trying")


def follow(
    kubeflow: Kubeflow,
    run_id: str,
    follower: RunFollower,
    *,
    timeout: float,
    poll: float,
    after_look: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Looks at a run until it has ended.

    Args:
        kubeflow: where it runs.
        run_id: which.
        follower: shows it.
        timeout: seconds until we give up; the run does not.
        poll: seconds between two looks.
        after_look: is called after each look, and may meet an API that is away.
        clock: seconds that only go up.

    Returns:
        The run as the API shows it at its end.

    Raises:
        SafescaleError: the time is up.
        InputError: no such run, or we may not see it.
    """
    end = clock() + timeout
    while True:
        try:
            # Once: this loop is the retry, and shows that the API is away. A run takes
            # hours, so an outage ends the following only with its timeout.
            run = kubeflow.call_once(
                f"looking at run {run_id}",
                kubeflow.runs.run_service_get_run,
                run_id=run_id,
            )
        except Unreachable as error:
            follower.show_outage(error)
        else:
            follower.show(run)
            with suppress(Unreachable):
                after_look()
            if run.state in ENDED:
                return run
        if clock() + poll > end:
            raise SafescaleError(
                f"Run {run_id} was followed for {timeout:g} s and goes on; "
                f"{follow_hint(run_id)}"
            )
        time.sleep(poll)


def task_states(run: Any) -> dict[str, str]:
    """Returns task name -> state; of equal names the last one's."""
    details = run.run_details.task_details if run.run_details else None
    states: dict[str, str] = {}
    for task in details or ():
        states[str(task.display_name)] = str(task.state or "")
    return states


def follow_hint(run_id: str) -> str:
    """Says how to come back to a run."""
    return f"`safescale submit --follow {run_id}` comes back to it."


@dataclass(frozen=True)
class GateRecord:
    """What the gate itself says of a run.

    Attributes:
        outcome: what it wrote; None if it wrote nothing, or the store is out of reach.
        unreadable: why the store is out of reach; "" if it was read.
    """

    outcome: RunOutcome | None = None
    unreadable: str = ""


def read_record(
    uri: str, run: Any, environ: Mapping[str, str] = os.environ
) -> GateRecord:
    """Reads what the gate of a run that has ended wrote.

    Args:
        uri: of the store of data and ledger; "" = not known here.
        run: the run as the API shows it; a record that cannot be is not waited for.
        environ: holds the store's keys.

    Raises:
        InputError: what lies there is no outcome.
    """
    if not uri:
        return GateRecord(unreadable="no --store is given")
    states = task_states(run)
    # A server that shows no tasks does not say whether the gate came to its end.
    gate_ended = not states or states.get(GATE) in ENDED
    end = time.monotonic() + (_LATE if gate_ended else 0.0)
    try:
        store = open_store(uri, environ=environ)
        while True:
            outcome = RunOutcome.read(store, str(run.run_id))
            if outcome is not None or time.monotonic() >= end:
                return GateRecord(outcome)
            time.sleep(1.0)
    except StorageError as error:
        # No error of its own: the run has ended, and its state still says something.
        return GateRecord(unreadable=str(error).rstrip("."))


def conclude(run: Any, record: GateRecord, titles: Mapping[str, str]) -> str:
    """Says how a run ended: from its verdict, never from its status alone.

    Returns:
        The sentence of a run that is well.

    Raises:
        Refusal: the gate refused.
        SafescaleError: it broke off, was stopped, or nobody can tell.
    """
    outcome, name = record.outcome, f"Run {run.run_id}"
    # First, since a red run may hold a champion: its exit task alone may have failed.
    # A crash is no word of the gate's.
    if outcome is not None and outcome.status != CRASHED:
        if outcome.exit_code:
            raise error_of(outcome.exit_code, outcome.sentence)
        return outcome.sentence
    if run.state == "CANCELED":
        raise SafescaleError(f"{name} was stopped by somebody.")
    states = task_states(run)
    step = broken_step(states, titles)
    if record.unreadable:
        # A server that shows no tasks leaves the state of the whole.
        if states.get(GATE, "" if states else run.state) == SUCCEEDED:
            return (
                f"{name} passed its gate; what it registered is not known here: "
                f"{record.unreadable}."
            )
        raise SafescaleError(
            f"{name} ended as {run.state}{step}; Kubeflow does not say whether it was "
            f"refused or broke off, and the gate's record is out of reach: "
            f"{record.unreadable}."
        )
    # A gate that ends well always leaves a record, so this store is another one.
    if run.state == SUCCEEDED:
        raise SafescaleError(
            f"{name} succeeded, but its gate left no record in the store; --store must "
            "name the store of secret safescale-store."
        )
    raise SafescaleError(
        f"{name} broke off{step} before its gate had spoken; the log of that step has "
        "the reason in its last line."
    )


def broken_step(states: Mapping[str, str], titles: Mapping[str, str]) -> str:
    """Returns " in ..." with the title of the first step that failed, or ""."""
    for name, title in titles.items():
        # KFP runs a driver before each task; what it cannot resolve fails there, and
        # the task itself never comes.
        if "FAILED" in (states.get(name), states.get(f"{name}-driver")):
            return f" in {title!r}"
    return ""
