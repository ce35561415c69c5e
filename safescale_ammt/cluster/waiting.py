"""Why no pod of a job runs, and what ended the pods of one that failed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.logs import pods_of
from safescale_ammt.cluster.refusals import ApiRefusal
from safescale_ammt.cluster.resources import EVENTS, PODS
from safescale_ammt.cluster.trainjob import JobState, TrainJob, condition, state
from safescale_ammt.errors import ClusterError, SafescaleError


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
        if runs:
            return
        why = reason(self._api, live)
        if why != self._reason:
            self._reason = why
            self._api.say(f"{self._where} waits: {why}")
        timeouts = self._api.timeouts
        limit = timeouts.queued if self._job.queue else timeouts.pending
        if self._api.clock() - self._since > limit:
            raise ClusterError(
                f"{self._where} has had no running pod for {limit:g} s: {why}; make "
                "room for it or ask for less, then run again."
            )


def has_started(api: Api, name: str) -> bool:
    """Says whether any pod of a job runs or has run."""
    phases = {(pod.get("status") or {}).get("phase") for pod in _pods(api, name)}
    return bool(phases & {"Running", "Succeeded", "Failed"})


def reason(api: Api, live: Mapping[str, Any]) -> str:
    """Says in the cluster's own words why a job's pods do not run.

    The most telling first: what a container waits for or why the scheduler finds
    no node, the last warning about the job or its pods, the job's condition.
    """
    name = str(live["metadata"]["name"])
    for pod in _pods(api, name):
        status = pod.get("status") or {}
        for container in status.get("containerStatuses") or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            why = waiting.get("reason")
            # These two are every pod's way up, not a reason to wait.
            if why and why not in ("ContainerCreating", "PodInitializing"):
                return f"{why}: {waiting.get('message', '')}".strip(": ")
        for one in status.get("conditions") or ():
            why = f"{one.get('reason', '')}: {one.get('message', '')}".strip(": ")
            kind, holds = one.get("type"), one.get("status")
            if kind == "PodScheduled" and holds == "False" and why:
                return str(why)
    try:
        query = {"fieldSelector": "type=Warning"}
        warnings = api.call("list", EVENTS, query=query)["items"]
    except ApiRefusal:
        warnings = []  # Not permitted: then the other reasons must do.
    # By name, since JobSet, Jobs and pods all have names that begin with the job's.
    ours = [w for w in warnings if w["involvedObject"].get("name", "").startswith(name)]
    if ours:
        newest = max(ours, key=_time)
        return f"{newest['reason']}: {newest['message']}"
    suspended = condition(live, "Suspended")
    if suspended or live["spec"].get("suspend"):
        return str((suspended or {}).get("message") or "it is suspended")
    return "the cluster gives no reason; is the Trainer controller running?"


def ended_by(api: Api, name: str) -> str:
    """Says how the containers of a failed job ended, "" if nothing is known."""
    pods: list[dict[str, Any]] = []
    ends = []
    # A bonus: pods that cannot be read must not hide the failure.
    with suppress(SafescaleError):
        pods = _pods(api, name)
    for pod in pods:
        status = pod.get("status") or {}
        for container in status.get("containerStatuses") or ():
            end = (container.get("state") or {}).get("terminated") or {}
            if end.get("exitCode"):
                why = end.get("reason") or "Error"
                ends.append(f"{pod['metadata']['name']}: {why}, {end['exitCode']}")
        if not ends and status.get("reason"):
            ends.append(f"{pod['metadata']['name']}: {status['reason']}")
    # A few are enough: one rank's end makes the others end.
    return "; ".join(ends[:4])


def _pods(api: Api, name: str) -> list[dict[str, Any]]:
    return list(api.call("list", PODS, query=pods_of(name))["items"])


def _time(event: Mapping[str, Any]) -> str:
    # Which of the three is set depends on the component that made the event.
    stamps = (event.get(k) for k in ("lastTimestamp", "eventTime", "firstTimestamp"))
    return str(next(filter(None, stamps), ""))
