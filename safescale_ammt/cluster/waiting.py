"""Why no pod of a job runs, and what ended the pods of one that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.logs import pods_of
from safescale_ammt.cluster.refusals import ApiRefusal
from safescale_ammt.cluster.resources import EVENTS, PODS
from safescale_ammt.cluster.trainjob import JobState, TrainJob, condition, state
from safescale_ammt.errors import ClusterError


class Wait:
    """The time in which no pod of the job runs; it is said, and it is bounded."""

    def __init__(self, api: Api, job: TrainJob, where: str) -> None:
        self._api = api
        self._job = job
        self._where = where
        self._since = api.clock()
        self._told = ""
        self._runs = False

    def look(self, found: dict[str, Any]) -> None:
        """Looks once.

        Raises:
            ClusterError: nothing has run for too long.
        """
        suspended = state(found) is JobState.SUSPENDED
        runs = not suspended and has_started(self._api, self._job.name)
        if runs or self._runs:
            self._since = self._api.clock()
        self._runs = runs
        if runs:
            return
        why = reason(self._api, found)
        if why != self._told:
            self._told = why
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


def reason(api: Api, found: Mapping[str, Any]) -> str:
    """Says in the cluster's own words why a job's pods do not run.

    The most telling first: what a container waits for, why the scheduler finds
    no node, the last warning about the job or its pods, the job's condition.
    """
    name = str(found["metadata"]["name"])
    for pod in _pods(api, name):
        if told := _waits_for(pod):
            return told
    if told := _last_warning(api, name):
        return told
    suspended = condition(found, "Suspended")
    if suspended or found["spec"].get("suspend"):
        return str((suspended or {}).get("message") or "it is suspended")
    return "the cluster gives no reason; is the Trainer controller running?"


def ended_by(api: Api, name: str) -> str:
    """Says how the containers of a failed job ended, "" if nothing is known."""
    told = []
    for pod in _pods(api, name):
        status = pod.get("status") or {}
        for container in status.get("containerStatuses") or ():
            end = (container.get("state") or {}).get("terminated") or {}
            if end.get("exitCode"):
                why = end.get("reason") or "Error"
                told.append(f"{pod['metadata']['name']}: {why}, {end['exitCode']}")
        if not told and status.get("reason"):
            told.append(f"{pod['metadata']['name']}: {status['reason']}")
    return "; ".join(told[:4])


def _pods(api: Api, name: str) -> list[dict[str, Any]]:
    return list(api.call("list", PODS, query=pods_of(name))["items"])


def _waits_for(pod: Mapping[str, Any]) -> str:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}".strip(": ")
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return f"{one.get('reason', '')}: {one.get('message', '')}".strip(": ")
    return ""


def _last_warning(api: Api, name: str) -> str:
    """Returns the newest warning event of a job, its JobSet, Jobs and pods."""
    try:
        listed = api.call("list", EVENTS, query={"fieldSelector": "type=Warning"})
    except ApiRefusal:
        return ""  # Not permitted: then the other reasons must do.
    ours = [
        event
        for event in listed["items"]
        if event["involvedObject"].get("name", "").startswith(name)
    ]
    newest = max(ours, key=_time, default=None)
    return f"{newest['reason']}: {newest['message']}" if newest else ""


def _time(event: Mapping[str, Any]) -> str:
    stamps = (event.get(k) for k in ("lastTimestamp", "eventTime", "firstTimestamp"))
    return str(next(filter(None, stamps), ""))
