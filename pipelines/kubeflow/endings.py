"""How a run on Kubeflow ended: from the gate's record, the run and its pods.

KFP's API holds a task's state but neither its sentence nor its exit code: a
refusal and a crash look the same there. The gate's own outcome record in the
object store tells them apart.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.cluster_view import log_command
from pipelines.kubeflow.run_state import (
    ENDED,
    EXIT_TASK,
    GATES,
    SUCCEEDED,
    Break,
    attempts,
    find_break,
    gate_state,
    task_states,
    was_stopped,
)
from safescale_ammt.cluster.run_pods import StepEnd
from safescale_ammt.errors import InputError, StorageError
from safescale_ammt.releasing.notice import CANCELLED, PLACES, UNFINISHED, Notice
from safescale_ammt.releasing.run_outcome import CRASHED, REFUSED, RunOutcome
from safescale_ammt.releasing.telling import OFTEN, tell
from safescale_ammt.store.uri import open_store

UNKNOWN = "unknown"
_LATE = 10.0  # seconds that a record may come after the run's end was reported


@dataclass(frozen=True)
class GateRecord:
    """What the gate itself says of a run.

    Attributes:
        outcome: what it wrote; None if it wrote nothing, or the store is out of reach.
        unreadable: why the store is out of reach; "" if it was read.
    """

    outcome: RunOutcome | None = None
    unreadable: str = ""


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        status: as in notices.
        sentence: the same for people.
        code: what the command line returns.
        outcome: the gate's own record, if that is what it says.
        lost: whether the cluster ended it for a reason that may pass.
    """

    status: str
    sentence: str
    code: int
    outcome: RunOutcome | None = None
    lost: bool = False

    def told_of(self, run: str) -> RunOutcome:
        """Returns what a notice of this ending says."""
        if self.outcome is not None:
            return self.outcome
        return RunOutcome.now(run=run, status=self.status, sentence=self.sentence)


def read_record(
    uri: str, run_id: str, wait: bool, environ: Mapping[str, str] = os.environ
) -> GateRecord:
    """Reads what the gate of a run that has ended wrote.

    Args:
        uri: of the store of data and ledger; "" = not known here.
        run_id: the run.
        wait: whether a record may still come.
        environ: holds the store's keys.

    Raises:
        InputError: what lies there is no outcome.
    """
    if not uri:
        return GateRecord(unreadable="no --store is given")
    end = time.monotonic() + (_LATE if wait else 0.0)
    try:
        store = open_store(uri, environ=environ)
        while True:
            outcome = RunOutcome.read(store, run_id)
            if outcome is not None or time.monotonic() >= end:
                return GateRecord(outcome)
            time.sleep(1.0)
    except StorageError as error:
        # No error of its own: the run has ended, and its state still says something.
        return GateRecord(unreadable=str(error).rstrip("."))


def gate_may_speak(run: Any) -> bool:
    """Says whether a record of the gate may still come, after the run's end."""
    states = task_states(run)
    # A server that shows no tasks does not say whether the gate came to its end.
    return not states or gate_state(states) in ENDED


def conclude(
    run: Any,
    record: GateRecord,
    titles: Mapping[str, str],
    *,
    namespace: str,
    look: Callable[[str], StepEnd | None] = lambda _: None,
) -> Ending:
    """Says how a run ended: from its verdict, never from its status alone.

    Args:
        run: as the API shows it at its end.
        record: the gate's.
        titles: task name -> title.
        namespace: where its pods ran, for the command that shows a log.
        look: the end of a pod's name -> how that step ended.
    """
    outcome, name = record.outcome, f"Run {run.run_id}"
    # First, since a red run may hold a champion: its exit task alone may have failed.
    # A crash is no word of the gate's.
    if outcome is not None and outcome.status != CRASHED:
        return Ending(outcome.status, outcome.sentence, outcome.exit_code, outcome)
    found = find_break(run, titles)
    if was_stopped(run):
        return Ending(
            CANCELLED,
            f"{name} was stopped{found.where}; Kubeflow does not say by whom.",
            1,
        )
    if run.state != SUCCEEDED and found.step not in GATES and found.where:
        return broken_off(run, found, namespace, look(found.pod))
    if record.unreadable:
        return ended_without_record(run, record, found, look)
    # A gate that ends well always leaves a record, so this store is another one.
    if run.state == SUCCEEDED:
        return Ending(
            UNKNOWN,
            f"{name} succeeded, but its gate left no record in the store; --store must "
            "name the store of secret safescale-store.",
            1,
        )
    return broken_off(run, found, namespace, look(found.pod))


