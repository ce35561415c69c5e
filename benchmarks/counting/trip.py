"""Trip: the names that a reader meets between the training stage and the optimizer.

The chain is every function of the library that is reached from the stage's `run`
and from which the learner's `step` (one optimizer step of all nets) is reached,
both ends included; a function reaches what its body mentions. The trip's names are
the chain's functions and each function, class, method and field of ours that one of
their bodies mentions, each counted once. What those in turn do is not counted: it
is what a reader may leave to its name. Local names and constants are not counted.

Both ends are found by name, not by file: `train_agents.run` of the stages, and
`step` of the one class called `Learner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.counting.mentions import Index, Reader
from benchmarks.counting.source import Source

START = ".train_agents:run"
END = ":Learner.step"
_MAKING = ("__init__", "__post_init__", "__enter__")
"""What mentioning a class may call."""


@dataclass(frozen=True)
class Trip:
    """Titles, `module:name`.

    Attributes:
        chain: functions between the two ends.
        names: all that the reader meets, the chain included.
        classes: those of the names that are classes.
    """

    chain: list[str]
    names: list[str]
    classes: list[str]


def trip(sources: Sequence[Source], start: str = START, end: str = END) -> Trip:
    """Follows the calls from one function to another.

    Raises:
        ValueError: not exactly one function's title ends with `start`, or `end`.
    """
    index = Index(sources)
    ahead = _edges(index)
    first, last = (_only(index, ending) for ending in (start, end))
    behind: dict[str, set[str]] = {title: set() for title in ahead}
    for title, mentioned in ahead.items():
        for each in mentioned:
            behind.setdefault(each, set()).add(title)
    chain = (_reached(ahead, first) & _reached(behind, last)) - index.classes.keys()
    names = chain.union(*(ahead[title] for title in chain))
    return Trip(sorted(chain), sorted(names), sorted(names & index.classes.keys()))


def _edges(index: Index) -> dict[str, set[str]]:
    edges = {title: set(Reader(index, title).mentions()) for title in index.functions}
    for title, found in index.classes.items():
        edges[title] = {f"{title}.{m}" for m in _MAKING if m in found.methods}
    return edges


def _only(index: Index, ending: str) -> str:
    found = [title for title in index.functions if title.endswith(ending)]
    if len(found) != 1:
        raise ValueError(f"One function is expected to end with {ending}, not {found}.")
    return found[0]


def _reached(edges: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        title = ahead.pop()
        if title not in found:
            found.add(title)
            ahead.extend(edges.get(title, ()))
    return found
