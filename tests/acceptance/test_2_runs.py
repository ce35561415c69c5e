"""Runs that end well: once, from the cache, anew, with a TrainJob."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kube import Cluster
from plane import Plane, skip_unless
from workload import write_workload

from components import STAGES

pytestmark = pytest.mark.cluster
PARTS = [stage.replace("_", "-") for stage in STAGES]


@pytest.fixture(scope="module")
def champion(plane: Plane) -> tuple[Path, str]:
    """A run to a champion, for all checks here: its workload and its id."""
    workload = plane.workload("champion")
    # Of a champion nobody is told, unless somebody asks.
    asked = ("--param", "notify_on=all")
    done = plane.submit("champion", workload, *asked).end(plane.patience)
    assert done.code == 0, f"submit ended with {done.code}: {done.last}"
    return workload, plane.run_id("champion")


def test_a_run_ends_as_champion_with_the_weights_of_this_machine(
    plane: Plane, champion: tuple[Path, str], look: Callable[[str], None]
) -> None:
    _, run = champion
    look(f"safescale submit --follow {run} --namespace {plane.namespace}")
    outcome = plane.outcome(run)
    assert outcome.status == "champion", f"{outcome.status}: {outcome.sentence}"
    # The same rows, in a store of this machine's own: another use of nobody's rows.
    here = plane.folder / "here"
    write_workload(here, "rows.csv", plane.name("champion"))
    (here / "rows.csv").write_bytes(plane.table("champion").csv())
    done = plane.safescale(
        *("run", "--config", str(here / "workload.yaml")),
        *("--output", str(here / "runs")),
        environ={"SAFESCALE_STORE": (here / "store").as_uri()},
    )
    assert done.code == 0, f"safescale run ended with {done.code}: {done.last}"
    record = re.search(r"^Record: (.+)$", done.out, re.MULTILINE)
    assert record is not None, done.out
    model = json.loads(Path(record[1]).read_text(encoding="utf-8"))["version"]["model"]
    assert model == outcome.model, (
        f"The cluster's model is {outcome.model}, this machine's {model}."
    )


def test_the_same_again_comes_from_the_cache(
    plane: Plane,
    cluster: Cluster,
    champion: tuple[Path, str],
    look: Callable[[str], None],
) -> None:
    workload, first = champion
    skip_unless(
        "--images" in plane.options,
        "The images are not pinned (SAFESCALE_IMAGES), so nothing may be reused.",
    )
    done = plane.submit("cached", workload).end(plane.patience)
    run = plane.run_id("cached")
    look(f"kubectl get pods -n {plane.namespace} -l pipeline/runid={run}")
    assert done.code == 0, f"submit ended with {done.code}: {done.last}"
    ran = [part for part in PARTS[:4] if cluster.pods(run, part)]
    assert not ran, f"These ran again: {', '.join(ran)}."
    assert plane.outcome(run).model == plane.outcome(first).model


def test_no_cache_runs_every_stage_anew_to_the_same_version(
    plane: Plane,
    cluster: Cluster,
    champion: tuple[Path, str],
    look: Callable[[str], None],
) -> None:
    workload, first = champion
    done = plane.submit("anew", workload, "--no-cache").end(plane.patience)
    run = plane.run_id("anew")
    look(f"kubectl get pods -n {plane.namespace} -l pipeline/runid={run}")
    assert done.code == 0, f"submit ended with {done.code}: {done.last}"
    idle = [part for part in PARTS if not cluster.pods(run, part)]
    assert not idle, f"These did not run: {', '.join(idle)}."
    one, two = plane.outcome(first), plane.outcome(run)
    assert (one.model, one.version) == (two.model, two.version)


def test_a_trainjob_trains_to_a_champion(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    from kubernetes.client import ApiException

    group = ("trainer.kubeflow.org", "v1alpha1", plane.namespace, "trainjobs")
    try:
        cluster.objects.list_namespaced_custom_object(*group)
    except ApiException as error:
        pytest.skip(f"TrainJobs cannot be listed here (HTTP {error.status}).")
    training = {"backend": "trainjob", "processes": 2}
    workload = plane.workload("trainjob", training=training)
    look(f"kubectl get trainjobs,pods -n {plane.namespace}")
    # The step that waits stands beside the job's pods.
    small = ("--param", "cpu=250m")
    command = plane.submit("trainjob", workload, *small)
    run = plane.run_id("trainjob")
    uids: set[str] = set()

    def trained() -> list[str]:
        jobs = cluster.objects.list_namespaced_custom_object(*group)["items"]
        uids.update(str(p.metadata.uid) for p in cluster.pods(run, "train-agents"))
        return [j["metadata"]["name"] for j in jobs if uids & _owners(j)]

    plane.until(lambda: trained() or not command.running, "No TrainJob was made.")
    seen = command.running
    done = command.end(plane.patience)
    assert done.code == 0, f"submit ended with {done.code}: {done.last}"
    assert seen, "The run ended well, and no TrainJob of it was seen."
    outcome = plane.outcome(run)
    assert outcome.status == "champion", f"{outcome.status}: {outcome.sentence}"
    left = trained()
    assert not left, f"TrainJobs of the run are left: {', '.join(left)}."


def _owners(job: dict[str, Any]) -> set[str]:
    """Returns the uids of the pods for which a TrainJob works."""
    return {str(o["uid"]) for o in job["metadata"].get("ownerReferences") or ()}


def test_the_end_of_a_run_is_told(
    plane: Plane,
    cluster: Cluster,
    champion: tuple[Path, str],
    look: Callable[[str], None],
) -> None:
    _, run = champion
    look(
        f"kubectl logs -n {plane.namespace} -l pipeline/runid={run},"
        "app.kubernetes.io/component=notify"
    )
    pods = cluster.pods(run, "notify")
    assert pods, "No pod of the exit task was seen."
    phases = [str(pod.status.phase) for pod in pods]
    assert "Succeeded" in phases, f"The exit task ended {', '.join(phases)}."
    # Where it goes, if it goes to a place of the data store: the notice itself.
    place = cluster.notify_file()
    if place.startswith(f"{plane.uri}/"):
        key = place.removeprefix(f"{plane.uri}/")
        # A place that is one object holds the newest notice, of whatever run.
        key += f"{run}.json" if place.endswith("/") else ""
        assert plane.store.exists(key), f"{place} holds no notice of run {run}."
