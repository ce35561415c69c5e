"""Which code a benchmark's figures come from: a commit, and a digest of each room.

A commit alone does not say whether a figure is old: most commits change nothing that
it depends on, and a benchmark may be run before its code is committed. So a result
holds a digest of every room that its figures depend on.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parent.parent
HOUSE = ("safescale_ammt", "components", "pipelines")
WHOLE = {
    "house": HOUSE,
    "short-run": HOUSE,
    "store-start": ("safescale_ammt/store",),
}
"""Benchmarks that look at all the code in these folders, comments included."""
# They fetch, write, wait or say, and no figure comes out otherwise for it.
_FIGURELESS = (
    *(f"safescale_ammt/{room}/" for room in ("cluster", "reporting", "store")),
    *(f"safescale_ammt/{file}.py" for file in ("errors", "addresses", "retry")),
    *("safescale_ammt/execution.py", "safescale_ammt/__init__.py"),
    "benchmarks/provenance.py",
)
_STARTED = time.time()
_MODULE = re.compile(r"\b(?:safescale_ammt|components|pipelines|benchmarks)(?:\.\w+)+")


def commit() -> str:
    """Returns the commit that is checked out."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def origin(name: str, since: float = _STARTED) -> dict[str, Any]:
    """Returns what a result says of the code that it measured.

    Args:
        name: the benchmark's name on the command line.
        since: when its code was read, seconds since 1970. If a file of it was written
            later, nobody knows what was measured, and no digest is given.
    """
    files = reach(f"benchmarks/{name.replace('-', '_')}.py", ROOT)
    if any((ROOT / path).stat().st_mtime > since for path in files):
        print(f"{name}: code changed while it was measured.", file=sys.stderr)
        return {"commit": commit()}
    return {"commit": commit(), "code": measured_code(name)}


def in_form(
    name: str,
    command: str,
    *,
    packages: Sequence[str],
    rows: Sequence[Any],
    goals: Sequence[Any],
    raw: Sequence[Any] = (),
    seeds: Sequence[int] = (),
    cores: str | None = "",
    against: Mapping[str, Any] | None = None,
    own: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Puts what was measured into the form of all benchmark results.

    Args:
        name: the benchmark's name on the command line.
        command: what writes the result anew.
        packages: whose versions matter, `python` among them.
        rows: the figures.
        goals: what they are held against.
        raw: what the figures are computed from.
        seeds: those that were used.
        cores: what to say behind the number of cores; None = it matters to no figure.
        against: what the code was held against, such as `before`.
        own: what this benchmark alone has.
    """
    told = "" if cores is None else f", {os.cpu_count()} cores{cores}"
    return {
        "name": name,
        "command": command,
        **origin(name),
        **(against or {}),
        "machine": f"{platform.machine()}{told}",
        "versions": {
            package: platform.python_version()
            if package == "python"
            else metadata.version(package)
            for package in packages
        },
        "seeds": list(seeds),
        **(own or {}),
        "rows": list(rows),
        "goals": list(goals),
        "raw": list(raw),
    }


def figure(
    what: str,
    value: float,
    spread: Sequence[float] = (),
    *,
    op: str = "",
    goal: float | None = None,
) -> dict[str, Any]:
    """Returns a figure in the form of a goal; without one it is told beside them.

    Args:
        what: is measured, in words.
        value: of all seeds.
        spread: its smallest and its largest value; none of one run.
        op: how it should lie to its goal.
        goal: the number.
    """
    names = ("what", "op", "goal", "value", "spread")
    return dict(zip(names, (what, op, goal, value, list(spread)), strict=True))


def told(figures: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Prints figures, a line each; returns those that have a goal."""
    for row in figures:
        beside = "" if row["goal"] is None else f" ({row['op']} {row['goal']:g})"
        print(f"{row['what']}: {row['value']:.4g}{beside}")
    return [row for row in figures if row["goal"] is not None]


def store(file: Path, found: Mapping[str, Any]) -> None:
    """Writes a result below `benchmarks/results`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measured_code(name: str, root: Path = ROOT) -> dict[str, str]:
    """Returns room -> digest of the code that a benchmark's figures depend on.

    These are the files that `benchmarks/<name>.py` reaches by imports, wherever they
    stand, and by the names of modules in texts, as it starts processes; not those of
    rooms that make no figure. Comments, docstrings and blank lines do not count.

    Args:
        name: the benchmark's name on the command line.
        root: a checkout.
    """
    module = f"benchmarks/{name.replace('-', '_')}.py"
    files = {
        path: code_lines((root / path).read_text("utf-8"))
        for path in reach(module, root)
    }
    for folder in WHOLE.get(name, ()):
        paths = (path.relative_to(root) for path in (root / folder).rglob("*.py"))
        files |= {p.as_posix(): (root / p).read_text("utf-8") for p in paths}
    rooms = defaultdict(list)
    for path, text in sorted(files.items()):
        parts = PurePosixPath(path).parts
        room = parts[1] if len(parts) > 2 and parts[0] == HOUSE[0] else parts[0]
        rooms[room].append(f"{path}\n{text}\n")
    return {
        room: hashlib.sha256("".join(texts).encode()).hexdigest()[:12]
        for room, texts in sorted(rooms.items())
    }


def changes(stored: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Returns the rooms whose code is another one now, those that came or went too."""
    return sorted(r for r in {*stored, *now} if stored.get(r) != now.get(r))


def reach(start: str, root: Path) -> set[str]:
    """Returns the files that one leads to, itself included, relative to the root."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in reached or path.startswith(_FIGURELESS):
            continue
        reached.add(path)
        for module in _modules((root / path).read_text("utf-8")):
            # A name may be a module's, or what one defines; packages run as well.
            parts = module.split(".")
            for end in range(1, len(parts) + 1):
                base = "/".join(parts[:end])
                names = (f"{base}.py", f"{base}/__init__.py")
                waiting += [name for name in names if (root / name).is_file()]
    return reached


# Most files are reached by most benchmarks.
@cache
def _modules(text: str) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found += _MODULE.findall(node.value)
    return tuple(found)


@cache
def code_lines(text: str) -> str:
    """Returns Python code without docstrings, lines of comment and blank lines."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        # Any text that stands alone, such as the one below a field, computes nothing.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                lines[number - 1] = ""
    return "\n".join(
        line for line in lines if line.strip() and not line.lstrip().startswith("#")
    )
