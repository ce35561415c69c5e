"""Coverage rests in a test that takes long, and looks again at the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
def busy(seconds):
    begun = time.process_time()
    while time.process_time() < begun + seconds:
        pass
def early():
    return 1
def late():
    return 2
def afterwards():
    return 3
"""
RUN = """
import json, sys, time
from pathlib import Path
from coverage import Coverage
from measured import at_first
watching = Coverage(None, config_file=False, branch=True, include=[sys.argv[1]])
watching.start()
spec = {"time": time}
exec(compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec"), spec)
for _ in range(2):
    with at_first(0.1):
        spec["early"]()
        spec["busy"](0.4)
        spec["late"]()
if sys.argv[2] == "later":
    spec["afterwards"]()
watching.stop()
print(json.dumps(sorted(watching.get_data().lines(sys.argv[1]))))
"""


def lines_seen(folder: Path, when: str) -> set[int]:
    """Returns the numbers of the lines that coverage saw."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    bare = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(program), when],
        env={**bare, "PYTHONPATH": tests},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_what_runs_first_and_what_runs_in_the_next_test_is_seen(tmp_path: Path) -> None:
    numbers = {text.strip(): n for n, text in enumerate(PROGRAM.split("\n"), 1)}
    seen = lines_seen(tmp_path, "later")
    assert {numbers["return 1"], numbers["return 3"], numbers["pass"]} <= seen
    assert numbers["return 2"] not in seen


def test_what_did_not_run_is_not_seen(tmp_path: Path) -> None:
    numbers = {text.strip(): n for n, text in enumerate(PROGRAM.split("\n"), 1)}
    assert numbers["return 3"] not in lines_seen(tmp_path, "never")
