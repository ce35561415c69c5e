"""Following a run to its end, through outages, refusals and waits.

What may pass by itself is waited for and said once: an API that is away, a token that
is being replaced, a pod that no node takes. What will not pass ends the following with
a sentence: a run that was deleted, or whose Workflow is gone, which KFP shows as
RUNNING for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pipelines.kubeflow.answers import Rejection, Unreachable
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.cluster_view import ClusterView, pods_command
from pipelines.kubeflow.run_state import ENDED, SUCCEEDED, task_states, waiting_pods
from pipelines.kubeflow.runs import shown_run
from pipelines.progress import Progress
from safescale_ammt.errors import InputError, SafescaleError

STILL = 30.0
"""Seconds without news after which a run that waits is asked why."""
_WORDS = {
    "RUNNING": "...",
    SUCCEEDED: "done",
    "FAILED": "failed",
    "SKIPPED": "skipped",
    "CANCELED": "stopped",
    "CANCELING": "is being stopped",
}


class RunGone(SafescaleError):
    """A run that nobody can see the end of: it was deleted, or its Workflow was."""


@dataclass
class RunFollower:
    """What a person has seen of a run so far.

    Attributes:
        progress: where it is shown.
        titles: task name -> title; other tasks are KFP's own helpers.
        view: the run as Kubernetes shows it; None = nobody looks.
        clock: seconds that only go up.
        states: task name -> the state that was shown last.
        away_since: when the API went away; 0 = it is there.
        refused_since: when it stopped to let us in; 0 = it does.
        waits: what the run waits for, as it was shown; "" = for nothing.
    """

    progress: Progress
    titles: Mapping[str, str]
    view: ClusterView | None = None
    clock: Callable[[], float] = time.monotonic
    states: dict[str, str] = field(default_factory=dict)
    away_since: float = 0.0
    refused_since: float = 0.0
    waits: str = ""
    _seen: Any = None
    _news_at: float = 0.0
    _asked_at: float = 0.0

    def show(self, run: Any) -> None:
        """Shows what changed since the last look."""
        if since := self.away_since or self.refused_since:
            self.progress.say(f"the API is back after {self.clock() - since:.0f} s")
            self.away_since = self.refused_since = 0.0
        if run.state == "CANCELING" != self.states.get(run.run_id):
            self.states[run.run_id] = run.state
            self.progress.close()
            self.progress.say("the run is being stopped")
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

    def show_wait(self, run: Any, namespace: str) -> None:
        """Says why a run stands still, once it has for `STILL` seconds.

        Raises:
            RunGone: it never goes on.
        """
        now, seen = self.clock(), (run.state, task_states(run), waiting_pods(run))
        if seen != self._seen:
            self._seen, self._news_at, self.waits = seen, now, ""
            # Seen in time, a Workflow that is not there later is known to be gone.
            if self.view and not self.view.has_workflow:
                self.view.shows_workflow(run.run_id)
        if now - max(self._news_at, self._asked_at) < STILL or run.state in ENDED:
            return
        self._asked_at = now
        reason = self.why_waiting(run, namespace)
        if reason and reason != self.waits:
            self.waits = reason
            self.progress.close()
            at = [t for n, t in self.titles.items() if self.states.get(n) == "RUNNING"]
            self.progress.say(f"{at[-1] if at else 'the next step'} waits: {reason}")

    def why_waiting(self, run: Any, namespace: str) -> str:
        """Says why a run stands still; "" if it does not wait.

        Raises:
            RunGone: it never goes on.
        """
        shown = self.view.shows_workflow(run.run_id) if self.view else None
        if shown is False and self.view and self.view.has_workflow:
            raise RunGone(
                f"Run {run.run_id} does not go on: its Workflow was deleted, and "
                f"Kubeflow shows it as {run.state} for ever. Start it anew under "
                "another --name; finished stages come from the cache."
            )
        if shown is False and self.view:
            return (
                f"{self.view.host} has no Workflow of the run: it was deleted, or "
                "KUBECONFIG names another cluster"
            )
        if not waiting_pods(run):
            return ""
        reason = self.view.why_waiting(run.run_id) if self.view else ""
        command = pods_command(namespace, run.run_id)
        return reason or f"Kubeflow does not say for what; {command} shows it"

    def show_outage(self, error: Unreachable) -> None:
        """Says once that the API is away; the run goes on without us."""
        if not self.away_since:
            self.away_since = self.clock()
            self.progress.close()
            self.progress.say(f"{str(error).rstrip('.')}; still trying")

    def show_refusal(self, error: InputError) -> float:
        """Says once that we are not let in; returns for how many seconds by now."""
        if not self.refused_since:
            self.refused_since = self.clock()
            self.progress.close()
            self.progress.say(f"{str(error).rstrip('.')}; still trying")
        return self.clock() - self.refused_since


def follow(
    kubeflow: Kubeflow,
    run_id: str,
    follower: RunFollower,
    *,
    timeout: float,
    poll: float,
    after_look: Callable[[], None] = lambda: None,
) -> Any:
    """Looks at a run until it has ended.

    Args:
        kubeflow: where it runs.
        run_id: which.
        follower: shows it; its clock counts.
        timeout: seconds until we give up; the run does not.
        poll: seconds between two looks.
        after_look: is called after each look, and may meet an API that is away.

    Returns:
        The run as the API shows it at its end.

    Raises:
        RunGone: it was deleted, or its Workflow was.
        SafescaleError: the time is up, or we have not been let in for too long.
    """
    clock = follower.clock
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
        except InputError as error:
            bear_refusal(error, kubeflow, run_id, follower)
        else:
            follower.show(shown_run(run))
            with suppress(Unreachable):
                after_look()
            if run.state in ENDED:
                return run
            follower.show_wait(run, kubeflow.session.namespace)
        if clock() + poll > end:
            waits = f"; it waits: {follower.waits}" if follower.waits else ""
            raise SafescaleError(
                f"Run {run_id} was followed for {timeout:g} s and goes on{waits}; "
                f"{follow_hint(run_id)}"
            )
        time.sleep(poll)


def bear_refusal(
    error: InputError, kubeflow: Kubeflow, run_id: str, follower: RunFollower
) -> None:
    """Bears for `--patience` that we are not let in: a token may be replaced.

    Raises:
        RunGone: the run was deleted.
        SafescaleError: it has lasted too long, or will not pass.
    """
    status = error.status if isinstance(error, Rejection) else 0
    if status == 404:
        raise RunGone(
            f"Run {run_id} was deleted from Kubeflow while it was followed, and with "
            "it what ran of it."
        ) from None
    if status not in (0, 401, 403) or (
        follower.show_refusal(error) >= kubeflow.retry.total
    ):
        raise SafescaleError(
            f"{str(error).rstrip('.')}. Run {run_id} goes on without us; "
            f"{follow_hint(run_id)}"
        ) from None


def follow_hint(run_id: str) -> str:
    """Says how to come back to a run."""
    return f"`safescale submit --follow {run_id}` comes back to it."
