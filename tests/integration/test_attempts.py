"""`submit --attempts`: anew where the cluster broke a run off, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import submit_world
from cluster.api import ClusterApi
from cluster.run_pods import add_pod, add_workflow, ended
from kfp_api.lives import node
from kfp_api.server import KfpApi
from kfp_api.state import FAILED, SUCCEEDED
from kfp_api.world import life
from submit_world import leave_home

from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.store.uri import open_store

LAUNCHER = (
    "F1129 10:23:20.1 18 main.go:79] failed to execute component: failed to upload "
    'output artifact "architecture" to remote storage URI "minio://mlpipeline/v2": '
    "dial tcp 10.96.0.9:9000: connect: connection refused"
)


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Nothing of this machine's own reaches the command."""
    leave_home(monkeypatch, tmp_path)
    monkeypatch.setattr("pipelines.kubeflow.endings._LATE", 0.1)


@pytest.fixture
def api():
    with KfpApi() as api:
        yield api


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with ClusterApi() as cluster:
        file = cluster.write_kubeconfig(tmp_path / "kubeconfig")
        monkeypatch.setenv("KUBECONFIG", str(file))
        yield cluster


def submit(api: KfpApi, *more: str) -> int:
    return submit_world.submit(api, "--name", "one", *more)


def named(api: KfpApi, name: str) -> Any:
    (run,) = [r for r in api.world.runs.values() if r.display_name == name]
    return run


def broken(api: KfpApi, stage: str = "search-architecture", name: str = "one") -> Any:
    """Puts a run there that broke off in a stage."""
    api.world.script = life(FAILED, at=stage)
    assert submit(api, "--no-wait", "--name", name) == 0
    return named(api, name)


def words(sentence: str, code: int, kind: str) -> str:
    return f"{sentence} ({kind}, exit code {code})\n"


EVICTED = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": "The node was low on resource: memory. Container main was using 3Gi.",
}
LOST = {
    "evicted": EVICTED,
    "preempted": {"phase": "Failed", "reason": "Preempting", "message": "for another"},
    "killed": ended(137),
    "signalled": ended(143, words("It was stopped by SIGTERM.", 1, "Interrupted")),
    "store": ended(1, words("s3://team has not answered for 60 s.", 1, "StorageError")),
    "log": ended(1, "failed to put file: timeout", name="wait"),
}


@pytest.mark.parametrize("status", LOST.values(), ids=list(LOST))
def test_what_the_cluster_broke_off_is_begun_anew(api, cluster, capsys, status):
    run = broken(api)
    add_pod(cluster, run, "search-architecture", status)
    api.world.script = life()
    assert submit(api, "--attempts", "3") == 0
    said = capsys.readouterr().err
    assert "attempt 2 of 3: run 'one-2'" in said
    assert f"Run {run.run_id} broke off in 'Search architecture'" in said
    assert [r.display_name for r in api.world.runs.values()] == ["one", "one-2"]
    # The same order: what the first one finished is answered from the cache.
    first, second = api.world.runs.values()
    assert first.runtime_config.parameters == second.runtime_config.parameters
    assert first.pipeline_spec == second.pipeline_spec


def test_an_artifact_store_that_kfps_launcher_did_not_reach_is_such_a_reason(
    api, cluster, capsys
):
    run = broken(api)
    log = cluster.log(add_pod(cluster, run, "search-architecture", ended(1)))
    log.write(LAUNCHER)
    log.close()
    api.world.script = life()
    assert submit(api, "--attempts", "2") == 0
    assert "failed to upload output artifact" in capsys.readouterr().err


def test_a_pod_that_is_gone_is_one_where_argo_says_so(api, cluster, capsys):
    run = broken(api)
    step = {"id": node(run, "search-architecture/executor(0)"), "phase": "Error"}
    add_workflow(cluster, run, step={**step, "message": "pod deleted"})
    api.world.script = life()
    assert submit(api, "--attempts", "2") == 0
    assert "its pod was lost: pod deleted" in capsys.readouterr().err


