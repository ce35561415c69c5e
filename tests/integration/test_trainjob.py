"""The life of a TrainJob, against an API over HTTP that can be ill."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cluster.api import ClusterApi
from cluster.objects import Failure
from patience import PATIENCE, eventually
from trainjob_world import IMAGE, QUICK, Trained, World, threads, trained_locally

from safescale_ammt.cluster.access import ACCESS, Access
from safescale_ammt.cluster.ending import JobFailed
from safescale_ammt.cluster.refusals import OutOfReach
from safescale_ammt.errors import (
    ClusterError,
    ClusterInputError,
    IntegrityError,
    Refusal,
)
from safescale_ammt.files.artifacts import read_manifest
from safescale_ammt.store.uri import open_store

TAKEN = {"inputs/dataset", "inputs/architecture", "request.json", "model"}
"""What stays in the training store once the model has been taken."""


@pytest.fixture(scope="session")
def local_training(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained_locally(tmp_path_factory.getbasetemp() / "trainjob-world")


@pytest.fixture
def world(local_training: Trained, tmp_path: Path) -> Iterator[World]:
    with ClusterApi() as api:
        store = (tmp_path / "store").as_uri()
        yield World(api, local_training, tmp_path, store)
        eventually(lambda: not threads())


def same(model: Path, world: World) -> bool:
    return read_manifest(model).identity == read_manifest(world.trained.model).identity


def test_a_job_is_made_followed_and_its_model_taken(world: World) -> None:
    with world.trainer():
        model = world.step()
        assert same(model, world)
        world.until(lambda: not world.left())
    assert world.stored() == TAKEN
    assert world.lines() == [*(f"line {n} of node 0" for n in range(3)), LAST]


LAST = "last line of node 0"


def test_the_rights_of_the_list_are_enough(world: World) -> None:
    world.pod("step-1")
    world.api.allow_only(ACCESS)
    with world.trainer():
        assert same(world.step("step-1"), world)
    assert not [said for said in world.said if "may not" in said]


NEEDED = [r for r in ACCESS if r.verb != "patch" and r.resource != "events"]
"""Rights that every step needs; the other two have tests of their own."""


@pytest.mark.parametrize("right", NEEDED, ids=lambda r: f"{r.verb} {r.resource}")
def test_a_right_that_is_missing_is_named_and_nothing_leaks(
    world: World, right: Access
) -> None:
    world.pod("step-1")
    world.api.allow_only(set(ACCESS) - {right})
    told = ""
    with world.trainer():
        try:
            world.step("step-1")
        except ClusterError as error:
            told = str(error)
        group = f".{right.group}" if right.group else ""
        assert (
            "Service account safescale/safescale-pipeline may not "
            f"{right.verb} {right.resource}{group} in namespace safescale (403)"
        ) in " ".join([*world.said, told])
        if right.verb == "delete":
            world.api.delete("pods", "step-1")
        world.until(lambda: not world.left())


def test_the_right_to_patch_is_missed_by_an_adoption(world: World) -> None:
    for name in ("step-1", "step-2"):
        world.pod(name)
    world.api.forbid("patch", "trainjobs")
    with world.trainer(hold=True), world.stepping("step-1") as first:
        world.until(world.holding)
        with pytest.raises(ClusterInputError, match="may not patch trainjobs"):
            world.step("step-2")
        world.release()
        with suppress(ClusterError):
            first.result(PATIENCE)


def test_a_warning_of_the_cluster_is_said_unless_events_may_not_be_read(
    world: World,
) -> None:
    world.timeouts = replace(QUICK, pending=0.5)
    world.api.admission.append(lambda _verb, plural, body: _warn(world, plural, body))
    with pytest.raises(ClusterError, match="FailedCreate: exceeded quota: compute"):
        world.step()
    world.api.forbid("list", "events")
    with pytest.raises(ClusterError, match="is the Trainer controller running"):
        world.step()
    assert not world.left()


def test_a_warning_from_before_the_job_is_not_about_it(world: World) -> None:
    world.timeouts = replace(QUICK, pending=0.5)
    world.api.admission.append(lambda _, plural, body: _warn(world, plural, body, -60))
    with pytest.raises(ClusterError, match="the cluster gives no reason"):
        world.step()


def test_that_there_is_no_reason_is_not_said_at_once(world: World) -> None:
    world.timeouts = replace(QUICK, pending=0.6, unexplained=0.4)
    asked = time.monotonic()
    with pytest.raises(ClusterError, match="the cluster gives no reason"):
        world.step()
    assert len([said for said in world.said if "gives no reason" in said]) == 1
    assert time.monotonic() - asked > 0.4
    # In real life: within the ten seconds that a scheduler and a kubelet take.
    world.timeouts = replace(QUICK, unexplained=PATIENCE)
    with world.trainer():
        world.step()
    assert len([said for said in world.said if "gives no reason" in said]) == 1


def test_what_trainer_cannot_make_is_read_from_its_event(world: World) -> None:
    world.timeouts = replace(QUICK, pending=0.8)
    with world.trainer() as trainer:
        trainer.fails = 'jobsets.jobset.x-k8s.io "x" is forbidden: no such right'
        with pytest.raises(
            ClusterError, match=r"TrainJobResourcesCreationFailed: .* no such right"
        ):
            world.step()
        world.until(lambda: not world.left())


def test_a_full_quota_is_waited_for_and_said(world: World) -> None:
    count = "count/trainjobs.trainer.kubeflow.org"
    world.api.add("resourcequotas", "runs", spec={"hard": {count: "1"}})
    world.api.add("trainjobs", "done", spec={"suspend": True, "runtimeRef": {}})
    with world.trainer() as trainer, world.stepping() as step:
        world.until(lambda: any("exceeded quota: runs" in s for s in world.said))
        assert trainer.started == 0
        world.api.delete("trainjobs", "done")
        assert same(step.result(PATIENCE), world)
    assert len([said for said in world.said if "exceeded quota" in said]) == 1


def test_a_quota_that_stays_full_ends_the_step_with_its_words(world: World) -> None:
    world.timeouts = replace(QUICK, pending=0.3)
    count = "count/trainjobs.trainer.kubeflow.org"
    world.api.add("resourcequotas", "runs", spec={"hard": {count: "0"}})
    with (
        world.trainer(),
        pytest.raises(ClusterError, match=r"no running pod .*exceeded quota: runs"),
    ):
        world.step()
    assert not world.left()


def test_a_pod_that_was_removed_and_handed_its_model_over_is_enough(
    world: World,
) -> None:
    world.pod("step-1")
    with world.trainer(hold=True, deaf="1") as trainer:
        with world.stepping("step-1") as step:
            world.until(world.holding)
            (pod,) = [
                p for p in world.api.list("pods") if "node" in p["metadata"]["name"]
            ]
            world.api.delete("pods", pod["metadata"]["name"])
            world.until(lambda: "Failed" in str(world.job().get("status")))
            world.until(lambda: any("have not ended yet" in s for s in world.said))
            world.release()
            assert same(step.result(PATIENCE), world)
        assert trainer.started == 1
        world.until(lambda: not world.left())
    assert any("but its model is whole" in said for said in world.said)


def test_a_job_whose_pod_was_removed_is_made_anew_in_the_step(world: World) -> None:
    world.pod("step-1")
    with world.trainer(hold=True) as trainer, world.stepping("step-1") as step:
        world.until(world.holding)
        first = world.job()["metadata"]["uid"]
        (pod,) = [p for p in world.api.list("pods") if "node" in p["metadata"]["name"]]
        world.api.delete("pods", pod["metadata"]["name"])
        world.until(lambda: trainer.started == 2)
        assert world.job()["metadata"]["uid"] != first
        world.release()
        assert same(step.result(PATIENCE), world)
    said = " ".join(world.said)
    assert "ReachedMaxRestarts" not in said
    assert "reaching max number of restarts (first failed job: " in said
    assert "1 of 2 times left" not in said
    assert "2 of 2 times left" in said


@pytest.mark.parametrize("kind", ["PeerLost", "StorageError", "silently"])
def test_a_training_that_was_lost_is_begun_again_as_often_as_the_config_says(
    world: World, kind: str
) -> None:
    fail = (
        {"fail": "silently"} if kind == "silently" else {"fail": "Away.", "class": kind}
    )
    with world.trainer(fails="2", **fail) as trainer:
        assert same(world.step(restarts=2), world)
        assert trainer.started == 3
        world.until(lambda: not world.left())
    assert len([said for said in world.said if "times left" in said]) == 2


def test_a_training_that_is_lost_too_often_says_why_in_the_end(world: World) -> None:
    with world.trainer(fail="silently") as trainer:
        with pytest.raises(JobFailed, match=r"Error, 1\); its log is above"):
            world.step(restarts=1)
        assert trainer.started == 2
        world.until(lambda: not world.left())


def test_what_the_program_found_wrong_is_not_tried_again(world: World) -> None:
    with world.trainer(fail="A byte was changed.") as trainer:
        with pytest.raises(Refusal, match="A byte was changed"):
            world.step(restarts=5)
        assert trainer.started == 1


def test_a_job_is_never_deleted_in_the_foreground(world: World) -> None:
    # Trainer 2.3 starts pods of a job that still stands: the stand-in does, too.
    with world.trainer(hold=True) as trainer, world.stepping() as step:
        world.until(world.holding)
        kind = world.api.kind("trainjobs")
        name = world.job()["metadata"]["name"]
        world.api.objects.delete(kind, world.api.namespace, name, policy="Foreground")
        world.until(lambda: trainer.started >= 3)
        world.release()
        assert same(step.result(PATIENCE), world)
    assert trainer.started >= 3
    with world.trainer(fail="silently") as trainer:
        for info in list(open_store(world.store).list("jobs/")):
            open_store(world.store).delete(info.key)
        with pytest.raises(JobFailed):
            world.step(restarts=0)
        world.until(lambda: not world.left())
        assert trainer.started == 1


def test_pods_of_an_earlier_job_end_before_another_is_made(world: World) -> None:
    world.pod("step-1")
    with world.trainer(hold=True, deaf="1") as trainer:
        with world.start("step-1") as process:
            world.until(world.holding)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        world.until(lambda: not world.api.list("trainjobs"))
        assert [n for n in world.left() if n.startswith("pods/")]
        with world.stepping("step-1") as step:
            world.until(lambda: any("have not ended yet" in s for s in world.said))
            assert not world.api.list("trainjobs")
            world.release()
            # It handed its model over within its grace period: nobody trains again.
            assert same(step.result(PATIENCE), world)
        assert trainer.started == 1
        world.until(lambda: not world.left())


def test_pods_of_an_earlier_job_that_do_not_end_are_named(world: World) -> None:
    world.pod("step-1")
    world.timeouts = replace(QUICK, gone=0.5)
    with world.trainer(hold=True, deaf="1"):
        with world.start("step-1") as process:
            world.until(world.holding)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        with pytest.raises(ClusterError, match=r"still run 0\.5 s after .*node-0-0"):
            world.step("step-1")
        world.release()
        world.until(lambda: not world.left())


def _warn(world: World, plural: str, body: dict[str, Any], after: float = 1.0) -> None:
    if plural != "trainjobs":
        return
    name = body["metadata"]["name"]
    with suppress(Failure):
        world.api.add(
            "events",
            f"{name}.1",
            type="Warning",
            reason="FailedCreate",
            message="exceeded quota: compute, requested: cpu=4, limited: cpu=2",
            lastTimestamp=(datetime.now(UTC) + timedelta(seconds=after)).isoformat(),
            involvedObject={"kind": "Job", "name": f"{name}-node-0"},
        )


def test_a_token_that_is_not_known_is_one_sentence(world: World) -> None:
    world.api.token = "another"
    with pytest.raises(ClusterInputError, match=r"does not know .* \(401\)"):
        world.step()


def test_without_a_pod_of_its_own_a_step_says_so_once_and_goes_on(
    world: World,
) -> None:
    with world.trainer():
        assert same(world.step("elsewhere"), world)
    assert len([said for said in world.said if "gets no owner" in said]) == 1


def test_a_job_names_its_pod_as_owner_and_runs_the_same_image(world: World) -> None:
    pod = world.pod("step-1")
    with world.trainer(hold=True), world.stepping("step-1") as step:
        world.until(world.holding)
        job = world.job()
        assert job["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": "step-1",
                "uid": pod["metadata"]["uid"],
                "controller": False,
                "blockOwnerDeletion": False,
            }
        ]
        assert job["spec"]["trainer"]["image"] == IMAGE
        world.release()
        assert same(step.result(PATIENCE), world)


def test_a_step_killed_hard_leaves_a_job_that_its_retry_adopts(world: World) -> None:
    world.pod("step-1")
    retry = world.pod("step-2")
    with world.trainer(hold=True) as trainer:
        with world.start("step-1") as process:
            world.until(world.holding)
            process.kill()
        world.api.patch("pods", "step-1", {"status": {"phase": "Failed"}})
        with world.stepping("step-2") as step:
            world.until(lambda: any("adopting it" in said for said in world.said))
            uids = [o["uid"] for o in world.job()["metadata"]["ownerReferences"]]
            assert uids[-1] == retry["metadata"]["uid"]
            assert len(uids) == 2
            world.release()
            assert same(step.result(PATIENCE), world)
        assert trainer.started == 1
        world.until(lambda: not world.left())


def test_a_step_killed_hard_is_collected_with_its_pod(world: World) -> None:
    world.pod("step-1")
    with world.trainer(hold=True) as trainer:
        with world.start("step-1") as process:
            world.until(world.holding)
            process.kill()
        assert world.left()
        world.api.delete("pods", "step-1")
        world.until(lambda: not world.left())
        assert all(pod.process.poll() is not None for pod in trainer.pods)


def test_two_runs_with_the_same_inputs_share_one_job(world: World) -> None:
    world.pod("step-1")
    world.pod("step-2")
    with world.trainer(hold=True) as trainer:
        with world.stepping("step-1") as first:
            world.until(world.holding)
            with world.stepping("step-2") as second:
                world.until(lambda: any("adopting it" in s for s in world.said))
                world.release()
                assert same(first.result(PATIENCE), world)
                assert same(second.result(PATIENCE), world)
        assert trainer.started == 1
        world.until(lambda: not world.left())


def test_a_run_that_is_stopped_leaves_the_job_to_the_other(world: World) -> None:
    world.pod("step-1")
    world.pod("step-2")
    with world.trainer(hold=True) as trainer:
        with world.start("step-1") as process:
            world.until(world.holding)
            with world.stepping("step-2") as second:
                world.until(lambda: any("adopting it" in s for s in world.said))
                process.send_signal(signal.SIGTERM)
                output, _ = process.communicate(timeout=PATIENCE)
                assert "another run waits for it too" in output
                world.release()
                assert same(second.result(PATIENCE), world)
        assert trainer.started == 1
        world.until(lambda: not world.left())


def test_a_finished_model_is_used_again_without_a_job(world: World) -> None:
    with world.trainer() as trainer:
        world.step()
        assert same(world.step(), world)
        assert trainer.started == 1
    assert any("has left its model" in said for said in world.said)


def test_a_failed_job_says_what_the_worker_said_and_a_retry_replaces_it(
    world: World,
) -> None:
    world.pod("step-1")
    with world.trainer(fail="A byte of dataset was changed."):
        with pytest.raises(Refusal, match=r"^A byte of dataset was changed\.$"):
            world.step("step-1")
        failed = world.job()["metadata"]["uid"]
    world.pod("step-2")
    with world.trainer():
        assert same(world.step("step-2"), world)
        assert any("is failed; replacing it" in said for said in world.said)
        assert failed not in [j["metadata"]["uid"] for j in world.api.list("trainjobs")]
        world.until(lambda: not world.left())
    assert world.stored() == TAKEN


def test_a_failed_job_without_word_tells_what_the_cluster_knows(world: World) -> None:
    world.pod("step-1")
    with world.trainer(fail="silently"):
        with pytest.raises(JobFailed, match=r"failed: .* \(.*Error, 1\)"):
            world.step("step-1")
        assert world.left()  # for people to look at; it goes with its owner
        world.api.delete("pods", "step-1")
        world.until(lambda: not world.left())


def test_a_worker_killed_from_outside_is_told_with_its_exit_code(world: World) -> None:
    world.pod("step-1")
    with (
        world.trainer(hold=True) as trainer,
        world.stepping("step-1", restarts=0) as step,
    ):
        world.until(world.holding)
        trainer.pods[0].process.kill()
        with pytest.raises(
            JobFailed, match=r"\(safescale-.*-node-0-0-.*: Error, 137\)"
        ):
            step.result(PATIENCE)


def test_a_failed_job_without_owner_is_deleted(world: World) -> None:
    with world.trainer(fail="silently"):
        with pytest.raises(JobFailed):
            world.step("elsewhere")
        world.until(lambda: not world.left())


def test_the_api_may_go_away_and_come_back(world: World) -> None:
    with world.trainer(hold=True), world.stepping() as step:
        world.until(world.holding)
        world.api.stop()
        time.sleep(2)  # a minute, thirty times as fast
        world.api.start()
        world.release()
        assert same(step.result(PATIENCE), world)
        world.until(lambda: not world.left())
    assert world.lines() == [*(f"line {n} of node 0" for n in range(3)), LAST]
    assert [s for s in world.said if "does not answer" in s]


def test_an_api_that_stays_away_ends_the_step_and_a_retry_adopts(world: World) -> None:
    world.pod("step-1")
    world.timeouts = replace(QUICK, retry=replace(QUICK.retry, total=0.5))
    with world.trainer(hold=True) as trainer:
        with world.stepping("step-1") as step:
            world.until(world.holding)
            world.api.stop()
            with pytest.raises(OutOfReach, match=r"has not answered for \d+ s"):
                step.result(PATIENCE)
            world.held.unlink(missing_ok=True)
            world.api.start()
            assert world.job()
        world.pod("step-2")
        assert same(world.step("step-2"), world)
        assert trainer.started == 1
        world.api.delete("pods", "step-1")
        world.until(lambda: not world.left())


def test_answers_that_say_to_come_back_are_tried_again(world: World) -> None:
    world.api.answers.extend([500, 429, 503, "drop", 504])
    with world.trainer():
        assert same(world.step(), world)


def test_sigterm_deletes_the_job_and_its_processes_in_time(world: World) -> None:
    world.pod("step-1")
    with world.trainer(hold=True) as trainer:
        with world.start("step-1") as process:
            world.until(world.holding)
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=PATIENCE)
            assert time.monotonic() - started < QUICK.gone
        assert process.returncode == 1
        assert output.splitlines()[-1] == (
            "train_agents was stopped by SIGTERM before it was done."
        )
        world.until(lambda: not world.left())
        assert all(pod.process.poll() is not None for pod in trainer.pods)
    assert "model" not in world.stored()


def test_sigterm_while_the_api_is_away_ends_in_time_and_says_so(world: World) -> None:
    world.pod("step-1")
    with world.trainer(hold=True):
        with world.start("step-1") as process:
            world.until(world.holding)
            world.api.stop()
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=PATIENCE)
            assert "could not be deleted" in output
            world.api.start()
        world.api.delete("pods", "step-1")
        world.until(lambda: not world.left())


def test_a_job_of_somebody_else_is_left_alone(world: World) -> None:
    with world.trainer(hold=True):
        with world.stepping() as step:
            world.until(world.holding)
            name = world.job()["metadata"]["name"]
            world.release()
            step.result(PATIENCE)
        for info in list(open_store(world.store).list("jobs/")):
            open_store(world.store).delete(info.key)
        world.until(lambda: not world.left())
        world.api.add("trainjobs", name, spec={"suspend": True}, annotations={})
        with pytest.raises(ClusterInputError, match="was not made for this training"):
            world.step()
        assert world.left() == [f"trainjobs/{name}"]


def test_a_job_made_by_another_at_the_same_moment_is_adopted(world: World) -> None:
    made = []

    def meanwhile(_verb: str, plural: str, body: dict[str, object]) -> None:
        if plural == "trainjobs" and not made:
            kind, place = world.api.kind(plural), world.api.namespace
            made.append(world.api.objects.create(kind, place, body))

    world.api.admission.append(meanwhile)
    with world.trainer() as trainer:
        assert same(world.step(), world)
        assert trainer.started == 1
    assert made


def test_a_runtime_that_is_missing_is_named(world: World) -> None:
    other = "TrainingRuntime other is not in"
    with world.trainer(), pytest.raises(ClusterInputError, match=other):
        world.step(runtime="other")
    assert not world.left()
    assert not world.stored()


def test_a_runtime_deleted_at_the_last_moment_is_named_too(world: World) -> None:
    world.api.admission.append(lambda *_: GONE)
    with pytest.raises(ClusterInputError, match="TrainingRuntime safescale-torch is"):
        world.step()
    assert not world.left()


GONE = (
    'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: '
    'TrainingRuntime.trainer.kubeflow.org "safescale-torch" not found'
)


def test_another_refusal_of_a_webhook_is_passed_on(world: World) -> None:
    world.api.admission.append(lambda *_: "spec.trainer.numNodes is above 1")
    with pytest.raises(ClusterInputError, match="numNodes is above 1"):
        world.step()


def test_a_cluster_without_trainer_is_named(world: World) -> None:
    world.api.forget("trainingruntimes")
    with pytest.raises(ClusterInputError, match="install Kubeflow Trainer 2"):
        world.step()


def test_a_log_that_breaks_twice_has_every_line_once(world: World) -> None:
    world.api.cut_logs(3, 4)
    with world.trainer(lines="40"):
        world.step()
    assert world.lines() == [*(f"line {n} of node 0" for n in range(40)), LAST]


def test_a_watch_that_is_too_old_is_begun_anew(world: World) -> None:
    with world.trainer(hold=True), world.stepping() as step:
        world.until(world.holding)
        for _ in range(3):
            world.api.compact()
            time.sleep(0.1)
        world.release()
        assert same(step.result(PATIENCE), world)


def test_connections_that_are_cut_all_the_time_do_no_harm(world: World) -> None:
    done = threading.Event()

    def cut() -> None:
        while not done.wait(0.15):
            world.api.drop_connections()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        with world.trainer(lines="100"):
            assert same(world.step(), world)
    finally:
        done.set()
        cutter.join()
    assert world.lines() == [*(f"line {n} of node 0" for n in range(100)), LAST]


def test_a_queued_job_waits_for_kueue_and_says_so(world: World) -> None:
    with world.trainer() as trainer, world.stepping(queue="safescale") as step:
        world.until(
            lambda: any("waits: TrainJob is suspended" in s for s in world.said)
        )
        job = world.job()
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "safescale"
        assert job["spec"]["suspend"] is True
        assert trainer.started == 0
        world.api.patch(
            "trainjobs", job["metadata"]["name"], {"spec": {"suspend": False}}
        )
        assert same(step.result(PATIENCE), world)


def test_a_job_that_kueue_evicts_is_waited_for_and_started_again(world: World) -> None:
    with world.trainer(hold=True) as trainer, world.stepping() as step:
        world.until(world.holding)
        name = world.job()["metadata"]["name"]
        world.api.patch("trainjobs", name, {"spec": {"suspend": True}})
        world.until(lambda: not world.api.list("pods"))
        world.api.patch("trainjobs", name, {"spec": {"suspend": False}})
        world.release()
        assert same(step.result(PATIENCE), world)
        assert trainer.started == 2


def test_a_job_that_finds_no_room_says_why_and_is_deleted(world: World) -> None:
    world.timeouts = replace(QUICK, pending=0.5)
    with world.trainer(schedules=False):
        with pytest.raises(ClusterError, match=r"no running pod .*3 Insufficient cpu"):
            world.step()
        world.until(lambda: not world.left())


def test_a_job_that_somebody_deletes_is_made_once_more(world: World) -> None:
    with world.trainer(hold=True) as trainer, world.stepping() as step:
        world.until(world.holding)
        world.api.delete("trainjobs", world.job()["metadata"]["name"])
        world.until(lambda: trainer.started == 2)
        world.release()
        assert same(step.result(PATIENCE), world)


def test_a_model_that_was_changed_in_the_store_is_refused(world: World) -> None:
    with world.trainer():
        world.step()
        store = open_store(world.store)
        (key,) = [
            i.key
            for i in store.list()
            if i.key.startswith("jobs/") and i.key.endswith("/model/schema.json")
        ]
        store.put(key, b"{}\n")
        with pytest.raises(IntegrityError, match="was changed"):
            world.step()
        assert not list(world.folder.glob("out-*/.*"))


def test_two_nodes_are_two_pods_and_rank_0_is_followed(world: World) -> None:
    with world.trainer() as trainer:
        assert same(world.step(processes=2, nodes=2), world)
        assert trainer.started == 2
    assert world.lines() == [*(f"line {n} of node 0" for n in range(3)), LAST]


def test_a_complete_job_whose_model_is_gone_is_replaced(world: World) -> None:
    store = open_store(world.store)
    world.api.forbid("delete", "trainjobs")
    with world.trainer() as trainer:
        world.step()
        assert any("could not be deleted" in said for said in world.said)
        for info in list(store.list("jobs/")):
            store.delete(info.key)
        world.api.permit_all()
        assert same(world.step(), world)
        assert trainer.started == 2
        assert any("is complete; replacing it" in said for said in world.said)
        world.until(lambda: not world.left())


def test_a_deletion_that_something_holds_up_is_named(world: World) -> None:
    world.pod("step-1")
    with world.trainer(fail="silently"), pytest.raises(JobFailed):
        world.step("step-1")
    name = world.job()["metadata"]["name"]
    held = {"metadata": {"finalizers": ["somebody.else/waits"]}}
    world.api.patch("trainjobs", name, held)
    world.timeouts = replace(QUICK, gone=0.5)
    with pytest.raises(ClusterError, match=r"finalizers .*somebody"):
        world.step("step-1")
    world.api.patch("trainjobs", name, {"metadata": {"finalizers": None}})
    assert not world.left()


def test_an_image_that_cannot_be_pulled_is_said(world: World) -> None:
    waiting = {"reason": "ErrImagePull", "message": "manifest unknown"}
    status = {"containerStatuses": [{"name": "node", "state": {"waiting": waiting}}]}
    world.timeouts = replace(QUICK, pending=1.0)
    with world.trainer(schedules=False), world.stepping() as step:
        world.until(lambda: bool(world.api.list("pods")))
        (pod,) = world.api.list("pods")
        world.api.patch("pods", pod["metadata"]["name"], {"status": status})
        with pytest.raises(ClusterError, match="ErrImagePull: manifest unknown"):
            step.result(PATIENCE)
        world.until(lambda: not world.left())


def test_a_model_that_was_asked_for_otherwise_is_refused(world: World) -> None:
    # The stand-in delivers the same model whatever it is asked for.
    config = "was trained with training config"
    with world.trainer(), pytest.raises(IntegrityError, match=config):
        world.step(steps=90)
    assert not list(world.folder.glob("out-*/model"))


def test_a_pod_of_the_same_name_as_an_owner_is_not_the_owner(world: World) -> None:
    world.pod("step-1")
    world.pod("step-2")
    with world.trainer(hold=True):
        with world.start("step-1") as process:
            world.until(world.holding)
            process.kill()
        with world.stepping("step-2") as step:
            world.until(lambda: any("adopting it" in said for said in world.said))
            world.api.delete("pods", "step-1")
            world.pod("step-1")
            world.release()
            assert same(step.result(PATIENCE), world)
        world.until(lambda: not world.left())
