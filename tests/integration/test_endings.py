"""Every ending of a run is told as it was: stopped, broken, waiting, gone, again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster.api import ClusterApi
from cluster.run_pods import (
    add_pod,
    add_workflow,
    ended,
    held,
    unscheduled,
    warn,
)
from kfp_api.lives import node
from kfp_api.server import KfpApi
from kfp_api.state import FAILED, RUNNING, SUCCEEDED, Scene
from kfp_api.world import life
from patience import PATIENCE
from receiver import receiving
from submit_world import interrupted, leave_home, submit

from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.stages.notify import run as exit_task
from safescale_ammt.store.uri import open_store

ROOT = Path(__file__).parents[2]
LONG = f"{PATIENCE:g}"


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Nothing of this machine's own reaches the command."""
    leave_home(monkeypatch, tmp_path)
    monkeypatch.setattr("pipelines.kubeflow.endings._LATE", 0.1)


@pytest.fixture
def api():
    with KfpApi() as api:
        api.world.script = life()
        yield api


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with ClusterApi() as cluster:
        monkeypatch.setenv(
            "KUBECONFIG", str(cluster.write_kubeconfig(tmp_path / "kubeconfig"))
        )
        yield cluster


@pytest.fixture
def store(tmp_path, monkeypatch) -> str:
    """The store of data and ledger; the environment names it, too."""
    uri = (tmp_path / "store").as_uri()
    monkeypatch.setenv("SAFESCALE_STORE", uri)
    return uri


@pytest.fixture
def told(tmp_path, monkeypatch):
    """The file that a notice goes to."""
    file = tmp_path / "told.json"
    monkeypatch.setenv("SAFESCALE_NOTIFY_FILE", file.as_uri())
    return file


def started(api: KfpApi, *more: str) -> Any:
    """Starts a run, follows it not, and returns it as the server has it."""
    assert submit(api, "--no-wait", "--name", "one", *more) == 0
    return next(iter(api.world.runs.values()))


def follow(api: KfpApi, run: Any, *more: str) -> int:
    return submit(api, "--follow", run.run_id, *more)


def once(holds: Callable[[], bool], act: Callable[[], object]) -> None:
    """Does something meanwhile, as soon as something holds."""

    def wait() -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if holds():
                act()
                return
            time.sleep(0.02)

    threading.Thread(target=wait, daemon=True).start()


def followed(api: KfpApi, run: Any) -> Callable[[], bool]:
    """Asks whether somebody is by now following a run."""
    before = api.count("GET", f"/runs/{run.run_id}")
    return lambda: api.count("GET", f"/runs/{run.run_id}") > before + 2


def last(capsys) -> str:
    """The last line of either stream."""
    shown = capsys.readouterr()
    return (shown.err or shown.out).splitlines()[-1]


# Stopped is not broken.


@pytest.mark.parametrize("exit_runs", [True, False])
def test_a_run_that_somebody_stopped_is_called_stopped(api, capsys, store, exit_runs):
    api.world.exit_runs = exit_runs
    run = started(api)
    api.world.look_at(run.run_id)
    api.world.terminate(run.run_id)
    assert follow(api, run, "--store", store) == 1
    said = capsys.readouterr().err
    assert "the run is being stopped" in said
    end = said.splitlines()[-1]
    assert end == (
        f"Run {run.run_id} was stopped in 'Prepare data'; Kubeflow does not say by "
        "whom."
    )
    assert run.state == FAILED  # as a real plane has it: never CANCELED


