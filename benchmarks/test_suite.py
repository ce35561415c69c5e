"""What `make test` costs, now and in an earlier revision, in CPU seconds.

    python -m benchmarks test-suite [--before REV] [--workers N] [--no-cov] [--write]
        [--one-of K [--seed N]] [PATH ...]

Runs linters and tests of REV, then of this checkout, as `make test` does, and sums the
CPU seconds of all their processes, also of those that nobody waits for: this one asks
Linux for the orphans of what it starts. Tests are counted and compared by name; one
that was there and is no longer is listed. PATHs below tests/ run these alone, without
linters. The same virtual environment serves both. Exit code 1: a test failed.
`--write` stores benchmarks/results/test-suite.json, for the whole suite only, or for a
sample of it: with `--one-of K`, all files of tests of either checkout are ordered by
what they took when they were last counted (benchmarks/test_files.json), and of each K
in a row one is drawn; both checkouts run a few of these at a time, in turns. Linters
are run whole and count a K-th.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, in_form, store

COSTS = ROOT / "benchmarks" / "test_files.json"
RESULT = ROOT / "benchmarks" / "results" / "test-suite.json"
# The last commit before the tests' own costs were looked at.
BEFORE = "b82994b"
GOAL = 0.5
AT_A_TIME = 10
"""Files of a sample that are run before the other checkout's turn."""
WHOLE = ("tests/unit", "tests/integration")
# Programs of the virtual environment, with what makes them begin without a cache.
LINTERS = (
    ("ruff", "check", "--no-cache", "."),
    ("ruff", "format", "--check", "--no-cache", "."),
    ("mypy", "--cache-dir", os.devnull),
    ("lint-imports", "--no-cache"),
)
_SET_CHILD_SUBREAPER = 36  # of Linux' <sys/prctl.h>


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        code: its exit code.
        cpu: seconds of CPU, of all its processes that have ended.
        wall: seconds on the clock.
        said: what it printed.
    """

    code: int
    cpu: float
    wall: float
    said: str = ""


@dataclass(frozen=True)
class Suite:
    """A run of the tests of one checkout.

    Attributes:
        tests: name -> how it ended: passed, failed, error or skipped.
        parts: what was run -> its cost.
    """

    tests: Mapping[str, str]
    parts: Mapping[str, Cost]

    @property
    def cpu(self) -> float:
        """CPU seconds of all parts."""
        return sum(part.cpu for part in self.parts.values())

    def counts(self) -> Counter[str]:
        """Counts the tests by how they ended."""
        return Counter(self.tests.values())


def cost(command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Cost:
    """Runs a command to its end, and reaps what it leaves behind meanwhile."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    begun, cpu, code = time.monotonic(), 0.0, 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environ), stdout=said, stderr=said
        )
        ended = 0
        while ended != process.pid:
            ended, status, used = os.wait4(-1, 0)
            cpu += used.ru_utime + used.ru_stime
            code = os.waitstatus_to_exitcode(status)
        process.returncode = code
        cpu += of_orphans()
        said.seek(0)
        text = said.read().decode(errors="replace")
    return Cost(code, cpu, time.monotonic() - begun, text)


def of_orphans(seconds: float = 10.0) -> float:
    """Waits for what is left, so long at most; returns its seconds of CPU."""
    until, cpu = time.monotonic() + seconds, 0.0
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            ended, _, used = os.wait4(-1, os.WNOHANG)
            cpu += used.ru_utime + used.ru_stime
            if not ended:
                time.sleep(0.05)
    return cpu


def outcomes(report: Path) -> dict[str, str]:
    """Reads pytest's JUnit report: test -> passed, failed, error or skipped."""
    found = {}
    ends = {"failure": "failed", "error": "error", "skipped": "skipped"}
    # Written by the pytest that was started here.
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = next(
            (ends[part.tag] for part in case if part.tag in ends), "passed"
        )
    return found


def environ_of(root: Path) -> dict[str, str]:
    """Returns the environment of a checkout's processes."""
    bare = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    # This checkout is what is installed; the other one comes before it.
    return {**bare, "PYTHONPATH": str(root)}


def run_linters(root: Path) -> dict[str, Cost]:
    """Runs the linters of a checkout: name -> cost."""
    programs = Path(sys.executable).parent
    return {
        words[0] + (f" {words[1]}" if words[0] == "ruff" else ""): cost(
            [str(programs / words[0]), *words[1:]], root, environ_of(root)
        )
        for words in LINTERS
    }


