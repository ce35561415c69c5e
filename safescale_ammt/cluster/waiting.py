"""Why no pod of a job runs, in the cluster's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.pods import has_started, pods_named
from safescale_ammt.cluster.reasons import (
    held_up,
    last_seen,
    newest_warning,
    subject,
    time_of,
    warnings_of,
)
from safescale_ammt.cluster.trainjob import JobState, TrainJob, condition, state
from safescale_ammt.errors import ClusterError

UNKNOWN = "the cluster gives no reason; is the Trainer controller running?"


class Wait:
    """The time in which no pod of the job runs: reported, and bounded."""

    def __init__(self, api: Api, job: TrainJob, where: str) -> None:
        self._api = api
        self._job = job
        self._where = where
        self._since = api.clock()
        self._reason = ""
        self._runs = False

    def look(self, live: dict[str, Any]) -> None:
        """Looks once.

        Raises:
            ClusterError: nothing has run for too long.
        """
        # Kueue may suspend a job again; pods that it has had do not count then.
        suspended = state(live) is JobState.SUSPENDED
        runs = not suspended and has_started(self._api, self._job.name)
        # From the last look that saw a pod: a job may lose its pods more than once.
        if runs or self._runs:
            self._since = self._api.clock()
        self._runs = runs
        if not runs:
            self.tell(reason(self._api, live))

    def tell(self, why: str) -> None:
        """Says a reason that is new; "" is none, and none is said only after a while.

        Raises:
            ClusterError: nothing has run for too long.
        """
        waited = self._api.clock() - self._since
        timeouts = self._api.timeouts
        # Controller, scheduler and kubelet need some seconds for any job: a way up is
        # no reason to send people looking.
        if not why and waited >= timeouts.unexplained:
            why = UNKNOWN
        if why and why != self._reason:
            self._reason = why
            self._api.say(f"{self._where} waits: {why}")
        limit = timeouts.queued if self._job.queue else timeouts.pending
        if waited > limit:
            raise ClusterError(
                f"{self._where} has had no running pod for {limit:g} s: "
                f"{why or UNKNOWN}; make room for it or ask for less, then run again."
            )


def reason(api: Api, live: Mapping[str, Any]) -> str:
    """Says in the cluster's own words why a job's pods do not run, "" if it does not.

    The most telling first: what a container waits for or why the scheduler finds
    no node, the last warning about the job or its pods, the job's condition.
    """
    name = str(live["metadata"]["name"])
    for pod in pods_named(api, name):
        if why := held_up(pod.get("status") or {}):
            return why
    # By name, since JobSet, Jobs and pods all have names that begin with the job's; and
    # by time: an event outlives its object by an hour, and a job before this one had
    # the same name.
    made = time_of(live["metadata"].get("creationTimestamp"))
    ours = (w for w in warnings_of(api) if subject(w).startswith(name))
    if why := newest_warning(w for w in ours if last_seen(w) >= made):
        return why
    suspended = condition(live, "Suspended")
    if suspended or live["spec"].get("suspend"):
        return str((suspended or {}).get("message") or "it is suspended")
    return ""