def test_a_stop_after_the_gate_has_spoken_takes_nothing_back(api, capsys, store):
    run = started(api)
    for _ in life()[:-1]:
        api.world.look_at(run.run_id)
    said = "loans version 3 is champion."
    outcome = RunOutcome.now(run=run.run_id, status="champion", sentence=said)
    outcome.write(open_store(store))
    api.world.terminate(run.run_id)
    assert follow(api, run, "--store", store) == 0
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_whoever_follows_tells_of_a_stop_that_the_exit_task_could_not(
    api, store, told, capsys
):
    api.world.exit_runs = False
    run = started(api)
    api.world.look_at(run.run_id)
    api.world.terminate(run.run_id)
    assert follow(api, run, "--store", store) == 1
    notice = json.loads(told.read_text())
    assert (notice["status"], notice["run"]) == ("cancelled", run.run_id)
    assert "was stopped" in notice["sentence"]
    told.unlink()
    assert follow(api, run, "--store", store) == 1
    assert not told.exists(), "this end has been told"
    assert "Nobody was told again" in capsys.readouterr().err


def test_where_the_exit_task_ran_nobody_else_tells(api, store, told):
    run = started(api)
    api.world.look_at(run.run_id)
    api.world.terminate(run.run_id)
    assert follow(api, run, "--store", store) == 1
    assert not told.exists()


def test_two_that_follow_one_run_tell_once(api, store, monkeypatch):
    api.world.exit_runs = False
    run = started(api)
    api.world.look_at(run.run_id)
    api.world.terminate(run.run_id)
    with receiving() as receiver:
        monkeypatch.setenv("SAFESCALE_WEBHOOK_URL", receiver.url)
        codes = [follow(api, run, "--store", store) for _ in range(3)]
        assert len(receiver.requests) == 1
    assert codes == [1, 1, 1]


def test_whoever_asked_not_to_hear_of_stops_hears_nothing(api, store, told):
    api.world.exit_runs = False
    run = started(api, "--param", "notify_on=refused")
    api.world.look_at(run.run_id)
    api.world.terminate(run.run_id)
    assert follow(api, run, "--store", store) == 1
    assert not told.exists()


@pytest.mark.usefixtures("store")
def test_whoever_stops_a_run_tells_of_it_and_the_exit_task_does_not_again(
    api, told, tmp_path
):
    said = interrupted(api, tmp_path, "--cancel-on-interrupt")
    (run,) = api.world.runs.values()
    notice = json.loads(told.read_text())
    assert (notice["status"], notice["run"]) == ("cancelled", run.run_id)
    assert said.splitlines()[-1].endswith("is being stopped, as asked.")
    told.unlink()
    exit_task(run.run_id, "RUNNING", "", "all")
    assert not told.exists()


# A refusal does not look like a crash, and a crash says why.


def words(sentence: str, code: int, kind: str = "DataError") -> str:
    return f"{sentence} ({kind}, exit code {code})\n"


MISSING = "s3://team/rows.csv does not exist."


def broken(api: KfpApi, stage: str = "prepare-data") -> Any:
    api.world.script = life(FAILED, at=stage)
    return started(api)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("kind", "code"), [("DataError", 2), ("StorageError", 1)])
def test_a_step_that_failed_is_told_in_its_own_words_with_its_own_code(
    api, cluster, capsys, kind, code
):
    run = broken(api)
    add_pod(cluster, run, "prepare-data", ended(1, words(MISSING, code, kind)))
    assert follow(api, run) == code
    assert last(capsys) == (f"Run {run.run_id} broke off in 'Prepare data': {MISSING}")


def test_a_step_out_of_memory_is_told_with_its_limit(api, cluster, store, capsys):
    run = broken(api, "train-agents")
    add_pod(cluster, run, "train-agents", ended(137, reason="OOMKilled"))
    assert follow(api, run, "--store", store) == 1
    said = last(capsys)
    assert "in 'Train agents': its memory went over the limit of 4Gi" in said
    assert "OOMKilled" in said


def test_an_eviction_is_told_in_the_kubelets_words(api, cluster, store, capsys):
    run = broken(api)
    status = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
    add_pod(cluster, run, "prepare-data", status)
    assert follow(api, run, "--store", store) == 1
    assert last(capsys).endswith("in 'Prepare data': Evicted: low on memory.")