def run_suite(root: Path, paths: Sequence[str], options: Sequence[str]) -> Suite:
    """Runs the linters, for the whole suite, and the tests of a checkout.

    Args:
        root: the checkout.
        paths: below it; () = all, as `make test`.
        options: of pytest.
    """
    parts = {} if paths else run_linters(root)
    with tempfile.TemporaryDirectory(prefix="test-suite-") as name:
        report = Path(name, "report.xml")
        environ = environ_of(root) | {"COVERAGE_FILE": str(Path(name, "coverage"))}
        command = [sys.executable, "-m", "pytest", *(paths or WHOLE), *options]
        command += ["-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
        parts["tests"] = cost(command, root, environ)
        return Suite(outcomes(report) if report.exists() else {}, parts)


def drawn(files: Mapping[str, float], one_of: int, seed: int) -> list[str]:
    """Draws one of each so many files that take about as long, the longest first.

    Args:
        files: name -> CPU seconds at some time; 0 = never counted.
        one_of: how many files one stands for.
        seed: of the draw.
    """
    order = sorted(files, key=lambda name: (-files[name], name))
    rows = [order[i : i + one_of] for i in range(0, len(order), one_of)]
    # Which tests are run is no secret.
    chance = random.Random(seed)
    return [chance.choice(row) for row in rows]


def files_of(*roots: Path) -> dict[str, float]:
    """Lists the files of tests of checkouts: name -> CPU seconds, 0 if not counted."""
    counted = json.loads(COSTS.read_text())
    found = {
        str(file.relative_to(root))
        for root in roots
        for folder in WHOLE
        for file in (root / folder).glob("test_*.py")
    }
    return {name: counted.get(name, 0.0) for name in found}


def run_sample(
    roots: Sequence[Path], one_of: int, seed: int, options: Sequence[str]
) -> list[Suite]:
    """Runs the linters and a sample of the tests of checkouts, in turns."""
    sample = drawn(files_of(*roots), one_of, seed)
    suites = []
    for root in roots:
        whole = run_linters(root)
        parts = {
            name: replace(part, cpu=part.cpu / one_of) for name, part in whole.items()
        }
        suites.append(Suite({}, parts))
    for turn in range(-(-len(sample) // AT_A_TIME)):
        some = sample[turn * AT_A_TIME :][:AT_A_TIME]
        for i in (0, 1) if turn % 2 else (1, 0):
            there = [name for name in some if (roots[i] / name).exists()]
            ran = run_suite(roots[i], there, options) if there else Suite({}, {})
            parts = {f"{name} {turn + 1}": part for name, part in ran.parts.items()}
            suites[i] = Suite(
                {**suites[i].tests, **ran.tests}, {**suites[i].parts, **parts}
            )
    return suites


def result(before: Suite, now: Suite, command: str, revision: str) -> dict[str, Any]:
    """Puts two runs into the form of all benchmark results."""
    ratio = now.cpu / before.cpu
    counted = [len(suite.tests) for suite in (before, now)]
    suites = {"before": before, "now": now}
    return in_form(
        "test-suite",
        command,
        packages=("python",),
        against={"before": revision},
        rows=[
            {"what": name, **suite.counts(), "total_cpu_s": round(suite.cpu, 1)}
            for name, suite in suites.items()
        ],
        goals=[
            {
                "what": "CPU seconds of `make test`, now / before",
                "op": "<=",
                "goal": GOAL,
                "value": ratio,
                "spread": [ratio, ratio],
            },
            {
                "what": "tests, now / before",
                "op": ">=",
                "goal": 1.0,
                "value": counted[1] / max(1, counted[0]),
                "spread": [counted[1] / max(1, counted[0])] * 2,
            },
        ],
        raw=[
            {
                "what": f"{name}: {part}",
                "code": took.code,
                "each_cpu_s": round(took.cpu, 2),
                "each_wall_s": round(took.wall, 2),
            }
            for name, suite in suites.items()
            for part, took in suite.parts.items()
        ],
    )


def show(stored: Mapping[str, Any], gone: Sequence[str]) -> None:
    """Prints the rows, what is gone, and each goal."""
    for row in stored["raw"]:
        print(f"{row['what']:<24} {row['each_cpu_s']:9.1f} CPU s, exit {row['code']}")
    for row in stored["rows"]:
        told = {k: v for k, v in row.items() if k not in {"what", "total_cpu_s"}}
        ends = ", ".join(f"{n} {end}" for end, n in sorted(told.items()))
        print(f"{row['what']:<24} {row['total_cpu_s']:9.1f} CPU s in all; {ends}")
    for name in gone:
        print(f"no longer there: {name}")
    for goal in stored["goals"]:
        met = goal["value"] <= goal["goal"] or goal["op"] == ">="
        met = met and (goal["op"] == "<=" or goal["value"] >= goal["goal"])
        print(
            f"{goal['what']}: {goal['value']:.3f}, goal {goal['op']} {goal['goal']:g}"
            f" {'met' if met else 'missed'}"
        )


def main() -> None:
    """Prints the costs; stores them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", metavar="REV", default=BEFORE)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-cov", action="store_true")
    parser.add_argument("--one-of", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("paths", metavar="PATH", nargs="*")
    asked = parser.parse_args()
    if asked.paths and asked.one_of > 1:
        parser.error("--one-of draws from the whole suite, without a PATH.")
    if asked.write and (asked.paths or asked.no_cov):
        parser.error("--write stores the whole suite with coverage, without a PATH.")
    options = [] if asked.no_cov else ["--cov", "--cov-report=term:skip-covered"]
    # The floor of coverage is the whole suite's.
    part = asked.paths or asked.one_of > 1
    options += ["--cov-fail-under=0"] if part and not asked.no_cov else []
    if asked.workers > 1:
        options += ["-n", str(asked.workers), "--dist", "loadgroup"]
    with checkout(asked.before) as before:
        if asked.one_of > 1:
            old, new = run_sample((before, ROOT), asked.one_of, asked.seed, options)
        else:
            old = run_suite(before, asked.paths, options)
            new = run_suite(ROOT, asked.paths, options)
    command = (
        f"python -m benchmarks test-suite --before {asked.before} --workers "
        f"{asked.workers} --one-of {asked.one_of} --seed {asked.seed} --write"
    )
    stored = result(old, new, command, asked.before)
    stored["seeds"] = [asked.seed] if asked.one_of > 1 else []
    show(stored, sorted(old.tests.keys() - new.tests.keys()))
    if asked.write:
        store(RESULT, stored)
    # Of this checkout: an older one may need older packages.
    if any(part.code for part in new.parts.values()):
        for part in new.parts.values():
            print(part.said[-3000:] if part.code else "", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
