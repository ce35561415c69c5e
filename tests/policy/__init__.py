"""The policy that the manifests and the compiled pipeline keep.

A rule is a function that yields a sentence for each thing that breaks it. Its tests
hold it against what we ship, where it must be silent, and against a copy broken on
purpose, where it must not: a lint that cannot fail proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object, as parsed from YAML."""


def complaints(
    rules: Iterable[Callable[[Any], Iterator[str]]], subject: Any
) -> list[str]:
    """Returns what all rules say about a subject, each with the rule's name."""
    return [f"{rule.__name__}: {said}" for rule in rules for said in rule(subject)]