def test_a_log_that_argo_could_not_store_is_no_fault_of_the_step(
    api, cluster, store, capsys
):
    run = broken(api)
    status = ended(1, "failed to put file: timeout", name="wait")
    add_pod(cluster, run, "prepare-data", status)
    assert follow(api, run, "--store", store) == 1
    assert "Argo's container wait failed: failed to put file" in last(capsys)


def test_what_no_frame_of_ours_saw_is_found_in_the_log(api, cluster, store, capsys):
    run = broken(api)
    pod = add_pod(cluster, run, "prepare-data", ended(1))
    log = cluster.log(pod)
    log.write("Traceback (most recent call last):")
    log.write("ModuleNotFoundError: No module named 'kfp'")
    log.write("I1129 10:23:20.1 18 launcher_v2.go:171] publish success.")
    log.write('time="2026-11-29T10:23:20" level=info msg="sub-process exited"')
    log.close()
    assert follow(api, run, "--store", store) == 1
    assert "ModuleNotFoundError: No module named 'kfp'" in last(capsys)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("verb", [("list", "pods"), None])
def test_without_a_right_to_look_the_pod_and_the_command_are_named(
    api, cluster, capsys, monkeypatch, verb
):
    run = broken(api)
    add_pod(cluster, run, "prepare-data", ended(1, words(MISSING, 2)))
    if verb:
        cluster.forbid(*verb)
    else:
        monkeypatch.delenv("KUBECONFIG")
    assert follow(api, run) == 1
    said = last(capsys)
    number = node(run, "prepare-data/executor(0)").rpartition("-")[2]
    assert f"name ends in -{number}" in said
    assert (
        f"kubectl -n safescale logs -l pipeline/runid={run.run_id},"
        "app.kubernetes.io/component=prepare-data -c main"
    ) in said
    assert "last line" not in said


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("driver", ["root-driver", "exit-handler-1-driver"])
def test_a_first_driver_that_fails_is_before_the_first_step(
    api, cluster, told, capsys, driver
):
    run = started(api)
    api.world.look_at(run.run_id)
    run.state = FAILED
    details = run.run_details.task_details
    kept = [t for t in details if t.display_name in (driver, f"{driver}(0)")]
    for task in kept:
        task.state = FAILED
    run.run_details.task_details = kept
    pod = add_pod(cluster, run, "", ended(1), driver=driver)
    line = "F1129 10:22:48.1 18 main.go:79] KFP driver: secret not found"
    cluster.log(pod).write(line)
    cluster.log(pod).close()
    assert follow(api, run) == 1
    assert last(capsys).endswith(
        "broke off before its first step: KFP driver: secret not found."
    )
    # The exit handler never began, so nobody else can tell.
    assert json.loads(told.read_text())["status"] == "crashed"


def test_a_driver_between_the_steps_is_read_from_its_own_pod(
    api, cluster, store, capsys
):
    tasks = {"prepare-data": SUCCEEDED, "search-architecture-driver": FAILED}
    api.world.script = (Scene(FAILED, tasks),)
    run = started(api)
    name = "search-architecture-driver"
    pod = add_pod(cluster, run, "", ended(1), driver=name)
    cluster.log(pod).write("F1129 10:22:48.1 18 main.go:79] KFP driver: no input")
    cluster.log(pod).close()
    assert follow(api, run, "--store", store) == 1
    assert "in 'Search architecture': KFP driver: no input" in last(capsys)


def test_a_refusal_is_known_without_a_store_by_the_gates_own_pod(api, cluster, capsys):
    run = broken(api, "register-model")
    sentence = "useful is violated; refused, nothing was registered: model sha256:a."
    add_pod(cluster, run, "register-model", ended(1, words(sentence, 3, "Refusal")))
    assert follow(api, run) == 3
    assert last(capsys) == sentence


# Waiting says why.


