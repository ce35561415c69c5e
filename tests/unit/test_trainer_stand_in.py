"""The stand-in for Kubeflow Trainer shows what was recorded of the real one.

Trainer 2.3.0 with JobSet 0.12.0 on Kubernetes 1.34.4: the watches of a TrainJob and of
its pods from creation to deletion, and of one that failed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cluster.api import ClusterApi
from cluster.trainer import TrainerController
from patience import eventually

WELL = (sys.executable, "-c", "import time; time.sleep(0.3)")
ILL = (sys.executable, "-c", "raise SystemExit(1)")
LONG = (sys.executable, "-c", "import time; time.sleep(600)")
IGNORE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
DEAF = (sys.executable, "-c", f"{IGNORE}; time.sleep(1.5)")
ZERO = dict.fromkeys(("active", "failed", "ready", "succeeded", "suspended"), 0)
COMPLETE = ("Complete", "True", "AllJobsCompleted", "jobset completed successfully")
FAILED = (
    "Failed",
    "True",
    "ReachedMaxRestarts",
    "jobset failed due to reaching max number of restarts (first failed job: j-node-0)",
)


@contextmanager
def trainer(program: tuple[str, ...], nodes: int = 1) -> Iterator[TrainerController]:
    """Runs a job `j` under the stand-in."""
    with ClusterApi() as api:
        api.add("trainingruntimes", "r", spec={})
        with TrainerController(api, {}, program) as controller:
            trainer = {"command": ["x"], "args": ["y"], "numNodes": nodes}
            spec = {"suspend": False, "runtimeRef": {"name": "r"}, "trainer": trainer}
            api.add("trainjobs", "j", spec=spec)
            yield controller


def told(api: ClusterApi) -> list[tuple[Any, ...]]:
    """Returns each status that a watch of the job saw: conditions and counts."""
    keys = ("type", "status", "reason", "message")
    seen = []
    for event in api.objects.events:
        if event.kind.plural != "trainjobs" or event.type == "DELETED":
            continue
        status = event.object.get("status", {})
        conditions = [tuple(c[k] for k in keys) for c in status.get("conditions", [])]
        counts = [
            {k: v for k, v in one.items() if k != "name"}
            for one in status.get("jobsStatus", [])
        ]
        seen.append((conditions, counts))
    return seen


def is_over(api: ClusterApi) -> bool:
    return bool(api.get("trainjobs", "j").get("status", {}).get("conditions"))


def test_a_job_that_runs_has_no_condition_and_counts_jobs() -> None:
    with trainer(WELL) as controller:
        eventually(lambda: is_over(controller.api))
        assert told(controller.api) == [
            ([], []),
            ([], [ZERO]),
            ([], [{**ZERO, "active": 1}]),
            ([], [{**ZERO, "active": 1, "ready": 1}]),
            ([COMPLETE], [{**ZERO, "succeeded": 1}]),
        ]


def test_a_job_that_fails_says_so_in_jobsets_words() -> None:
    with trainer(ILL) as controller:
        eventually(lambda: is_over(controller.api))
        assert told(controller.api)[-1] == ([FAILED], [{**ZERO, "failed": 1}])


def test_pods_belong_to_a_job_of_the_jobset() -> None:
    with trainer(LONG, nodes=2) as controller:
        eventually(lambda: len(controller.api.list("pods")) == 2)
        (jobset,) = controller.api.list("jobsets")
        for pod in controller.api.list("pods"):
            meta = pod["metadata"]
            (owner,) = meta["ownerReferences"]
            assert (owner["kind"], owner["name"]) == ("Job", "j-node-0")
            labels = meta["labels"]
            assert labels["jobset.sigs.k8s.io/jobset-uid"] == jobset["metadata"]["uid"]
            assert pod["spec"]["terminationGracePeriodSeconds"] == 120


@pytest.mark.parametrize(("policy", "extra"), [("Background", 0), ("Foreground", 2)])
def test_only_a_deletion_in_the_foreground_starts_new_pods(
    policy: str, extra: int
) -> None:
    with trainer(LONG) as controller:
        api = controller.api
        eventually(lambda: controller.started == 1)
        api.objects.delete(api.kind("trainjobs"), api.namespace, "j", policy=policy)
        eventually(lambda: not any(api.list(k) for k in ("trainjobs", "pods")))
        assert controller.started == 1 + extra
        for kind in ("jobsets", "jobs", "configmaps"):
            assert not api.list(kind)


def test_a_complete_job_is_not_begun_anew_by_its_deletion() -> None:
    with trainer(WELL) as controller:
        api = controller.api
        eventually(lambda: is_over(api))
        kind = api.kind("trainjobs")
        api.objects.delete(kind, api.namespace, "j", policy="Foreground")
        eventually(lambda: not api.list("trainjobs"))
        assert controller.started == 1


def test_a_deleted_pod_goes_on_while_its_job_counts_as_failed() -> None:
    with trainer(DEAF, nodes=2) as controller:
        api = controller.api
        eventually(lambda: controller.started == 2)
        time.sleep(0.3)  # for its signal handler
        first, second = (pod["metadata"]["name"] for pod in api.list("pods"))
        api.delete("pods", first)
        eventually(lambda: is_over(api))
        assert told(api)[-1][0] == [FAILED]
        # Both live: the first in its grace period, the second outlives its job.
        names = [pod["metadata"]["name"] for pod in api.list("pods")]
        assert names == [first, second]
        eventually(lambda: not api.list("pods"))


def test_a_quota_counts_jobs_that_have_ended() -> None:
    with trainer(WELL) as controller:
        api = controller.api
        eventually(lambda: is_over(api))
        count = "count/trainjobs.trainer.kubeflow.org"
        api.add("resourcequotas", "q", spec={"hard": {count: "1"}})
        body = {"metadata": {"name": "k"}, "spec": {"runtimeRef": {"name": "r"}}}
        said = [hook("create", "trainjobs", body) for hook in api.admission]
        assert f"exceeded quota: q, requested: {count}=1" in " ".join(
            filter(None, said)
        )
        api.delete("trainjobs", "j")
        eventually(lambda: not api.list("trainjobs"))
        assert not any(hook("create", "trainjobs", body) for hook in api.admission)
