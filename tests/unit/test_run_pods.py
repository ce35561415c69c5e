"""How pods say why they ended or wait, and what the kubelet keeps of a stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cluster.run_pods import ended, held, unscheduled

from safescale_ammt import execution
from safescale_ammt.cluster.reasons import held_up, newest_warning
from safescale_ammt.cluster.run_pods import (
    out_of_memory,
    pod_end,
    step_end,
    why_waiting,
)
from safescale_ammt.errors import DataError, Refusal
from safescale_ammt.execution import (
    LastWords,
    leave_last_words,
    read_last_words,
    stage,
)


def pod(name: str, status: dict, stage: str = "prepare-data") -> dict:
    labels = {"app.kubernetes.io/component": stage} if stage else {}
    return {"metadata": {"name": name, "labels": labels}, "status": status}


def fail(tmp_path: Path, error: BaseException) -> str:
    """Runs a stage that fails in a container, and returns what the kubelet keeps."""
    kept = tmp_path / "termination-log"
    kept.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "TERMINATION", kept)
        (tmp_path / "out").mkdir()
        frame = stage("prepare_data", tmp_path / "out" / "dataset")
        with pytest.raises((SystemExit, type(error))), frame:
            raise error
    return kept.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DataError("No."), LastWords("DataError", 2, "No.")),
        (Refusal("Bad (worse)."), LastWords("Refusal", 3, "Bad (worse).")),
        (
            OSError("disk"),
            LastWords("OSError", 1, "prepare_data broke: OSError: disk."),
        ),
        (
            KeyError("a person's value"),
            LastWords(
                "KeyError", 1, f"prepare_data broke: KeyError: {execution.WITHHELD}."
            ),
        ),
    ],
)
def test_a_stage_leaves_its_sentence_where_kubernetes_keeps_it(tmp_path, error, words):
    assert read_last_words(fail(tmp_path, error)) == words


def test_a_stage_outside_of_kubernetes_leaves_no_file(tmp_path):
    leave_last_words(LastWords("A", 1, "b"), tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_a_long_sentence_keeps_its_code_within_what_kubernetes_keeps(tmp_path):
    text = fail(tmp_path, DataError("ä" * 5000))
    assert len(text.encode()) <= 4096
    words = read_last_words(text)
    assert words is not None
    assert (words.code, words.sentence[:3]) == (2, "äää")


@pytest.mark.parametrize(
    "text", ["", "killed", "(exit code 2)", "x (a b, exit code 2)"]
)
def test_words_of_others_are_not_taken_for_a_stages(text):
    assert read_last_words(text) is None


def test_the_last_pod_that_failed_is_the_one_and_never_the_exit_task():
    first = pod("a-1", ended(1, "Old. (A, exit code 2)"))
    second = json.loads(json.dumps(pod("a-2", ended(1, "New. (A, exit code 2)"))))
    end = second["status"]["containerStatuses"][1]["state"]["terminated"]
    end["finishedAt"] = "2026-11-29T11:00:00Z"
    told = pod("n-3", ended(1, "Not me. (A, exit code 1)"), "notify")
    found = step_end([second, told, first])
    assert found is not None
    assert (found.pod, found.sentence, found.code) == ("a-2", "New.", 2)
    named = step_end([second, told, first], "-1")
    assert named is not None
    assert named.sentence == "Old."
    assert step_end([pod("b-1", {"phase": "Succeeded"})]) is None
    assert step_end([]) is None


def test_a_step_that_a_signal_ended_says_so():
    words = "train_agents was stopped by SIGTERM before it was done."
    end = pod_end(pod("a", ended(1, f"{words} (Interrupted, exit code 1)")), "train")
    assert end.stopped
    assert pod_end(pod("a", ended(143)), "train").stopped
    assert not pod_end(pod("a", ended(1, "x (A, exit code 1)")), "train").stopped


def test_memory_is_told_with_the_limit_if_it_is_known():
    assert "limit and the kernel" in out_of_memory({"spec": {}}, "main")
    spec = {
        "containers": [{"name": "main", "resources": {"limits": {"memory": "1Gi"}}}]
    }
    assert "limit of 1Gi" in out_of_memory({"spec": spec}, "main")


def test_a_pod_on_its_way_up_waits_for_nothing():
    for reason in ("ContainerCreating", "PodInitializing"):
        assert held_up(held(reason)) == ""
    assert why_waiting([pod("a", held("PodInitializing"))], [], []) == ""
    assert why_waiting([pod("a", {"phase": "Running"})], [], []) == ""
    assert held_up(unscheduled("no node")) == "Unschedulable: no node"


def test_the_newest_warning_about_the_pod_counts_whatever_its_stamp():
    def warning(name: str, reason: str, **stamp: object) -> dict:
        return {"involvedObject": {"name": name}, "reason": reason, **stamp}

    old = warning("a", "Old", lastTimestamp="2026-11-29T10:00:00Z")
    new = warning("a", "New", eventTime="2026-11-29T10:00:00.500001Z")
    again = {"lastObservedTime": "2026-11-29T10:00:09.1Z"}
    repeated = warning("a", "Again", eventTime="2026-11-29T09:00:00Z", series=again)
    other = warning("b", "Other", lastTimestamp="2026-11-29T11:00:00Z")
    assert newest_warning([new, old]) == "New"
    assert newest_warning([new, repeated, old]) == "Again"
    assert newest_warning([]) == ""
    waits = pod("a", {"phase": "Pending"})
    assert why_waiting([waits], [old, other, new], []) == "New (pod a)"
    assert why_waiting([waits], [other], []) == ""


def test_a_workflow_that_argo_does_not_take_up_says_why():
    refused = {"status": {"phase": "Pending", "message": "waiting for a semaphore"}}
    assert why_waiting([], [], [refused]) == "waiting for a semaphore"
    assert why_waiting([], [], [{}]) == ""


@pytest.mark.parametrize("container", ["main", "wait", "init"])
def test_an_address_in_the_clusters_own_words_keeps_its_host_alone(container):
    message = (
        'failed to put file: Put "https://store:9000/logs/a?X-Amz-Credential=hush&'
        'X-Amz-Signature=hush": dial tcp 10.0.0.1:9000: connect: connection refused'
    )
    end = pod_end(pod("p", ended(1, message, name=container)), "prepare-data")
    assert "hush" not in end.sentence
    assert "https://store:9000/" in end.sentence
    assert end.sentence.endswith("connection refused")