@pytest.fixture
def waiting(api, monkeypatch):
    """A run whose search waits for a pod; every look comes after the patience."""
    monkeypatch.setattr("pipelines.kubeflow.follow.STILL", 0.2)
    monkeypatch.setattr("pipelines.kubeflow.cluster_view._PATIENCE", 0.1)
    tasks = {"prepare-data": SUCCEEDED, "search-architecture": RUNNING}
    scene = Scene(RUNNING, tasks, waiting=("search-architecture",))
    api.world.script = (scene,) * 10_000
    return started(api)


def waits(api: KfpApi, run: Any, capsys) -> str:
    """Follows a run, and returns what it is said to wait for."""
    # A second is enough but on a machine that is busy with something else.
    for seconds in ("1", "20", LONG):
        assert follow(api, run, "--timeout", seconds) == 1
        shown = capsys.readouterr().err
        lines = [x for x in shown.splitlines() if "] Search architecture waits" in x]
        if lines:
            break
    (line,) = lines
    reason = line.split(" waits: ", 1)[1]
    assert f"goes on; it waits: {reason}; `safescale submit --follow" in shown
    return reason


NO_NODE = "0/1 nodes are available: 1 Insufficient cpu."
QUOTA = 'pods "x" is forbidden: exceeded quota: safescale, used: limits.cpu=32'
SECRET = 'secret "mlpipeline-minio-artifact" not found'


@pytest.mark.parametrize(
    "case",
    [
        (unscheduled(NO_NODE), None, f"Unschedulable: {NO_NODE}"),
        (held("ImagePullBackOff", "no such tag"), None, "ImagePullBackOff: no such"),
        (held("CreateContainerConfigError", SECRET, init=True), None, SECRET),
        (
            held("PodInitializing"),
            ("FailedMount", f"MountVolume.SetUp failed: {SECRET}"),
            f"FailedMount: MountVolume.SetUp failed: {SECRET}",
        ),
    ],
)
def test_a_run_that_stands_still_says_why_in_the_clusters_words(
    api, cluster, waiting, capsys, case
):
    status, warning, said = case
    add_workflow(cluster, waiting)
    pod = add_pod(cluster, waiting, "search-architecture", status)
    if warning:
        warn(cluster, pod, "BackOff", "an older one", at="0")
        warn(cluster, pod, *warning)
    assert said in waits(api, waiting, capsys)


def test_a_full_quota_makes_no_pod_and_is_told_by_the_workflow(
    api, cluster, waiting, capsys
):
    pending = {"phase": "Pending", "type": "Pod", "message": QUOTA}
    add_workflow(cluster, waiting, n1=pending)
    assert waits(api, waiting, capsys) == QUOTA


@pytest.mark.parametrize("verb", [("*", "pods"), ("*", "workflows"), None])
def test_without_a_right_to_look_a_wait_names_the_command(
    api, cluster, waiting, capsys, verb
):
    if verb:
        cluster.forbid(*verb)
        add_workflow(cluster, waiting)
    else:
        cluster.stop()
    said = waits(api, waiting, capsys)
    assert f"kubectl -n safescale describe pods -l pipeline/runid={waiting.run_id}" in (
        said
    )


def test_a_stage_at_work_is_not_called_waiting(api, cluster, capsys, monkeypatch):
    monkeypatch.setattr("pipelines.kubeflow.follow.STILL", 0.2)
    api.world.script = (Scene(RUNNING, {"prepare-data": RUNNING}),) * 1000
    run = started(api)
    add_workflow(cluster, run)
    assert follow(api, run, "--timeout", "1") == 1
    assert "waits" not in capsys.readouterr().err


# Gone, refused, again.


def test_a_run_that_is_deleted_while_it_is_followed_is_told_as_that(
    api, store, told, capsys
):
    api.world.script = (Scene(RUNNING, {"prepare-data": RUNNING}),) * 1000
    run = started(api)
    once(followed(api, run), api.world.runs.clear)
    assert follow(api, run, "--store", store, "--timeout", LONG) == 1
    assert "was deleted from Kubeflow while it was followed" in last(capsys)
    assert json.loads(told.read_text())["status"] == "unfinished"


