"""The step that trains in a TrainJob, in a cluster where the guards are in force."""

from __future__ import annotations

import copy
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.api import ClusterApi
from kfp_api.world import put
from patience import PATIENCE, eventually
from policy.objects import of_kind, shipped
from trainjob_world import Trained, World, threads, trained_locally

from safescale_ammt.errors import ClusterInputError
from safescale_ammt.files.artifacts import read_manifest

TRAINJOBS = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/safescale/trainjobs"


@pytest.fixture(scope="session")
def local_training(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained_locally(tmp_path_factory.getbasetemp() / "guarded-world")


@pytest.fixture
def world(local_training: Trained, tmp_path: Path) -> Iterator[World]:
    with ClusterApi() as api:
        for kind in ("", "Binding"):
            for thing in of_kind(shipped()["base"], f"ValidatingAdmissionPolicy{kind}"):
                put(api, thing)
        store = (tmp_path / "store").as_uri()
        yield World(api, local_training, tmp_path, store)
        eventually(lambda: not threads())


def becomes(world: World, pod: str) -> None:
    """Makes a pod, and lets the token of all calls be its own from now on."""
    world.api.pod = pod, world.pod(pod)["metadata"]["uid"]


def same(model: Path, world: World) -> bool:
    return read_manifest(model).identity == read_manifest(world.trained.model).identity


def send(world: World, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """Sends what code in a stage could send; returns status and message."""
    patch = "application/merge-patch+json"
    request = urllib.request.Request(
        world.api.url + path,
        method=method,
        data=json.dumps(body or {}).encode(),
        headers={
            "Authorization": f"Bearer {world.api.token}",
            "Content-Type": patch if method == "PATCH" else "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["message"]


def test_a_job_is_made_followed_taken_and_deleted(world: World) -> None:
    becomes(world, "step-1")
    with world.trainer():
        assert same(world.step("step-1"), world)
        world.until(lambda: not world.left())


def test_a_job_with_more_nodes_in_a_queue_is_made_and_deleted(world: World) -> None:
    becomes(world, "step-1")
    with (
        world.trainer(),
        world.stepping("step-1", queue="safescale", nodes=2, processes=2) as step,
    ):
        world.until(lambda: bool(world.api.list("trainjobs")))
        world.api.patch("trainjobs", world.job()["metadata"]["name"], RESUMED)
        assert same(step.result(PATIENCE), world)
        world.until(lambda: not world.left())


RESUMED = {"spec": {"suspend": False, "runtimePatches": [{"manager": "kueue"}]}}
"""What Kueue does in its own name."""


def test_the_retry_of_a_step_adopts_its_job(world: World) -> None:
    becomes(world, "step-1")
    with world.trainer(hold=True) as trainer:
        with world.start("step-1") as process:
            world.until(world.holding)
            process.kill()
        world.api.patch("pods", "step-1", {"status": {"phase": "Failed"}})
        becomes(world, "step-2")
        with world.stepping("step-2") as step:
            world.until(lambda: any("adopting it" in said for said in world.said))
            world.release()
            assert same(step.result(PATIENCE), world)
        assert trainer.started == 1
        world.until(lambda: not world.left())


def test_a_failed_job_of_another_pod_is_replaced(world: World) -> None:
    becomes(world, "step-1")
    with world.trainer(fail="the disk is full"), pytest.raises(Exception, match="disk"):
        world.step("step-1")
    becomes(world, "step-2")
    with world.trainer():
        assert same(world.step("step-2"), world)
        world.until(lambda: not world.left())


def test_a_step_that_is_stopped_takes_its_job_along(world: World) -> None:
    becomes(world, "step-1")
    with world.trainer(hold=True), world.start("step-1") as process:
        world.until(world.holding)
        process.terminate()
        process.wait(PATIENCE)
        world.until(lambda: not world.api.list("trainjobs"))


def test_what_the_guards_refuse_is_one_sentence_of_the_step(world: World) -> None:
    world.pod("step-1")
    with (
        world.trainer(),
        pytest.raises(ClusterInputError, match="this token was made for no pod"),
    ):
        world.step("step-1")
    assert not world.left()


def test_code_in_a_stage_gets_nowhere(world: World) -> None:
    becomes(world, "step-1")
    with world.trainer(hold=True), world.stepping("step-1") as step:
        world.until(world.holding)
        job = world.job()
        name = job["metadata"]["name"]
        becomes(world, "step-of-another-run")
        mine = copy.deepcopy(job)
        mine["metadata"] = {"name": "mine"}
        mine["spec"]["trainer"]["env"] = [{"name": "KEY", "value": "x"}]
        for method, path, body in (
            ("POST", "", mine),
            ("PATCH", f"/{name}", {"metadata": {"ownerReferences": []}}),
            ("PATCH", f"/{name}", {"metadata": {"annotations": {"a": "b"}}}),
            ("PATCH", f"/{name}", {"spec": {"trainer": {"image": "python"}}}),
            ("PATCH", f"/{name}/status", {"status": {"conditions": []}}),
            ("DELETE", f"/{name}", None),
        ):
            status, message = send(world, method, TRAINJOBS + path, body)
            assert status == 422, (method, path, message)
            assert "ValidatingAdmissionPolicy 'safescale-trainjobs'" in message
        assert world.job()["spec"] == job["spec"]
        world.api.pod = "step-1", job["metadata"]["ownerReferences"][0]["uid"]
        world.release()
        assert same(step.result(PATIENCE), world)
