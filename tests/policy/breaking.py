"""Breaks a copy of what we ship, in one place."""

from __future__ import annotations

import copy
from typing import Any

from policy import Object
from policy.objects import called

GONE = object()
"""In place of a value: the field is left out."""
Break = tuple[str, tuple[str | int, ...], Any]
"""Kind/name of an object, the way to a field, and what is put there."""
POD = (
    *("spec", "template", "spec", "replicatedJobs", 0),
    *("template", "spec", "template"),
)
"""The way from a TrainingRuntime to its pod."""
NODE = (*POD, "spec", "containers", 0)
RUNTIME = "TrainingRuntime/safescale-torch"


def broken(objects: list[Object], *breaks: Break) -> list[Object]:
    """Returns a copy with some fields changed.

    Raises:
        KeyError: there is no such object or no way to the field, so that a broken
            example never breaks nothing unseen.
    """
    copied = copy.deepcopy(objects)
    there = {called(o): o for o in copied}
    for name, (*way, last), value in breaks:
        place: Any = there[name]
        for step in way:
            place = place[step]
        if value is GONE:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    return copied