def test_a_verdict_outlives_the_deletion_of_its_run(api, store, capsys):
    api.world.script = (Scene(RUNNING, {"prepare-data": RUNNING}),) * 1000
    run = started(api)
    RunOutcome.now(run=run.run_id, status="pending", sentence="It is pending.").write(
        open_store(store)
    )
    once(followed(api, run), api.world.runs.clear)
    assert follow(api, run, "--store", store, "--timeout", LONG) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("It is pending. Run")


@pytest.mark.usefixtures("store")
def test_a_workflow_that_is_deleted_ends_the_following(
    api, cluster, told, capsys, monkeypatch
):
    monkeypatch.setattr("pipelines.kubeflow.follow.STILL", 0.2)
    api.world.script = (Scene(RUNNING, {"prepare-data": RUNNING}),) * 10_000
    run = started(api)
    name = add_workflow(cluster, run)

    def seen() -> bool:
        return any("/workflows" in path for _, path, *_ in [*cluster.answered])

    # Who never saw it does not know that it was deleted.
    once(seen, lambda: cluster.delete("workflows", name))
    assert follow(api, run, "--timeout", LONG) == 1
    said = last(capsys)
    assert "its Workflow was deleted, and Kubeflow shows it as RUNNING for ever" in said
    assert json.loads(told.read_text())["status"] == "unfinished"


def test_a_cluster_that_never_knew_the_run_ends_nothing(api, cluster, waiting, capsys):
    assert "KUBECONFIG names another cluster" in waits(api, waiting, capsys)


@pytest.fixture
def guarded(api, tmp_path):
    """An API that asks for a token, and the file that holds it."""
    api.tokens = {"t0ken": ("team",)}
    file = tmp_path / "token"
    file.write_text("t0ken")
    return file


def test_a_token_that_is_replaced_while_following_is_read_anew(api, guarded, capsys):
    api.world.script = (*[Scene(RUNNING, {"prepare-data": RUNNING})] * 40, *life())
    run = started(api, "--token-file", str(guarded))

    def expire() -> None:
        api.tokens = {"next": ("team",)}

    def refused() -> bool:
        return any(status == 401 for _, _, status, _ in [*api.answered])

    once(followed(api, run), expire)
    once(refused, lambda: guarded.write_text("next"))
    assert follow(api, run, "--token-file", str(guarded)) == 0
    said = capsys.readouterr().err
    assert said.count("does not accept the token") == 1
    assert said.count("the API is back after") == 1
    assert "next" not in said


@pytest.mark.parametrize("damage", ["expired", "gone"])
def test_a_token_that_stays_bad_leaves_the_run_and_says_so(
    api, guarded, capsys, damage
):
    api.world.script = (Scene(RUNNING, {"prepare-data": RUNNING}),) * 10_000
    run = started(api, "--token-file", str(guarded))

    def spoil() -> None:
        if damage == "gone":
            guarded.unlink()
        api.tokens = {}

    once(followed(api, run), spoil)
    more = ("--token-file", str(guarded), "--patience", "1", "--timeout", LONG)
    assert follow(api, run, *more) == 1
    said = capsys.readouterr().err
    assert said.count("still trying") == 1
    end = said.splitlines()[-1]
    assert f"Run {run.run_id} goes on without us; `safescale submit --follow" in end
    assert "t0ken" not in said


def test_a_run_that_is_tried_again_is_told_by_its_newest_try(api, store, told, capsys):
    run = broken(api, "search-architecture")
    assert follow(api, run, "--store", store) == 1
    assert "broke off in 'Search architecture'" in last(capsys)
    done = {"prepare-data": SUCCEEDED, "search-architecture": RUNNING}
    api.world.again = (Scene(RUNNING, done), *life()[2:])
    api.world.retry(run.run_id)
    said = "loans version 3 is champion."
    RunOutcome.now(run=run.run_id, status="champion", sentence=said).write(
        open_store(store)
    )
    assert follow(api, run, "--store", store) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == said
    assert "Search architecture failed" not in shown.err
    assert not told.exists(), "nobody asked to be told of a champion"


