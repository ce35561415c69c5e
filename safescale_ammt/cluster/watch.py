"""One job after each of its changes, whatever happens to the connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from safescale_ammt.cluster.api import Api, Query
from safescale_ammt.cluster.refusals import ApiRefusal, Away, Denied
from safescale_ammt.cluster.resources import TRAINJOBS
from safescale_ammt.files.json_text import parse_json


def changes(api: Api, name: str) -> Iterator[dict[str, Any] | None]:
    """Yields a job as it is now, then after each change; None if it is not there.

    It never ends by itself. The job is read anew at least every `Timeouts.watch`
    seconds, and whenever a watch broke or its version got too old (410 Gone), so
    that nothing is missed. Where watching is not permitted, it is read every
    `Timeouts.poll` seconds instead, and one line says so.

    Raises:
        ApiRefusal: the job may not be listed.
        OutOfReach: the API stayed away.
    """
    may_watch = True
    query = {"fieldSelector": f"metadata.name={name}"}
    seconds = max(1, round(api.timeouts.watch))  # the API takes whole seconds
    while True:
        listed = api.call("list", TRAINJOBS, query=query)
        yield listed["items"][0] if listed["items"] else None
        if not may_watch:
            api.sleep(api.timeouts.poll)
            continue
        started, shortest = api.clock(), api.timeouts.retry.first
        # From the listing's version on, so that no change between the two is missed.
        version = listed["metadata"]["resourceVersion"]
        options: Query = {
            **query,
            "watch": "true",
            "timeoutSeconds": seconds,
            "resourceVersion": version,
        }
        try:
            for line in api.lines("watch", TRAINJOBS, "", "", options):
                with suppress(ValueError):  # half a line, as when a proxy breaks off
                    event = parse_json(line)
                    if event["type"] == "ERROR":
                        break
                    if event["type"] != "BOOKMARK":
                        yield None if event["type"] == "DELETED" else event["object"]
        except Denied as denied:
            may_watch = False
            api.say(f"{denied} The job is read every {api.timeouts.poll:g} s instead.")
        except (Away, ApiRefusal):
            pass  # Too old (410) or broken: read anew.
        # An API that ends each watch at once must not be called without a pause.
        if api.clock() - started < shortest:
            api.sleep(shortest)
