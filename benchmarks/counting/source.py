"""Source: the files of a checkout, parsed once, and the rooms that they stand in."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

HOUSE = ("safescale_ammt", "components", "pipelines")
"""Packages whose lines are the house."""
LIBRARY = ("safescale_ammt",)

Function = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Source:
    """One file of Python.

    Attributes:
        module: its dotted name; a package's `__init__.py` has the package's name.
        is_package: whether it is an `__init__.py`.
        text: its contents.
    """

    module: str
    is_package: bool
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Returns the syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> int:
        """Returns the number of lines, blank ones and comments too."""
        return len(self.text.splitlines())

    @property
    def room(self) -> str:
        """Returns the folder directly under the package, or the loose file itself."""
        return room_of(self.module)

    @property
    def wing(self) -> str:
        """Returns the room, with all loose files of a package in one."""
        parts = self.module.split(".")
        loose = len(parts) < 2 or (len(parts) == 2 and not self.is_package)
        return parts[0] if loose else ".".join(parts[:2])

    def functions(self) -> Iterator[Function]:
        """Yields every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, FUNCTIONS):
                yield node


def room_of(module: str) -> str:
    """Returns the room of a module: its first two names."""
    return ".".join(module.split(".")[:2])


def read(root: Path, packages: Iterable[str] = HOUSE) -> list[Source]:
    """Reads all files of packages that lie directly under a root."""
    files = [p for name in packages for p in sorted((root / name).rglob("*.py"))]
    return [_source(root, path) for path in files]


def _source(root: Path, path: Path) -> Source:
    is_package = path.name == "__init__.py"
    place = path.parent if is_package else path.with_suffix("")
    module = ".".join(place.relative_to(root).parts)
    return Source(module, is_package, path.read_text(encoding="utf-8"))


def within(sources: Sequence[Source], packages: Iterable[str]) -> list[Source]:
    """Returns the files of some packages only."""
    chosen = set(packages)
    return [s for s in sources if s.module.split(".")[0] in chosen]
