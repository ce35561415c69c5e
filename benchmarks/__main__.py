"""Runs a benchmark by name, or runs a stored one again.

    python -m benchmarks NAME [options]      NAME: constraint-first, search-table, ...
    python -m benchmarks verify NAME         compares with benchmarks/results/NAME.json
                                [--data DIR] [--packages DIR]

`verify` repeats the stored command and compares every row except seconds. A result
names no folder of the machine that it was made on: `--data FOLDER` stands there, and is
filled in by the option of that name. Exit codes: 0 equal, 2 unknown name, no result or
a folder that is not given, 3 different.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FOLDER = "FOLDER"
"""What a stored command has in place of a folder of somebody's machine."""
CLOCKED = ("cpu_s", "wall_s", "peak_mib", "loopback_bytes")
"""Endings of keys whose figures depend on the machine's load."""


def names() -> list[str]:
    """Returns the benchmarks that there are."""
    files = (p for p in HERE.glob("*.py") if not p.stem.startswith("_"))
    # Read, not imported: some load torch or LightGBM, which takes seconds.
    runnable = (p for p in files if "\ndef main(" in p.read_text(encoding="utf-8"))
    return sorted(p.stem.replace("_", "-") for p in runnable)


def unclocked(value: Any) -> Any:
    """Returns a result's value without the seconds in it."""
    if isinstance(value, dict):
        steady = {k: v for k, v in value.items() if not k.endswith(CLOCKED)}
        return {k: unclocked(v) for k, v in steady.items()}
    return [unclocked(v) for v in value] if isinstance(value, list) else value


def differences(stored: Any, fresh: Any, where: str = "") -> list[str]:
    """Says where two results differ."""
    if isinstance(stored, dict) and isinstance(fresh, dict):
        keys = sorted(stored.keys() | fresh.keys())
        each = [differences(stored.get(k), fresh.get(k), f"{where}.{k}") for k in keys]
    elif (
        isinstance(stored, list)
        and isinstance(fresh, list)
        and len(stored) == len(fresh)
    ):
        pairs = enumerate(zip(stored, fresh, strict=True))
        each = [differences(a, b, f"{where}[{i}]") for i, (a, b) in pairs]
    else:
        # Exactly: every benchmark is seeded, and a tolerance would hide a change.
        return [] if stored == fresh else [f"{where}: {stored!r} -> {fresh!r}"]
    return [line for lines in each for line in lines]


def options(name: str, command: str) -> list[str]:
    """Returns the options of a stored command, `python -m benchmarks... --write`."""
    words = command.split()[3:]
    return words[1:] if words[:1] == [name] else words


def filled(name: str, command: str, given: Sequence[str]) -> list[str]:
    """Returns the options of a stored command, with folders of this machine.

    Args:
        name: of the benchmark.
        command: as it was stored.
        given: options and folders in turn.

    Raises:
        LookupError: one sentence: a folder is not given or not there, or given in vain.
    """
    words = options(name, command)
    asked = [
        before
        for before, word in pairwise(words)
        if word == FOLDER and before.startswith("--")
    ]
    folders = dict(zip(given[::2], given[1::2], strict=False))
    if strange := [word for word in given[::2] if word not in asked]:
        raise LookupError(
            f"{strange[0]} fills in nothing: the stored command of {name} is {command}."
        )
    if absent := [option for option in asked if option not in folders]:
        example = " ".join(f"{option} DIR" for option in asked)
        raise LookupError(
            f"{name} cannot be run again as it is stored: its command has "
            f"{' and '.join(f'{option} {FOLDER}' for option in absent)}, and in which "
            "folder that lay a result does not say; give the folders: python -m "
            f"benchmarks verify {name} {example} (benchmarks/"
            f"{name.replace('-', '_')}.py says what has to be in them)."
        )
    for option, folder in folders.items():
        if not Path(folder).is_dir():
            raise LookupError(f"{option} names {folder}, which is no folder.")
        words[words.index(option) + 1] = folder
    return words


def verify(name: str, given: Sequence[str] = ()) -> int:
    """Runs a stored benchmark again and prints what differs."""
    file = RESULTS / f"{name}.json"
    try:
        before = file.read_bytes()
        stored = json.loads(before)
        words = filled(name, stored["command"], given)
    except FileNotFoundError:
        print(f"{name} has no stored result ({file.name}).", file=sys.stderr)
        return 2
    except LookupError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        run(name, words)
        fresh = json.loads(file.read_bytes())
    finally:
        # The stored command writes its result; the one in git stays what it was.
        file.write_bytes(before)
    # Not the commit, the machine and the versions: those may be others.
    keys = ("rows", "raw", "seeds")
    lines = [
        line
        for key in keys
        for line in differences(unclocked(stored[key]), unclocked(fresh[key]), key)
    ]
    print("\n".join(lines) or f"{name}: equal in every figure but seconds.")
    return 3 if lines else 0


def run(name: str, options: list[str]) -> None:
    """Runs one benchmark with its own options."""
    module = import_module(f"benchmarks.{name.replace('-', '_')}")
    before, sys.argv = sys.argv, [f"benchmarks {name}", *options]
    try:
        module.main()
    finally:
        sys.argv = before


def main() -> int:
    """Reads the command line."""
    words = sys.argv[1:]
    again = words[:1] == ["verify"]
    name = words[again : again + 1]
    benchmarks = names()
    if not name or name[0] not in benchmarks:
        print(f"Name a benchmark: {', '.join(benchmarks)}.", file=sys.stderr)
        return 2
    if again:
        return verify(name[0], words[2:])
    run(name[0], words[1:])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