def test_a_second_end_is_told_by_whoever_follows_and_once(api, store, told):
    run = broken(api, "search-architecture")
    assert follow(api, run, "--store", store) == 1
    assert not told.exists(), "the exit task has told the first end"
    api.world.again = life(FAILED, at="train-agents")
    api.world.retry(run.run_id)
    for _ in range(2):
        assert follow(api, run, "--store", store) == 1
    assert "in 'Train agents'" in json.loads(told.read_text())["sentence"]
    told.unlink()
    assert follow(api, run, "--store", store) == 1
    assert not told.exists()


# A name stands for one order, and for its ending.


@pytest.mark.parametrize(
    ("status", "code"), [("champion", 0), ("refused", 3), (None, 1)]
)
def test_an_ended_run_of_a_name_says_how_it_ended_even_unfollowed(
    api, store, capsys, status, code
):
    api.world.script = life(FAILED if code else SUCCEEDED, at="register-model")
    run = started(api)
    while api.world.look_at(run.run_id).state == RUNNING:
        pass
    if status:
        RunOutcome.now(run=run.run_id, status=status, sentence="So it ended.").write(
            open_store(store)
        )
    capsys.readouterr()
    assert submit(api, "--no-wait", "--name", "one", "--store", store) == code
    said = "".join(capsys.readouterr())
    assert "So it ended." in said or not status
    assert "goes on" not in said
    assert len(api.world.runs) == 1


@pytest.mark.parametrize(
    "other",
    [
        ("--set", "training.seed=7"),
        ("--param", "train_memory=8Gi"),
        ("--no-cache",),
        ("--rehearse",),
        ("--image-prefix", "registry.test/team"),
    ],
)
def test_another_order_under_a_name_is_refused(api, capsys, other):
    run = started(api)
    assert submit(api, "--name", "one", *other) == 2
    said = last(capsys)
    assert "is there already and is another order" in said
    assert f"submit --follow {run.run_id}" in said
    assert len(api.world.runs) == 1


def test_a_run_without_a_digest_is_compared_by_its_values(api, capsys):
    run = started(api)
    run.description = ""
    assert submit(api, "--no-wait", "--name", "one") == 0
    assert submit(api, "--no-wait", "--name", "one", "--set", "training.seed=7") == 2
    assert len(api.world.runs) == 1


def test_names_of_runs_differ_by_case(api):
    assert submit(api, "--no-wait", "--name", "Nightly") == 0
    assert (
        submit(api, "--no-wait", "--name", "nightly", "--set", "training.seed=7") == 0
    )
    names = [run.display_name for run in api.world.runs.values()]
    assert names == ["Nightly", "nightly"]


def test_an_experiment_that_differs_in_case_alone_is_refused_at_once(api, capsys):
    assert submit(api, "--no-wait", "--experiment", "Credit") == 0
    assert submit(api, "--no-wait", "--experiment", "credit") == 2
    assert "is there as 'Credit'" in last(capsys)
    assert len(api.world.runs) == 1


def test_a_version_that_differs_in_case_alone_is_refused(api, capsys):
    upload = ("--upload-only", "--version-name")
    assert submit(api, *upload, "0.1.0-RC1") == 0
    assert submit(api, *upload, "0.1.0-rc1") == 2
    assert "is there as '0.1.0-RC1'" in last(capsys)


@pytest.mark.parametrize("option", ["--name", "--experiment"])
def test_a_blank_at_the_end_of_a_name_is_refused(api, capsys, option):
    assert submit(api, option, "nightly ") == 2
    assert "no blank at the end" in last(capsys)
    assert not api.requests
