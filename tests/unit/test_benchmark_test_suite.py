"""The cost of the tests: every process counts, and so does every test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.test_suite import WHOLE, Cost, Suite, drawn, files_of, outcomes, result

ROOT = Path(__file__).parents[2]
BUSY = "import time\nwhile time.process_time() < {}: pass\n"
ORPHAN = f"""
import os
if os.fork() == 0:
    if os.fork() == 0:
        {BUSY.format(0.4).replace(chr(10), chr(10) + "        ")}
        open("done", "w").close()
    os._exit(0)
os.wait()
import time
while not os.path.exists("done"): time.sleep(0.01)
"""
SMALL = """
import pytest
def test_one(): pass
@pytest.mark.parametrize("n", [1, 2])
def test_two(n): assert n == 1
@pytest.mark.skip
def test_three(): pass
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout of one test file."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_small.py").write_text(SMALL)
    return tmp_path


def in_a_process(code: str, folder: Path) -> str:
    """Measures beside this process, whose children are others' to wait for."""
    head = "from benchmarks.test_suite import cost\nfrom pathlib import Path\n"
    head += "import os, sys\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_seconds_of_children_that_nobody_waited_for_count(tmp_path: Path) -> None:
    code = (
        f"took = cost([sys.executable, '-S', '-c', {ORPHAN!r}], "
        f"Path({str(tmp_path)!r}), os.environ)\n"
        "print(took.code, took.cpu)"
    )
    ended, cpu = in_a_process(code, tmp_path).split()
    assert ended == "0"
    assert float(cpu) > 0.4


def test_tests_are_run_and_counted_by_how_they_ended(tree: Path) -> None:
    code = (
        "from benchmarks.test_suite import run_suite\n"
        "suite = run_suite(Path.cwd(), ['tests'], [])\n"
        "print(dict(suite.counts()), suite.parts['tests'].code, suite.cpu > 0)\n"
        "print(sorted(suite.tests))"
    )
    first, names = in_a_process(code, tree).splitlines()
    assert first == "{'passed': 2, 'failed': 1, 'skipped': 1} 1 True"
    assert "tests.test_small::test_two[2]" in names


def test_a_report_tells_a_test_that_broke_from_one_that_failed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="a" name="x"><error/></testcase>'
        '<testcase classname="a" name="y"><properties/></testcase>'
        "</testsuite></testsuites>"
    )
    assert outcomes(report) == {"a::x": "error", "a::y": "passed"}


def test_the_goals_are_half_the_seconds_and_no_test_less() -> None:
    old = Suite({"a": "passed", "b": "passed"}, {"tests": Cost(0, 100.0, 60.0)})
    new = Suite({"a": "passed"}, {"mypy": Cost(0, 15.0, 9.0), "tests": Cost(0, 30, 9)})
    stored = result(old, new, "command", "b82994b")
    seconds, counts = stored["goals"]
    assert (seconds["value"], seconds["op"], seconds["goal"]) == (0.45, "<=", 0.5)
    assert (counts["value"], counts["op"], counts["goal"]) == (0.5, ">=", 1.0)
    assert [row["what"] for row in stored["raw"]] == [
        *("before: tests", "now: mypy", "now: tests")
    ]


def test_a_part_of_the_suite_is_not_stored() -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "test-suite",
        "--write",
        "tests/unit",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--write stores the whole suite" in done.stderr


def test_a_sample_has_one_of_each_few_files_that_take_about_as_long() -> None:
    files = {f"test_{n}.py": float(n) for n in range(42)}
    samples = [drawn(files, 4, seed) for seed in range(30)]
    assert drawn(files, 4, 7) == samples[7]
    for sample in samples:
        strata = [int((41 - files[name]) // 4) for name in sample]
        assert strata == list(range(11))
    # Every file may be drawn.
    assert {name for sample in samples for name in sample} == files.keys()


def test_a_sample_is_drawn_from_the_files_of_both_checkouts(tmp_path: Path) -> None:
    for n, folder in enumerate(WHOLE):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"test_new_{n}.py").write_text("")
    files = files_of(ROOT, tmp_path)
    assert files["tests/unit/test_new_0.py"] == 0.0
    assert files["tests/integration/test_run.py"] > 10


def test_two_checkouts_run_the_sample_in_turns(tree: Path) -> None:
    for folder in WHOLE:
        (tree / folder).mkdir()
    (tree / "tests/test_small.py").rename(tree / WHOLE[0] / "test_small.py")
    code = (
        "import benchmarks.test_suite as measured\n"
        "measured.LINTERS = (('ruff', '--version'),)\n"
        "root = Path.cwd()\n"
        "for suite in measured.run_sample((root, root / 'none'), 2, 0, []):\n"
        "    print(dict(suite.counts()), sorted(suite.parts))"
    )
    (tree / "none").mkdir()
    old, new = in_a_process(code, tree).splitlines()
    assert old == (
        "{'passed': 2, 'failed': 1, 'skipped': 1} ['ruff --version', 'tests 1']"
    )
    assert new == "{} ['ruff --version']"


def test_programs_that_fail_are_told_by_their_code(tmp_path: Path) -> None:
    code = (
        f"print(cost([sys.executable, '-c', 'print(7); raise SystemExit(3)'], "
        f"Path({str(tmp_path)!r}), os.environ))"
    )
    said = in_a_process(code, tmp_path)
    assert "code=3" in said
    assert r"said='7\n'" in said
