"""The benchmarks' command line: names, options and what counts as equal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.__main__ import differences, names, options, unclocked

ROOT = Path(__file__).parents[2]


def test_every_benchmark_has_a_name() -> None:
    assert {"constraint-first", "interval-sizes", "search-table"} <= set(names())


def test_an_unknown_name_lists_the_known_ones() -> None:
    command = [sys.executable, "-m", "benchmarks", "nothing"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "constraint-first" in done.stderr


def test_the_options_of_a_stored_command_are_found() -> None:
    long = "python -m benchmarks constraint-first --seeds 2 --write"
    assert options("constraint-first", long) == ["--seeds", "2", "--write"]
    assert options("a-b", "python -m benchmarks.a_b --write") == ["--write"]


def test_seconds_are_not_compared_but_everything_else_is() -> None:
    stored = {"rows": [{"gap": 0.1, "cpu_s": 3}], "n": 1}
    assert unclocked(stored) == {"rows": [{"gap": 0.1}], "n": 1}
    found = {"rows": [{"gap": 0.2, "cpu_s": 9}], "n": 1}
    assert differences(unclocked(stored), unclocked(found)) == [
        ".rows[0].gap: 0.1 -> 0.2"
    ]
    assert differences([1], [1, 2], "x") == ["x: [1] -> [1, 2]"]
