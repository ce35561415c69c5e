"""What the embedded store costs a command, now and in an earlier revision.

    python -m benchmarks store-start [--before REV] [--repeats N] [--write]

A store is made with one small object in it. Then, N times in turn, so that a busy
machine is busy for all: `safescale registry list` as it is and as it was in REV, each
a whole process; and one user of the store that reads, and one that writes, in parts
(import, start, answer, stop). Medians [least, greatest], seconds of wall time.
`--write` stores benchmarks/results/store-start.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, in_form, store
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.uri import open_store

RESULT = ROOT / "benchmarks" / "results" / "store-start.json"
# The last commit before commands that only read were told apart.
BEFORE = "1cf0e34"
COMMAND = ("-m", "pipelines", "registry", "list")
GOAL = 0.5
LONGEST_WRITE = 1.0  # seconds
PARTS = """
import json, sys, time
started = time.perf_counter()
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.uri import open_store
times = {"import": time.perf_counter() - started}
def mark(name, since=[time.perf_counter()]):
    times[name] = time.perf_counter() - since[0]
    since[0] = time.perf_counter()
options = {"reads_only": True} if sys.argv[2] == "reads" else {}
with EmbeddedStore(sys.argv[1], **options) as server:
    mark("start")
    store = open_store(server.uri, environ=server.environ)
    assert store.get("one") == b"1"
    if sys.argv[2] != "reads":
        store.put("one", b"1")
    mark("answer")
mark("stop")
print(json.dumps(times))
"""


def called(root: Path, folder: Path, *words: str) -> tuple[float, str]:
    """Runs Python with the code of a checkout; returns seconds and output."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    environ.pop("SAFESCALE_STORE", None)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - start, done.stdout


def measure(before: Path, repeats: int) -> dict[str, list[float]]:
    """Returns seconds by what was measured, in the order of the repeats."""
    found: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="store-start-") as name:
        folder = Path(name)
        state = folder / ".safescale" / "store"
        with EmbeddedStore(state) as server:
            open_store(server.uri, environ=server.environ).put("one", b"1")
        for _ in range(repeats):
            for when, root in (("before", before), ("now", ROOT)):
                found[f"registry list, {when}"] += [called(root, folder, *COMMAND)[0]]
            for root, user in ((ROOT, "reads"), (before, "wrote"), (ROOT, "writes")):
                said = called(root, folder, "-c", PARTS, str(state), user)[1]
                for part, seconds in json.loads(said).items():
                    found[f"{part}, a user that {user}"].append(seconds)
    return dict(found)


def row(what: str, seconds: list[float]) -> dict[str, Any]:
    """Returns one measurement as it is stored."""
    return {
        "what": what,
        "median_wall_s": statistics.median(seconds),
        "least_wall_s": min(seconds),
        "greatest_wall_s": max(seconds),
    }


def result(found: dict[str, list[float]], command: str, before: str) -> dict[str, Any]:
    """Puts the seconds into the form of all benchmark results."""
    old, new = (found[f"registry list, {when}"] for when in ("before", "now"))
    writes = found["answer, a user that writes"]
    ratios = [b / a for a, b in zip(old, new, strict=True)]
    return in_form(
        "store-start",
        command,
        packages=("python",),
        cores=", loopback",
        against={"before": before},
        rows=[row(what, seconds) for what, seconds in found.items()],
        goals=[
            {
                "what": "seconds of `registry list`, now / before, median",
                "op": "<=",
                "goal": GOAL,
                "value": statistics.median(ratios),
                "spread": [min(ratios), max(ratios)],
            },
            {
                "what": "seconds until a first write is acknowledged, greatest",
                "op": "<=",
                "goal": LONGEST_WRITE,
                "value": max(writes),
                "spread": [min(writes), max(writes)],
            },
        ],
        raw=[{"what": w, "each_wall_s": s} for w, s in found.items()],
    )


def main() -> None:
    """Prints the table; stores it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", metavar="REV", default=BEFORE)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with checkout(options.before) as before:
        found = measure(before, options.repeats)
    command = (
        f"python -m benchmarks store-start --before {options.before} "
        f"--repeats {options.repeats} --write"
    )
    stored = result(found, command, options.before)
    for each in stored["rows"]:
        median, least, most = list(each.values())[1:]
        print(f"{each['what']:<28} {median:.2f} [{least:.2f}, {most:.2f}] s")
    goal = stored["goals"][0]
    print(f"now / before: {goal['value']:.2f}")
    if options.write:
        store(RESULT, stored)


if __name__ == "__main__":
    main()
