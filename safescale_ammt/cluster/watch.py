"""One job after each of its changes, whatever happens to the connection."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from safescale_ammt.cluster.api import Api, Query
from safescale_ammt.cluster.refusals import ApiRefusal, Away, Denied
from safescale_ammt.cluster.resources import TRAINJOBS


def changes(api: Api, name: str) -> Iterator[dict[str, Any] | None]:
    """Yields a job as it is now, then after each change; None if it is not there.

    It never ends by itself. The job is read anew at least every `Timeouts.watch`
    seconds, and whenever a watch broke or its version got too old (410 Gone), so
    that nothing is missed. Where watching is not permitted, it is read every
    `Timeouts.poll` seconds instead, and that is said once.

    Raises:
        ApiRefusal: the job may not be listed.
        OutOfReach: the API stayed away.
    """
    may_watch = True
    chosen = {"fieldSelector": f"metadata.name={name}"}
    while True:
        listed = api.call("list", TRAINJOBS, query=chosen)
        yield listed["items"][0] if listed["items"] else None
        if not may_watch:
            api.sleep(api.timeouts.poll)
            continue
        started, first = api.clock(), api.timeouts.retry.first
        try:
            version = listed["metadata"]["resourceVersion"]
            yield from _watch(api, {**chosen, "resourceVersion": version})
        except Denied as denied:
            may_watch = False
            api.say(f"{denied} The job is read every {api.timeouts.poll:g} s instead.")
        except (Away, ApiRefusal):
            pass  # Too old (410) or broken: read anew.
        if api.clock() - started < first:
            api.sleep(first)


def _watch(api: Api, query: dict[str, str]) -> Iterator[dict[str, Any] | None]:
    """Follows one watch to its end; an ERROR event ends it, as a broken line does."""
    seconds = max(1, round(api.timeouts.watch))
    asked: Query = {**query, "watch": "true", "timeoutSeconds": seconds}
    for line in api.lines("watch", TRAINJOBS, "", "", asked):
        with suppress(ValueError):
            event = json.loads(line)
            if event["type"] == "ERROR":
                return
            if event["type"] != "BOOKMARK":
                yield None if event["type"] == "DELETED" else event["object"]
