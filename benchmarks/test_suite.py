"""What `make test` costs, now and in an earlier revision, in CPU seconds.

    python -m benchmarks test-suite [--before REV] [--workers N] [--no-cov] [--write]
        [PATH ...]

Runs linters and tests of REV, then of this checkout, as `make test` does, and sums the
CPU seconds of all their processes, also of those that nobody waits for: this one asks
Linux for the orphans of what it starts. Tests are counted and compared by name; one
that was there and is no longer is listed. PATHs below tests/ run these alone, without
linters. The same virtual environment serves both. Exit code 1: a test failed.
`--write` stores benchmarks/results/test-suite.json, for the whole suite only.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.house import checkout
from benchmarks.provenance import ROOT, origin

RESULT = ROOT / "benchmarks" / "results" / "test-suite.json"
# The last commit before the tests' own costs were looked at.
BEFORE = "b82994b"
GOAL = 0.5
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


def run_suite(root: Path, paths: Sequence[str], options: Sequence[str]) -> Suite:
    """Runs the linters, for the whole suite, and the tests of a checkout.

    Args:
        root: the checkout.
        paths: below it; () = all, as `make test`.
        options: of pytest.
    """
    bare = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    programs = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="test-suite-") as name:
        report = Path(name, "report.xml")
        environ = {
            **bare,
            # This checkout is what is installed; the other one comes before it.
            "PYTHONPATH": str(root),
            "COVERAGE_FILE": str(Path(name, "coverage")),
        }
        parts = {
            words[0] + (f" {words[1]}" if words[0] == "ruff" else ""): cost(
                [str(programs / words[0]), *words[1:]], root, environ
            )
            for words in (() if paths else LINTERS)
        }
        command = [sys.executable, "-m", "pytest", *(paths or WHOLE), *options]
        command += ["-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
        parts["tests"] = cost(command, root, environ)
        return Suite(outcomes(report) if report.exists() else {}, parts)


def result(before: Suite, now: Suite, command: str, revision: str) -> dict[str, Any]:
    """Puts two runs into the form of all benchmark results."""
    ratio = now.cpu / before.cpu
    counted = [len(suite.tests) for suite in (before, now)]
    suites = {"before": before, "now": now}
    return {
        "name": "test-suite",
        "command": command,
        **origin("test-suite"),
        "before": revision,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()},
        "seeds": [],
        "rows": [
            {"what": name, **suite.counts(), "total_cpu_s": round(suite.cpu, 1)}
            for name, suite in suites.items()
        ],
        "goals": [
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
        "raw": [
            {
                "what": f"{name}: {part}",
                "code": took.code,
                "each_cpu_s": round(took.cpu, 2),
                "each_wall_s": round(took.wall, 2),
            }
            for name, suite in suites.items()
            for part, took in suite.parts.items()
        ],
    }


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
    parser.add_argument("--write", action="store_true")
    parser.add_argument("paths", metavar="PATH", nargs="*")
    asked = parser.parse_args()
    if asked.write and (asked.paths or asked.no_cov):
        parser.error("--write stores the whole suite with coverage, without a PATH.")
    options = [] if asked.no_cov else ["--cov", "--cov-report=term:skip-covered"]
    # The floor of coverage is the whole suite's.
    options += ["--cov-fail-under=0"] if asked.paths and not asked.no_cov else []
    if asked.workers > 1:
        options += ["-n", str(asked.workers), "--dist", "loadgroup"]
    with checkout(asked.before) as before:
        old = run_suite(before, asked.paths, options)
    new = run_suite(ROOT, asked.paths, options)
    command = (
        f"python -m benchmarks test-suite --before {asked.before} "
        f"--workers {asked.workers} --write"
    )
    stored = result(old, new, command, asked.before)
    show(stored, sorted(old.tests.keys() - new.tests.keys()))
    if asked.write:
        RESULT.write_text(json.dumps(stored, indent=1) + "\n")
    # Of this checkout: an older one may need older packages.
    if any(part.code for part in new.parts.values()):
        print(new.parts["tests"].said[-3000:], file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
