"""What the compiled pipeline's exit task becomes on this machine."""

from __future__ import annotations

import copy

import pytest
import yaml

from pipelines.compile import compile_train
from pipelines.local.exit_task import for_this_machine, is_exit_task, leave_word
from safescale_ammt.errors import InputError
from safescale_ammt.releasing.run_outcome import RunOutcome


@pytest.fixture(scope="module")
def graph():
    return next(iter(yaml.safe_load_all(compile_train())))


def exit_tasks(spec):
    tasks = spec["root"]["dag"]["tasks"]
    return [name for name, task in tasks.items() if is_exit_task(task)]


def test_with_nobody_to_tell_no_exit_task_is_started_here(graph):
    spec = copy.deepcopy(graph)
    assert exit_tasks(spec) == ["notify"]
    for_this_machine(spec, {"SAFESCALE_WEBHOOK_URL": ""})
    assert exit_tasks(spec) == []
    assert list(spec["root"]["dag"]["tasks"]) == ["exit-handler-1"]
    guarded = "comp-exit-handler-1"
    assert spec["components"][guarded] == graph["components"][guarded]


@pytest.mark.parametrize("place", ["SAFESCALE_WEBHOOK_URL", "SAFESCALE_NOTIFY_FILE"])
def test_with_a_place_to_tell_it_stays(graph, place):
    spec = copy.deepcopy(graph)
    for_this_machine(spec, {place: "file:///told.json"})
    assert spec == graph


def test_the_runs_own_id_takes_the_place_of_kubeflows(graph):
    spec = copy.deepcopy(graph)
    for_this_machine(spec, {"SAFESCALE_NOTIFY_FILE": "file:///told.json"}, "r-1")
    assert "pipeline_job_uuid" not in str(spec)
    assert str(spec).count("'constant': 'r-1'") == 2


def test_a_graph_without_an_exit_task_is_left_alone():
    spec = {"root": {"dag": {"tasks": {"a": {"triggerPolicy": {}}, "b": {}}}}}
    before = copy.deepcopy(spec)
    for_this_machine(spec, {}, "r-1")
    assert spec == before


def test_the_reason_of_a_crash_is_left_for_the_exit_task(file_store):
    leave_word(file_store, "r-1", InputError("people.csv does not exist."))
    left = RunOutcome.read(file_store, "r-1")
    assert left is not None
    assert (left.status, left.sentence) == ("crashed", "people.csv does not exist.")


def test_the_gates_own_word_stands(file_store):
    RunOutcome.now(run="r-1", status="refused", sentence="No.").write(file_store)
    leave_word(file_store, "r-1", InputError("people.csv does not exist."))
    left = RunOutcome.read(file_store, "r-1")
    assert left is not None
    assert left.status == "refused"
