"""Runs a benchmark by name, or runs a stored one again.

    python -m benchmarks NAME [options]      NAME: constraint-first, search-table, ...
    python -m benchmarks verify NAME         compares with benchmarks/results/NAME.json

`verify` repeats the stored command and compares every row except seconds. Exit
codes: 0 equal, 2 unknown name, 3 different.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
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


def verify(name: str) -> int:
    """Runs a stored benchmark again and prints what differs."""
    file = RESULTS / f"{name}.json"
    before = file.read_bytes()
    stored = json.loads(before)
    try:
        run(name, stored["command"].split()[4:])
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
        return verify(name[0])
    run(name[0], words[1:])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