def ended_without_record(
    run: Any, record: GateRecord, found: Break, look: Callable[[str], StepEnd | None]
) -> Ending:
    """Says how a run ended whose gate cannot be asked."""
    name, states = f"Run {run.run_id}", task_states(run)
    # A server that shows no tasks leaves the state of the whole.
    if (gate_state(states) if states else run.state) == SUCCEEDED:
        sentence = f"{name} passed its gate; what it registered is not known here: "
        return Ending(UNKNOWN, f"{sentence}{record.unreadable}.", 0)
    end = look(found.pod) if found.step in GATES else None
    # The gate's pod says the same as its record, with the code of a refusal.
    if end is not None and end.sentence:
        status = REFUSED if end.code == 3 else CRASHED
        return Ending(status, end.sentence, end.code)
    return Ending(
        UNKNOWN,
        f"{name} ended as {run.state}{found.where}; Kubeflow does not say whether it "
        "was refused or broke off, and the gate's record is out of reach: "
        f"{record.unreadable}.",
        1,
    )


def ended_unseen(why: str, record: GateRecord) -> Ending:
    """Says how a run ended that nobody can look at any more.

    Args:
        why: one sentence.
        record: the gate's, which may have spoken before.
    """
    outcome = record.outcome
    if outcome is None:
        return Ending(UNFINISHED, why, 1)
    sentence = f"{outcome.sentence} {why}"
    return Ending(outcome.status, sentence, outcome.exit_code, outcome)


def broken_off(run: Any, found: Break, namespace: str, end: StepEnd | None) -> Ending:
    """Says where and why a run broke off, in words of the step if there are any."""
    name = f"Run {run.run_id} broke off{found.where}"
    if end is not None and end.sentence:
        status = UNFINISHED if end.stopped else CRASHED
        sentence = f"{name}: {end.sentence.rstrip('.')}."
        return Ending(status, sentence, end.code, lost=end.lost)
    pod = end.pod if end is not None else ""
    pod = pod or (f"whose name ends in {found.pod}" if found.pod else "")
    where = f" of pod {pod}" if pod else ""
    command = log_command(namespace, str(run.run_id), found.step)
    return Ending(
        CRASHED,
        f"{name} before its gate had spoken; {command} shows the log{where}.",
        1,
        lost=end is not None and end.lost,
    )


def tell_end(
    ending: Ending,
    run_id: str,
    uri: str,
    run: Any = None,
    *,
    say: Callable[[str], None],
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Tells the places that this environment names, if the exit task did not.

    Args:
        ending: how the run ended.
        run_id: the run.
        uri: of the store, where each telling is claimed; "" = not known here.
        run: as the API shows it; None = it shows no end.
        say: takes what became of it.
        environ: names the places, and holds the store's keys.
    """
    tries = len(attempts(run)) if run is not None else 1
    done = run is not None and task_states(run).get(EXIT_TASK) == SUCCEEDED
    # The exit task is not repeated with a run that is tried again, so what it told then
    # was of an earlier end.
    if not any(environ.get(name) for name in PLACES) or (done and tries == 1):
        return
    store = None
    with suppress(StorageError, InputError):
        store = open_store(uri, environ=environ) if uri else None
    config = run.runtime_config if run is not None else None
    asked = ((config.parameters if config else None) or {}).get("notify_on")
    state = str(run.state) if run is not None else ""
    note = Notice.of(ending.told_of(run_id), state)
    tell(note, str(asked or OFTEN), environ, store=store, attempt=tries, say=say)
