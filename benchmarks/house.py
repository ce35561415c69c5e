"""Counts the plan of the code: its rooms, names, lines and imports.

    python -m benchmarks house [--root DIR] [--before REV] [--names] [--static]
                               [--write]

Any checkout can be counted with the same ruler: `--root` names its folder, and
`--before` a folder or a git revision, which is unpacked into a folder of its own
and counted beside it. What each count means stands in `benchmarks/counting`:

    rooms       a room is a folder directly under a package, or a loose file there;
                two rooms import each other if any of their files do, wherever the
                import stands, `if TYPE_CHECKING:` included. For the size of a room
                all loose files of a package are one room.        rooms.py
    names       shared class names, private helpers with one caller     words.py
    the trip    what a reader meets from the training stage's `run` to the optimizer
                step                                            trip.py, mentions.py
    lines       comments (`#`, alone or after code; docstrings are none), lines of
                functions (docstring and blank lines included)          lines.py
    imports     what `safescale run` has loaded when its first stage starts; it is
                run on a tiny table and stopped there. `--static` leaves this out,
                and the seconds.                                        loading.py

The house is safescale_ammt, components and pipelines; the library is safescale_ammt
alone. Not counted: images, benchmarks and tests. `--names` lists what was counted.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.counting.figures import SCOPES, Figure, figures
from benchmarks.provenance import ROOT, in_form, store

RESULT = ROOT / "benchmarks" / "results" / "house.json"


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Gives a folder with the code of a revision; a folder is options as it is."""
    if Path(revision).is_dir():
        yield Path(revision).absolute()
        return
    # An archive and no worktree: a kill leaves nothing behind in the repository.
    archived = subprocess.run(
        ["git", "archive", "--format=tar", revision],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    with tempfile.TemporaryDirectory(prefix="house-") as folder:
        with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def pairs(
    now: Sequence[Figure], before: Sequence[Figure]
) -> list[tuple[Figure, Figure | None]]:
    """Puts each figure beside its earlier one."""
    earlier = {(f.what, f.scope): f for f in before}
    return [(figure, earlier.get((figure.what, figure.scope))) for figure in now]


def table(now: Sequence[Figure], before: Sequence[Figure]) -> Table:
    """Returns the figures as a table for people."""
    rows = Table("what", "where", "goal", "before", "now", "")
    for figure, earlier in pairs(now, before):
        goal = ", ".join(f"{op} {bound:g}" for op, bound in figure.goals)
        rows.add_row(
            figure.what,
            figure.scope,
            goal,
            _shown(earlier) if earlier else "",
            _shown(figure),
            ("met" if figure.met else "MISSED") if figure.goals else "",
        )
    return rows


def _shown(figure: Figure) -> str:
    return f"{figure.value:g} {figure.note.rpartition('.')[2]}".rstrip()


def names(counted: Sequence[Figure]) -> Iterator[str]:
    """Yields what was counted, one line each under its title."""
    for figure in counted:
        if figure.names:
            yield f"\n# {figure.what}: {figure.value:g} ({figure.scope})"
            yield from figure.names


def row(figure: Figure, earlier: Figure | None) -> dict[str, Any]:
    """Returns a figure as it is stored; keys of seconds end as `verify` expects."""
    suffix = "_wall_s" if figure.clocked else ""
    return {
        "what": figure.what,
        "scope": figure.scope,
        f"before{suffix}": earlier.value if earlier else None,
        f"now{suffix}": figure.value,
    }


def result(
    now: Sequence[Figure], before: Sequence[Figure], command: str, revision: str
) -> dict[str, Any]:
    """Puts the figures into the form of all benchmark results."""
    return in_form(
        "house",
        command,
        packages=("python", "grimp", "kfp"),
        cores=None,
        against={"before": revision},
        own={"scopes": SCOPES},
        rows=[row(*pair) for pair in pairs(now, before)],
        goals=[
            {
                "what": f"{figure.what} ({figure.scope})",
                "op": op,
                "goal": bound,
                "value": figure.value,
                "spread": [figure.value, figure.value],
            }
            for figure in now
            for op, bound in figure.goals
        ],
        raw=[
            {"what": f.what, "scope": f.scope, "names": list(f.names)}
            for f in now
            if f.names
        ],
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks house",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to count")
    parser.add_argument("--before", metavar="REV", help="folder or git revision")
    parser.add_argument("--names", action="store_true", help="list what was counted")
    parser.add_argument("--static", action="store_true", help="start nothing")
    parser.add_argument("--write", action="store_true", help="store the result")
    return parser


def main() -> None:
    """Prints the table; stores it with `--write`."""
    parser = _parser()
    options = parser.parse_args()
    if options.write and (options.root != ROOT or options.static):
        parser.error("--write stores the whole count of this very checkout.")
    before: list[Figure] = []
    if options.before:
        with checkout(options.before) as folder:
            before = figures(folder, running=not options.static)
    now = figures(options.root.absolute(), running=not options.static)
    print("\n".join(f"{word}: {meaning}" for word, meaning in SCOPES.items()))
    Console(width=None if Console().is_terminal else 140).print(table(now, before))
    if options.names:
        print("\n".join(names(now)))
    if options.write:
        words = ["python -m benchmarks house", *_option("--before", options.before)]
        command = " ".join([*words, "--write"])
        stored = result(now, before, command, options.before or "")
        store(RESULT, stored)


def _option(name: str, value: str | None) -> list[str]:
    return [name, value] if value else []


if __name__ == "__main__":
    main()
