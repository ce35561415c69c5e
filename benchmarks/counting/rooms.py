"""Rooms: who imports whom, in which circles, and how large each room is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.counting.source import HOUSE, Source, room_of

Graph = Mapping[str, Sequence[str]]
"""Module -> the modules of ours that it imports."""

_GRAPH = """
import grimp, json, sys
root, typed, *packages = sys.argv[1:]
sys.path.insert(0, root)
graph = grimp.build_graph(
    *packages, cache_dir=None, exclude_type_checking_imports=typed == "no"
)
edges = {m: sorted(graph.find_modules_directly_imported_by(m)) for m in graph.modules}
json.dump(edges, sys.stdout)
"""


def imports(
    root: Path, packages: Sequence[str] = HOUSE, *, typed: bool = True
) -> Graph:
    """Returns who imports whom, wherever in a file the import stands.

    grimp reads the packages that Python finds, so it runs in a process in which
    that root comes first.

    Args:
        root: folder of the packages.
        packages: whose modules are looked at.
        typed: whether imports under `if TYPE_CHECKING:` count.
    """
    done = subprocess.run(
        [sys.executable, "-c", _GRAPH, root, "yes" if typed else "no", *packages],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    edges: Graph = json.loads(done.stdout)
    return edges


def mutual_rooms(graph: Graph) -> list[tuple[str, str]]:
    """Returns the pairs of rooms that import each other; a loose file is a room."""
    pairs = {
        (room_of(importer), room_of(imported))
        for importer, every in graph.items()
        for imported in every
    }
    return sorted((a, b) for a, b in pairs if a < b and (b, a) in pairs)


def circles(graph: Graph) -> list[list[str]]:
    """Returns the groups of modules of which each reaches all others by imports."""
    reached = {module: _reachable(graph, module) for module in graph}
    groups = {
        tuple(sorted(m for m in reached[module] if module in reached[m]))
        for module in graph
        if module in reached[module]
    }
    return [list(group) for group in sorted(groups)]


def _reachable(graph: Graph, start: str) -> set[str]:
    """Returns what a module imports, directly or not; itself if in a circle."""
    found: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            ahead.extend(graph.get(module, ()))
    return found


def sizes(sources: Sequence[Source]) -> dict[str, tuple[int, int]]:
    """Returns modules and lines of each room, the largest first.

    The loose files of a package are one room here: a pile of files in front of
    the doors must not look like many small rooms.
    """
    modules: dict[str, int] = defaultdict(int)
    lines: dict[str, int] = defaultdict(int)
    for source in sources:
        modules[source.wing] += 1
        lines[source.wing] += source.lines
    return {w: (modules[w], lines[w]) for w in sorted(lines, key=lambda w: -lines[w])}
