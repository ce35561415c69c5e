"""Why a pod does not run, in the cluster's own words: one reading for all pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.refusals import ApiRefusal, one_line
from safescale_ammt.cluster.resources import EVENTS

ON_THE_WAY = ("", "ContainerCreating", "PodInitializing")
"""What every pod waits for on its way up: no reason to wait."""


def held_up(status: Mapping[str, Any]) -> str:
    """Returns what a pod's containers wait for, or why the scheduler has no node."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(key) or ():
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason", "") not in ON_THE_WAY:
                return words_of(waiting)
    for one in status.get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return words_of(one)
    return ""


def warnings_of(api: Api) -> list[dict[str, Any]]:
    """Lists the namespace's warnings; none where they may not be read."""
    try:
        query = {"fieldSelector": "type=Warning"}
        return list(api.call("list", EVENTS, query=query)["items"])
    except ApiRefusal:
        return []


def subject(event: Mapping[str, Any]) -> str:
    """Returns the name of the object that an event is about."""
    return str((event.get("involvedObject") or {}).get("name", ""))


def newest_warning(warnings: Iterable[Mapping[str, Any]]) -> str:
    """Returns what the newest of some warnings says; "" if there are none."""
    newest = max(warnings, key=last_seen, default=None)
    return words_of(newest) if newest else ""


def last_seen(event: Mapping[str, Any]) -> datetime:
    """Returns when an event happened last.

    Who made it through `events.k8s.io`, as Trainer and the scheduler do, sets
    `eventTime` and, once it repeats, a series; core's own have `lastTimestamp`.
    """
    series = event.get("series") or {}
    stamps = [event.get(k) for k in ("lastTimestamp", "eventTime", "firstTimestamp")]
    return max(time_of(stamp) for stamp in [series.get("lastObservedTime"), *stamps])


def time_of(stamp: object) -> datetime:
    """Reads a time as Kubernetes writes it; what is none is long ago."""
    try:
        # Not by spelling: "…16.5Z" comes before "…16Z" there.
        read = datetime.fromisoformat(str(stamp))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def words_of(told: Mapping[str, Any]) -> str:
    """Writes reason and message of a state, a condition or an event on one line."""
    said = f"{told.get('reason') or ''}: {told.get('message') or ''}"
    return one_line(said.strip(": "))
