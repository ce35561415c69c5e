"""A stage ends in one sentence, one exit code and one file."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from safescale_ammt.errors import InputError, IntegrityError, Refusal, SafescaleError
from safescale_ammt.execution import describe, error_of, stage
from safescale_ammt.files.artifacts import read_manifest, writing
from safescale_ammt.files.canonical import read_json, write_json


def ticking():
    """Returns a clock that advances one second at each look."""
    times = iter(
        datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=i) for i in range(9)
    )
    return lambda: next(times)


def make_artifact(path: Path) -> str:
    with writing(path, kind="dataset", stage="prepare_data") as draft:
        write_json(draft.folder / "schema.json", {"a": 1})
    return read_manifest(path).identity


def test_a_stage_that_is_done_says_when_it_ran_and_what_it_found(tmp_path):
    output = tmp_path / "dataset"
    with stage("prepare_data", output, clock=ticking()) as execution:
        identity = make_artifact(output)
        metadata = execution.done(output, {"features": 11})
    assert metadata == {"identity": identity, "features": 11}
    assert read_json(tmp_path / "execution.json") == {
        "stage": "prepare_data",
        "class": "",
        "code": 0,
        "sentence": "",
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:00:01+00:00",
        "summary": {"features": 11},
    }


def test_metadata_hold_no_infinity_no_page_and_no_path(tmp_path):
    make_artifact(tmp_path / "dataset")
    summary = {
        "loss": math.inf,
        "gap": math.nan,
        "accuracy": 0.9,
        "decision": "pass",
        "passed": True,
        "page": "x" * 1000,
        "text": "two\nlines",
        "report": "/some/where/report.html",
        "rows": {"train": 3},
    }
    with stage("evaluate_safety", tmp_path / "dataset") as execution:
        metadata = execution.done(tmp_path / "dataset", summary)
    assert set(metadata) == {"identity", "accuracy", "decision", "passed"}
    assert json.loads(json.dumps(metadata, allow_nan=False)) == metadata


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("Column 'sex' is not there."), 2),
        (Refusal("tpr_gap is 0.2, promised 0.08."), 3),
        (IntegrityError("weights were changed."), 3),
        (SafescaleError("The disk is full."), 1),
    ],
)
def test_an_error_becomes_its_sentence_and_its_exit_code(tmp_path, capsys, error, code):
    with pytest.raises(SystemExit) as ended, stage("train_agents", tmp_path / "model"):
        raise error
    left = read_json(tmp_path / "execution.json")
    assert ended.value.code == code
    assert (left["class"], left["code"]) == (type(error).__name__, code)
    assert left["sentence"] == str(error)
    assert capsys.readouterr().err.splitlines()[-1] == str(error)


def test_an_error_nobody_meant_keeps_its_traceback(tmp_path):
    with pytest.raises(OSError, match="odd"), stage("train_agents", tmp_path / "m"):
        raise OSError("odd\n thing")
    left = read_json(tmp_path / "execution.json")
    assert left["code"] == 1
    assert left["sentence"] == "train_agents broke: OSError: odd thing."


def test_sigterm_is_an_error_that_nobody_swallows_on_its_way(tmp_path):
    cleaned = []
    before = signal.getsignal(signal.SIGTERM)

    def body() -> None:
        with stage("train_agents", tmp_path / "model"):
            try:
                with contextlib.suppress(Exception):
                    signal.raise_signal(signal.SIGTERM)
            finally:
                cleaned.append(True)

    with pytest.raises(SystemExit) as ended:
        body()
    left = read_json(tmp_path / "execution.json")
    assert cleaned
    assert ended.value.code == 1
    assert (left["class"], left["code"]) == ("Interrupted", 1)
    assert "SIGTERM" in left["sentence"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_stage_runs_in_a_thread_too(tmp_path):
    def body() -> None:
        with stage("prepare_data", tmp_path / "dataset"):
            make_artifact(tmp_path / "dataset")

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert read_json(tmp_path / "execution.json")["code"] == 0


def test_ctrl_c_is_one_sentence():
    assert describe("train_agents", KeyboardInterrupt()) == (
        "Interrupted",
        1,
        "train_agents was stopped from the keyboard.",
    )


@pytest.mark.parametrize("code", [1, 2, 3])
def test_what_a_stage_left_becomes_an_error_of_the_same_code(code):
    error = error_of(code, "It is so.")
    assert (error.exit_code, str(error)) == (code, "It is so.")
