"""What a stage prints: how far it is, and what of it belongs in a run's log."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.local.stage_log import StageLog
from safescale_ammt.execution import stage
from safescale_ammt.library_logs import TALKATIVE, quiet_libraries
from safescale_ammt.stage_progress import PROGRESS, progress_of, say_progress
from safescale_ammt.training.training_log import TrainingLog

ROOT = Path(__file__).parents[2]
INFO = "[KFP Executor 2026-11-29 14:56:41,465 INFO]: "
CALL = json.dumps({"inputs": {"sensitive": ["sex"]}, "outputs": {}}, indent=4)


@pytest.fixture
def _listener(monkeypatch):
    """Somebody listens to the stages of this process."""
    monkeypatch.setenv(PROGRESS, "1")


def logged(*pieces: str) -> tuple[list[str], list[dict[str, object]]]:
    """Returns the lines that reach the log, and the events."""
    file, events = io.StringIO(), []
    log = StageLog(file, lambda name, **fields: events.append({"event": name} | fields))
    for piece in pieces:
        print(piece, end="", file=log, flush=True)
    log.end_line()
    return file.getvalue().splitlines(), events


@pytest.mark.usefixtures("_listener")
@pytest.mark.parametrize(
    ("done", "whole", "share"), [(3, 12, 0.25), (0, 0, 0.0), (9, 4, 1.0), (0.5, 1, 0.5)]
)
def test_progress_is_a_line_that_is_read_back(capsys, done, whole, share):
    say_progress(done, whole, "3 of 12 candidates")
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert progress_of(printed) == (share, "3 of 12 candidates")
    # As KFP hands it on, which indents the lines of a process.
    assert progress_of("    " + printed) == (share, "3 of 12 candidates")


def test_nothing_is_printed_where_nobody_listens(capsys, monkeypatch):
    monkeypatch.delenv(PROGRESS, raising=False)
    say_progress(1, 2, "half")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "line",
    [
        "",
        "safescale-progress ",
        "safescale-progress {",
        "safescale-progress []",
        'safescale-progress {"share": "much", "text": ""}',
        'safescale-progress {"share": 0.5}',
        'He said: safescale-progress {"share": 0.5, "text": "x"}',
    ],
)
def test_a_line_that_only_looks_like_progress_is_none(line):
    assert progress_of(line) is None
    assert logged(line + "\n") == ([line] if line else [], [])


@pytest.mark.usefixtures("_listener")
def test_progress_becomes_an_event_and_leaves_no_line_in_the_log(capsys):
    say_progress(1, 4, "rows read")
    line = capsys.readouterr().out
    lines, events = logged("before\n    ", line, "after\n")
    assert lines == ["before", "after"]
    assert events == [{"event": "progress", "share": 0.25, "text": "rows read"}]


@pytest.mark.parametrize("indent", ["    ", ""])
def test_what_kfp_says_of_itself_is_not_in_the_log(indent):
    text = f"{INFO}Got executor_input:\n{CALL}\nStep 20: none enforced.\n{INFO}Wrote."
    lines = [indent + line + "\n" for line in text.splitlines()]
    assert logged(*lines, indent + "\n", "-" * 80 + "\n")[0] == [
        indent + "Step 20: none enforced."
    ]


def test_a_call_that_breaks_off_takes_no_line_of_the_next_stage_along():
    head = CALL.splitlines()[:2]
    text = "\n".join([INFO + "Got executor_input:", *head, "prepare_data broke.", "}"])
    assert logged(text + "\n")[0] == ["prepare_data broke.", "}"]


def test_json_and_braces_of_our_own_stay_in_the_log():
    text = '{\n    "a": 1\n}\n'
    assert logged(text)[0] == text.splitlines()


def test_warnings_of_ours_and_errors_of_others_stay_in_the_log():
    lines = [
        "[KFP Executor 2026-11-29 14:56:41,465 WARNING]: The store does not answer.",
        "[KFP Executor 2026-11-29 14:56:41,465 ERROR]: It broke.",
        "14:56:41.214 - ERROR - Task 'train-agents' finished with status FAILURE",
    ]
    coloured = lines[2].replace("FAILURE", "\x1b[91mFAILURE\x1b[0m")
    assert logged("\n".join([*lines[:2], coloured]) + "\n")[0] == lines


def test_a_line_in_pieces_is_one_line_and_the_last_needs_no_end():
    assert logged("  ", "half", " a line\nkilled her")[0] == [
        "  half a line",
        "killed her",
    ]


def test_libraries_are_quiet_in_a_stage_but_for_errors_and_ours_is_not(
    tmp_path, caplog
):
    with stage("prepare_data", tmp_path / "dataset"):
        for name in (*TALKATIVE, "safescale_ammt.store.s3_retry"):
            logging.getLogger(f"{name}.inner").warning("of %s", name)
        logging.getLogger("urllib3.connectionpool").error("an error")
    assert [record.getMessage() for record in caplog.records] == [
        "of safescale_ammt.store.s3_retry",
        "an error",
    ]


def test_libraries_speak_as_before_once_the_stage_is_over(caplog):
    logger = logging.getLogger("urllib3")
    level = logger.level
    with quiet_libraries():
        assert logger.getEffectiveLevel() == logging.ERROR
    assert logger.level == level


def test_a_command_shows_no_warning_of_a_library_unless_it_is_asked_to():
    program = """
import click, logging, warnings
import pipelines.cli as c

def body():
    warnings.warn("of a library")
    logging.getLogger("urllib3").warning("a retry")

c.LazyGroup.get_command = lambda *_: click.Command("runs", callback=body)
c.main(["runs"])
"""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONWARNINGS"}
    environ |= {"PYTHONPATH": str(ROOT)}
    for options, said in (([], ""), (["-W", "always"], "of a library")):
        command = [sys.executable, *options, "-c", program]
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, check=True
        )
        assert said in done.stderr
        assert bool(done.stderr) == bool(said)


@pytest.mark.usefixtures("_listener")
def test_training_says_its_steps_of_the_steps_that_are_planned(tmp_path, capsys):
    with TrainingLog(tmp_path / "log.jsonl") as log:
        log.write({"event": "plan", "steps": 80})
        log.write({"event": "trunk", "step": 20, "loss": [0.5]})
        log.write({"event": "trunk", "step": 21, "loss": [0.5]})
    assert progress_of(capsys.readouterr().out) == (0.25, "step 20 of 80")
