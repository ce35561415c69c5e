"""The benchmarks' command line: names, options and what counts as equal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks.__main__ import differences, filled, names, options, unclocked

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


def stored_commands() -> dict[str, str]:
    return {
        file.stem: json.loads(file.read_bytes())["command"]
        for file in sorted(command_line.RESULTS.glob("*.json"))
    }


@pytest.mark.parametrize("name", stored_commands())
def test_a_stored_command_is_run_as_it_is_or_says_what_it_lacks(name: str) -> None:
    command = stored_commands()[name]
    if "FOLDER" not in command:
        assert filled(name, command, ()) == options(name, command)
        return
    with pytest.raises(LookupError) as said:
        filled(name, command, ())
    assert f"{name} cannot be run again as it is stored" in str(said.value)
    assert f"python -m benchmarks verify {name} --" in str(said.value)


def test_folders_of_this_machine_take_their_places(tmp_path: Path) -> None:
    command = "python -m benchmarks a-b --data FOLDER --n 3 --packages FOLDER --write"
    data, packages = tmp_path / "data", tmp_path / "packages"
    for folder in (data, packages):
        folder.mkdir()
    given = ["--packages", str(packages), "--data", str(data)]
    found = filled("a-b", command, given)
    assert found == f"--data {data} --n 3 --packages {packages} --write".split()
    for few, said in (
        (given[:2], r"its command has --data FOLDER, and"),
        ([*given, "--n", "4"], "--n fills in nothing"),
        ([*given[:3], str(tmp_path / "no")], "which is no folder"),
        ([*given[:3]], "its command has --data FOLDER"),
    ):
        with pytest.raises(LookupError, match=said):
            filled("a-b", command, few)


def test_a_benchmark_that_cannot_be_run_again_says_so_and_runs_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command_line, "RESULTS", tmp_path)
    monkeypatch.setattr(command_line, "run", lambda *_: pytest.fail("it was run"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "verify", "slices"])
    assert command_line.main() == 2
    assert "slices has no stored result" in capsys.readouterr().err
    result = {"command": "python -m benchmarks slices --packages FOLDER --write"}
    (tmp_path / "slices.json").write_text(json.dumps(result))
    assert command_line.main() == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "verify slices --packages DIR" in told


def test_seconds_are_not_compared_but_everything_else_is() -> None:
    stored = {"rows": [{"gap": 0.1, "cpu_s": 3}], "n": 1}
    assert unclocked(stored) == {"rows": [{"gap": 0.1}], "n": 1}
    found = {"rows": [{"gap": 0.2, "cpu_s": 9}], "n": 1}
    assert differences(unclocked(stored), unclocked(found)) == [
        ".rows[0].gap: 0.1 -> 0.2"
    ]
    assert differences([1], [1, 2], "x") == ["x: [1] -> [1, 2]"]
