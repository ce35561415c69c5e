"""Names and types of an answer: what two servers have in common.

A shape is a mapping from paths such as `runs[].state_history[].state` to the types
seen there. Free JSON (parameters, pipelines, labels) is one thing of its own, since
each user's is another. Of the answers to one question the union is compared, and
what all of them have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = Mapping[str, str]
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
# Keys whose values are a user's own.
_FREE = {"pipeline_spec", "parameters", "labels", "annotations", "data", "matchLabels"}
_FREE |= {"hard", "used", "limits", "requests", "max", "default", "defaultRequest"}


def shape(value: Any, at: str = "") -> dict[str, str]:
    """Returns the types by path."""
    if isinstance(value, dict):
        found = {}
        for key, item in value.items():
            here = f"{at}.{key}" if at else key
            kind = type(item).__name__ if key in _FREE else ""
            found.update({here: kind} if kind else shape(item, here))
        return found or {at: "nothing"}
    if isinstance(value, list):
        found = {}
        for item in value:
            found.update(shape(item, f"{at}[]"))
        return found or {at: "nothing"}
    return {at: _type(value)}


def _type(value: Any) -> str:
    if isinstance(value, str):
        told = ((_ID, "id"), (_TIME, "time"))
        return next((name for form, name in told if form.fullmatch(value)), "text")
    return {bool: "flag", int: "number", float: "number"}[type(value)]


def question(method: str, path: str, status: int, answer: Any) -> str:
    """Names what was asked: of a run and a review also what it was about."""
    named = _ID.sub("ID", path).removeprefix("/apis/v2beta1")
    state = answer.get("state") if isinstance(answer, dict) else None
    return f"{method} {named} {status}" + (f" {state}" if state else "")


@dataclass
class Shapes:
    """Of each question the shapes of all its answers.

    Attributes:
        union: question -> path -> types that any answer has there.
        always: question -> the paths that every answer has.
    """

    union: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    always: dict[str, set[str]] = field(default_factory=dict)

    def add(self, asked: str, answer: Any) -> None:
        """Adds an answer."""
        seen = shape(answer)
        union = self.union.setdefault(asked, {})
        for path, kind in seen.items():
            union.setdefault(path, set()).add(kind)
        self.always[asked] = self.always.get(asked, set(seen)) & set(seen)


def differences(real: Shapes, ours: Shapes, asked: str) -> list[str]:
    """Says where our server's answers to a question differ from the real ones'."""
    theirs, have = real.union[asked], ours.union[asked]
    said = [f"{asked}: {p} is invented" for p in have if p not in theirs]
    lacks = real.always[asked] - ours.always[asked]
    said += [f"{asked}: {path} is missing" for path in lacks]
    said += [f"{asked}: {path} is never there" for path in theirs if path not in have]
    said += [
        f"{asked}: {path} is {sorted(have[path])}, not {sorted(theirs[path])}"
        for path in theirs
        if path in have and not have[path] <= theirs[path]
    ]
    return sorted(set(said))


def unexplained(said: Iterable[str], allowed: Mapping[str, str]) -> list[str]:
    """Returns the differences that no pattern of the list explains."""
    return [one for one in said if not any(re.search(p, one) for p in allowed)]
