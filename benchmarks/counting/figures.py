"""Figures: every count of one checkout, with the goal that it is held to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.counting import lines, loading, rooms, words
from benchmarks.counting.source import HOUSE, LIBRARY, Source, read, within
from benchmarks.counting.trip import trip

Goal = tuple[str, float]
"""Comparison and bound, as `("<=", 15)`."""
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Figure:
    """One count.

    Attributes:
        what: is counted.
        scope: where.
        value: what was found.
        goals: that it is held to; none if it only informs.
        names: what was counted, one by one.
        note: which one it is, for the largest.
        clocked: whether it is seconds, which no two runs share.
    """

    what: str
    scope: str
    value: float
    goals: tuple[Goal, ...] = ()
    names: tuple[str, ...] = ()
    note: str = ""
    clocked: bool = False

    @property
    def met(self) -> bool:
        """Says whether all goals are."""
        return all(_COMPARE[op](self.value, bound) for op, bound in self.goals)


def figures(root: Path, *, running: bool = True) -> list[Figure]:
    """Counts a checkout.

    Args:
        root: its folder.
        running: whether `safescale run` is started too, and commands are timed.
    """
    house = read(root)
    library = within(house, LIBRARY)
    found = [*_rooms(root, house), *_names(house, library), *_lines(house, library)]
    return [*found, *_loaded(root), *_timed(root)] if running else found


def _rooms(root: Path, house: Sequence[Source]) -> Iterator[Figure]:
    graph = rooms.imports(root)
    zero = (("==", 0.0),)
    pairs = tuple(f"{a} <-> {b}" for a, b in rooms.mutual_rooms(graph))
    yield Figure(
        "pairs of rooms that import each other", "house", len(pairs), zero, pairs
    )
    circles = tuple(", ".join(group) for group in rooms.circles(graph))
    yield Figure("circles of files, all imports", "house", len(circles), zero, circles)
    graph = rooms.imports(root, typed=False)
    circles = tuple(", ".join(group) for group in rooms.circles(graph))
    yield Figure(
        "circles of files, without imports for types only",
        "house",
        len(circles),
        zero,
        circles,
    )
    sizes, every = rooms.sizes(house), sum(s.lines for s in house)
    table = tuple(
        f"{name}: {modules} modules, {count} lines, {100 * count / every:.1f} %"
        for name, (modules, count) in sizes.items()
    )
    largest = next(iter(sizes))
    yield Figure(
        "largest room, % of all lines",
        "house",
        round(100 * sizes[largest][1] / every, 1),
        (("<=", 15.0),),
        table,
        note=largest,
    )
    flow = sum(s.lines for s in within(house, ("pipelines",)))
    title = "pipelines with all its rooms, % of all lines"
    yield Figure(title, "house", round(100 * flow / every, 1))


def _names(house: Sequence[Source], library: Sequence[Source]) -> Iterator[Figure]:
    classes = words.shared_classes(house)
    listed = tuple(f"{name}: {', '.join(where)}" for name, where in classes.items())
    title = "class names that stand in two or more rooms"
    yield Figure(title, "house", len(classes), (("<=", 3.0),), listed)
    way = trip(library)
    title = "names from train_agents.run to the optimizer step"
    goal = (("<=", 90.0),)
    yield Figure(title, "library", len(way.names), goal, tuple(way.names))
    chain = tuple(way.chain)
    yield Figure("functions on that chain", "library", len(chain), (), chain)
    kinds = tuple(way.classes)
    yield Figure("classes among those names", "library", len(kinds), (), kinds)
    helpers = words.lone_helpers(house)
    listed = tuple(f"{m} ({len(n)}): {', '.join(n)}" for m, n in helpers.items())
    count = sum(len(names) for names in helpers.values())
    title = "private helpers with one caller"
    yield Figure(title, "house", count, (("<=", 120.0),), listed)
    title = "private helpers whose name is mentioned once in all files"
    yield Figure(title, "house", words.named_once(house))
    given = list(words.bound(house))
    share = round(100 * sum(map(words.is_participle, given)) / len(given), 1)
    yield Figure("participles and possessives, % of names given", "house", share)


def _lines(house: Sequence[Source], library: Sequence[Source]) -> Iterator[Figure]:
    share = round(lines.comment_share(library), 2)
    goals = ((">=", 3.0), ("<=", 8.0))
    yield Figure("comments, % of lines", "library", share, goals)
    yield Figure(
        "comments, % of lines", "house", round(lines.comment_share(house), 2), goals
    )
    for scope, sources in (("library", library), ("house", house)):
        found = lines.function_lengths(sources)
        title = "lines of a function, docstring included"
        yield Figure(f"{title}, median", scope, found.median, (("<=", 12.0),))
        yield Figure(f"{title}, p90", scope, found.p90, (("<=", 30.0),))
    yield Figure("modules", "house", len(house))
    yield Figure("lines", "house", sum(s.lines for s in house))


def _loaded(root: Path) -> Iterator[Figure]:
    """What `safescale run` holds when the first stage's process is started."""
    found = loading.loaded_before_first_stage(root)
    every = found["command"] | found["child"]
    own = tuple(sorted(loading.ours(every)))
    title = "modules of ours loaded before the first stage"
    yield Figure(title, "both processes", len(own), (), own)
    title = "modules loaded before the first stage"
    yield Figure(title, "both processes", len(every))
    for name, modules in found.items():
        own = tuple(sorted(loading.ours(modules)))
        yield Figure("of these, of ours", name, len(own), (), own)
        yield Figure("of these, all", name, len(modules))


def _timed(root: Path) -> Iterator[Figure]:
    """Seconds of whole processes, median of five."""
    for title, arguments in (
        ("python -c pass", ("-c", "pass")),
        ("import safescale_ammt", ("-c", "import safescale_ammt")),
        ("safescale --help", ("-m", "pipelines", "--help")),
    ):
        value = loading.median(loading.seconds(root, *arguments))
        yield Figure(f"seconds of `{title}`", "process", value, clocked=True)


SCOPES = {
    "house": " + ".join(HOUSE),
    "library": " + ".join(LIBRARY),
}
"""What the words for a scope mean."""
