"""What KFP's API says of a run, held against what a real plane answered."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kfp_server_api as kfp
import pytest

from pipelines.kubeflow.endings import GateRecord, conclude
from pipelines.kubeflow.run_state import (
    attempts,
    find_break,
    task_states,
    waiting_pods,
    was_stopped,
)

RECORDED = Path(__file__).parents[1] / "replay" / "recorded"
TITLES = {
    "prepare-data": "Prepare data",
    "search-architecture": "Search architecture",
    "train-agents": "Train agents",
    "evaluate-safety": "Evaluate safety",
    "register-model": "Register model",
    "notify": "Notify",
}
STOPPED, WAITED, FAILED = (
    "kfp-follow-terminated",
    "kfp-stopped-while-waiting-for-a-node",
    "kfp-stage-fails-missing-file",
)


def recorded(name: str) -> Any:
    """Returns the last whole answer about the run of a recorded flow."""
    flow = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    answers = [e["answer"] for e in flow if "run_details" in e.get("answer", {})]
    body = json.dumps({**answers[-1], "pipeline_spec": None})
    return kfp.ApiClient().deserialize(SimpleNamespace(data=body), "V2beta1Run")


@pytest.mark.parametrize("name", [STOPPED, WAITED])
def test_a_run_that_was_stopped_on_a_real_plane_is_known_as_such(name):
    run = recorded(name)
    assert run.state == "FAILED"
    assert was_stopped(run)
    end = conclude(run, GateRecord(), TITLES, namespace="safescale")
    assert (end.status, end.code) == ("cancelled", 1)
    assert end.sentence == (
        f"Run {run.run_id} was stopped in 'Search architecture'; Kubeflow does not say "
        "by whom."
    )


def test_the_exit_task_that_never_ran_is_told_from_the_one_that_did():
    assert task_states(recorded(STOPPED))["notify"] == ""
    assert task_states(recorded(WAITED))["notify"] == "SUCCEEDED"


def test_a_stage_that_failed_on_a_real_plane_is_named_with_its_pod():
    run = recorded(FAILED)
    assert not was_stopped(run)
    found = find_break(run, TITLES)
    assert (found.where, found.step) == (" in 'Prepare data'", "prepare-data")
    # Argo's hash (32-bit FNV-1a) of the node's name, which the pod's name ends in.
    hashed = 0x811C9DC5
    path = "safescale-train-tlfj8(0).root(0).exit-handler-1(0).prepare-data(0)"
    for byte in f"{path}.executor(0)".encode():
        hashed = (hashed ^ byte) * 0x01000193 & 0xFFFFFFFF
    assert found.pod == f"-{hashed}" == "-41670439"


def status(state: str, second: int) -> Any:
    at = datetime(2026, 11, 29, tzinfo=UTC) + timedelta(seconds=second)
    return kfp.V2beta1RuntimeStatus(update_time=at, state=state)


def task(name: str, state: str, start: int, end: int | None = None) -> Any:
    began = datetime(2026, 11, 29, tzinfo=UTC)
    return kfp.V2beta1PipelineTaskDetail(
        display_name=name,
        state=state or None,
        start_time=began + timedelta(seconds=start),
        end_time=None if end is None else began + timedelta(seconds=end),
    )


def run_of(history: list[Any], *tasks: Any) -> Any:
    details = kfp.V2beta1RunDetails(task_details=list(tasks))
    last = history[-1].state if history else None
    return kfp.V2beta1Run(
        run_id="r", state=last, state_history=history, run_details=details
    )


RETRIED = [
    status(state, second)
    for second, state in (
        (0, "PENDING"),
        (1, "RUNNING"),
        (9, "FAILED"),
        (20, "RUNNING"),
    )
]


def test_what_failed_before_a_run_was_tried_again_does_not_count():
    old, new = task("train-agents", "FAILED", 5, 8), task("train-agents", "RUNNING", 21)
    for order in ((old, new), (new, old), (old,)):
        states = task_states(run_of(RETRIED, *order))
        assert states.get("train-agents", "") != "FAILED"
    again = run_of([*RETRIED, status("FAILED", 40)], old, task("a", "FAILED", 22, 30))
    assert task_states(again) == {"a": "FAILED"}
    assert len(attempts(again)) == 2


def test_a_stop_of_an_earlier_try_is_no_stop_of_this_one():
    stopped = [status("RUNNING", 1), status("CANCELING", 5), status("FAILED", 9)]
    assert was_stopped(run_of(stopped))
    assert not was_stopped(run_of([*stopped, status("RUNNING", 20)]))
    # Told twice, an end is one end.
    assert len(attempts(run_of([*stopped, status("FAILED", 10)]))) == 1


def test_of_equal_names_the_newest_counts_whatever_the_order():
    first, second = task("a", "FAILED", 1, 2), task("a", "SUCCEEDED", 3, 4)
    for order in ((first, second), (second, first)):
        assert task_states(run_of([status("RUNNING", 0)], *order)) == {"a": "SUCCEEDED"}


def test_a_run_that_shows_no_task_yet_waits_for_its_first_driver():
    assert waiting_pods(run_of([status("PENDING", 0)])) == ["root-driver"]
    going = run_of([status("RUNNING", 0)], task("executor(0)", "RUNNING", 1))
    assert waiting_pods(going) == []


def test_a_run_without_history_or_tasks_breaks_nothing():
    bare = kfp.V2beta1Run(run_id="r", state="FAILED")
    assert attempts(bare) == [[]]
    assert not was_stopped(bare)
    end = conclude(bare, GateRecord(), TITLES, namespace="team")
    assert "broke off before its gate had spoken" in end.sentence
    assert "kubectl -n team logs -l pipeline/runid=r -c main" in end.sentence
