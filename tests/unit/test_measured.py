"""Coverage rests in a test that takes long, and looks again at the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import measured
import pytest
from children import Child
from coverage import Coverage, CoverageData

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


def test_children_are_measured_until_those_of_their_file_have_taken_their_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "some")
    busy = "import time\nwhile time.process_time() < .2: pass"
    seen = []
    for file in ("one", "one", "one", "other"):
        with measured.children_at_first(file, 0.3):
            seen.append(os.environ.get("COVERAGE_PROCESS_CONFIG"))
            subprocess.run([sys.executable, "-S", "-c", busy], check=True)
        assert os.environ["COVERAGE_PROCESS_CONFIG"] == "some"
    assert seen == ["some", "some", None, "some"]


def test_of_the_children_of_one_test_those_start_bare_that_come_too_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "")
    busy = "import os, time\nwhile time.process_time() < .2: pass\n"
    busy += "print('COVERAGE_PROCESS_CONFIG' in os.environ)"
    seen = []
    with measured.children_at_first("a file", 0.3):
        for environ in (None, {**os.environ}, {**os.environ}):
            command = [sys.executable, "-S", "-c", busy]
            with Child(command, stdout=subprocess.PIPE, env=environ, text=True) as one:
                seen.append(one.communicate()[0].strip())
    assert seen == ["True", "True", "False"]


def written(base: Path, suffix: str) -> Path:
    data = CoverageData(str(base), suffix=suffix)
    data.add_lines({f"{number}.py": range(1, 900) for number in range(200)})
    data.write()
    return Path(data.data_filename())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_what_a_killed_process_did_not_write_to_its_end_is_taken_away(
    tmp_path: Path, share: float
) -> None:
    base = tmp_path / "seen"
    whole, torn = written(base, "host.1"), written(base, "host.2")
    written_bytes = torn.read_bytes()
    torn.write_bytes(written_bytes[: int(share * len(written_bytes))])
    assert measured.remove_torn(base) == [torn]
    assert whole.exists()
    # No warning, which would be an error here.
    together = Coverage(data_file=str(base), config_file=False)
    together.combine([str(tmp_path)], strict=True)
    assert len(together.get_data().measured_files()) == 200
