"""Words: what the code's names say, and which private helpers have one caller."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from benchmarks.counting.source import FUNCTIONS, Source


def shared_classes(sources: Sequence[Source]) -> dict[str, list[str]]:
    """Returns the class names that stand in two or more rooms, with their modules."""
    found: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(source.module)
    rooms = {s.module: s.room for s in sources}
    several = {n: m for n, m in found.items() if len({rooms[i] for i in m}) > 1}
    return dict(sorted(several.items()))


def lone_helpers(sources: Sequence[Source]) -> dict[str, list[str]]:
    """Returns module -> its private functions and methods with exactly one caller.

    Such a helper is called in one place outside its own body and is mentioned
    nowhere else: neither passed on as a value nor imported by another module. Every
    module is looked at by itself, so that a name used in two modules counts twice.
    Nested functions and `__dunder__` methods are no helpers; a property is never
    called.
    """
    imported = {
        (node.module, alias.name)
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found: dict[str, list[str]] = {}
    for source in sources:
        mentions, calls = Counter(_mentions(source.tree)), Counter(_calls(source.tree))
        for title, node in _private(source.tree):
            name = node.name
            counted = mentions[name] - Counter(_mentions(node))[name]
            called = calls[name] - Counter(_calls(node))[name]
            if counted == called == 1 and (source.module, name) not in imported:
                found.setdefault(source.module, []).append(title)
    return found


def named_once(sources: Sequence[Source]) -> int:
    """Counts the private helpers whose name is mentioned once in all the files.

    A cruder count: two helpers of one name in two modules hide each other.
    """
    helpers = [node for s in sources for _, node in _private(s.tree)]
    every = Counter(name for s in sources for name in _mentions(s.tree))
    for node in helpers:
        every[node.name] -= Counter(_mentions(node))[node.name]
    return sum(every[node.name] == 1 for node in helpers)


def _private(
    tree: ast.Module,
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yields the title and the definition of every private function and method."""
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for item in inside:
            if isinstance(item, FUNCTIONS) and is_private(item.name):
                yield prefix + item.name, item


def is_private(name: str) -> bool:
    """Says whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def _mentions(tree: ast.AST) -> Iterator[str]:
    """Yields every name and attribute, once per place where it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield _last(node)


def _calls(tree: ast.AST) -> Iterator[str]:
    """Yields the name or attribute of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(
            node.func, ast.Name | ast.Attribute
        ):
            yield _last(node.func)


def _last(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def bound(sources: Sequence[Source]) -> Iterator[str]:
    """Yields every name that is given: of functions, classes, parameters, variables."""
    for source in sources:
        for node in ast.walk(source.tree):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    yield name
                case ast.ClassDef(name=name) | ast.arg(arg=name):
                    yield name
                case ast.Name(id=name, ctx=ast.Store()):
                    yield name
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    yield name
                case _:
                    continue


def is_participle(name: str) -> bool:
    """Says whether a one-word name is a participle or a possessive, as `found`.

    A list of irregular forms and the ending `-ed` decide; this is a rough count.
    """
    word = name.strip("_").lower()
    regular = word.endswith("ed") and len(word) > 4 and word not in _NO_PARTICIPLES
    return regular or word in _IRREGULAR or word in _POSSESSIVES


_IRREGULAR = frozenset(
    re.findall(
        r"\w+",
        """
        found told asked said kept done given made taken seen left lost held sent got
        built written shown known chosen drawn gone met heard thrown broken spent meant
        taught brought bought begun hidden sought woken fallen grown
        """,
    )
)
_POSSESSIVES = frozenset({"mine", "yours", "his", "hers", "its", "ours", "theirs"})
_NO_PARTICIPLES = frozenset({"speed", "embed", "exceed", "indeed", "proceed"})