NOT_LOST = {
    "refusal": (3, ended(1, words("A byte was changed.", 3, "IntegrityError"))),
    "input": (2, ended(1, words("s3://team/rows.csv is not there.", 2, "DataError"))),
    "no bucket": (2, ended(1, words("No bucket.", 2, "StoreInputError"))),
    "own fault": (1, ended(1, words("No agent was left.", 1, "SafescaleError"))),
    "memory": (1, ended(137, reason="OOMKilled")),
    "traceback": (1, ended(1)),
    "disk": (
        1,
        {
            "phase": "Failed",
            "reason": "Evicted",
            "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "10Gi".',
        },
    ),
    "deadline": (
        1,
        {
            **ended(143, words("It was stopped by SIGTERM.", 1, "Interrupted")),
            "reason": "DeadlineExceeded",
        },
    ),
}


@pytest.mark.parametrize(("code", "status"), NOT_LOST.values(), ids=list(NOT_LOST))
def test_what_the_run_found_wrong_is_not_begun_anew(api, cluster, code, status):
    run = broken(api)
    add_pod(cluster, run, "search-architecture", status)
    api.world.script = life()
    assert submit(api, "--attempts", "3") == code
    assert len(api.world.runs) == 1


def test_what_nobody_knows_is_not_begun_anew(api):
    broken(api)
    api.world.script = life()
    assert submit(api, "--attempts", "3") == 1
    assert len(api.world.runs) == 1


def test_a_run_that_somebody_stopped_is_not_begun_anew(api, cluster):
    api.world.script = life()
    assert submit(api, "--no-wait") == 0
    run = named(api, "one")
    api.world.look_at(run.run_id)
    api.world.terminate(run.run_id)
    gone = ended(143, words("It was stopped by SIGTERM.", 1, "Interrupted"))
    add_pod(cluster, run, "prepare-data", gone)
    assert submit(api, "--attempts", "3") == 1
    assert len(api.world.runs) == 1


def test_a_refusal_of_the_gate_is_not_begun_anew(api, cluster, tmp_path):
    run = broken(api, "register-model")
    store = (tmp_path / "store").as_uri()
    said = "Model sha256:a is refused."
    outcome = RunOutcome.now(run=run.run_id, status="refused", sentence=said)
    outcome.write(open_store(store))
    add_pod(cluster, run, "register-model", EVICTED)
    assert submit(api, "--attempts", "3", "--store", store) == 3
    assert len(api.world.runs) == 1


def test_attempts_end_with_their_number_and_tell_the_last_one(api, cluster, capsys):
    first = broken(api)
    second = broken(api, name="one-2")
    for run in (first, second):
        add_pod(cluster, run, "search-architecture", EVICTED)
    assert submit(api, "--attempts", "2") == 1
    assert len(api.world.runs) == 2
    end = capsys.readouterr().err.splitlines()[-1]
    assert end.startswith(f"Run {second.run_id} broke off in 'Search architecture'")


def test_who_was_killed_and_comes_again_finds_each_attempt(api, cluster, capsys):
    for name in ("one", "one-2"):
        run = broken(api, name=name)
        add_pod(cluster, run, "search-architecture", EVICTED)
    api.world.script = life()
    for _ in range(2):
        assert submit(api, "--attempts", "4") == 0
        assert "attempt 3 of 4: run 'one-3'" in capsys.readouterr().err
    names = [r.display_name for r in api.world.runs.values()]
    assert names == ["one", "one-2", "one-3"]
    assert named(api, "one-3").state == SUCCEEDED


def test_an_attempt_that_is_there_is_followed_when_the_pods_of_the_first_are_gone(
    api, cluster: ClusterApi, capsys
):
    broken(api)
    api.world.script = life()
    assert submit(api, "--no-wait", "--name", "one-2") == 0
    assert submit(api, "--attempts", "3") == 0
    assert "attempt 2 of 3: run 'one-2'" in capsys.readouterr().err
    assert len(api.world.runs) == 2


def test_without_the_option_nothing_is_begun_anew(api, cluster: ClusterApi):
    add_pod(cluster, broken(api), "search-architecture", EVICTED)
    assert submit(api) == 1
    assert len(api.world.runs) == 1


@pytest.mark.parametrize(
    "more", [("--no-wait",), ("--upload-only",), ("--follow", "0"), ()]
)
def test_attempts_that_nobody_can_make_are_refused(api, capsys, more):
    name = () if more else ("--name", "x" * 127)
    assert submit_world.submit(api, "--attempts", "3", *more, *name) == 2
    unread = f"--attempts means nothing with {more[0]}" if more else "is no name"
    assert unread in capsys.readouterr().err
    assert not api.world.runs
