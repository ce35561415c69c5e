"""What a run's account may not do: steer other pods, read the judge's rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from kube import Cluster
from plane import Plane, skip_unless

from safescale_ammt.cluster.trainjob import TrainJob
from safescale_ammt.files.artifacts import APART, MANIFEST

pytestmark = pytest.mark.cluster
TRAINJOBS = ("trainer.kubeflow.org", "v1alpha1", "trainjobs")
RESULTS = ("argoproj.io", "v1alpha1", "workflowtaskresults")
GUARDS = "kubectl get validatingadmissionpolicies,validatingadmissionpolicybindings"


class OfARun:
    """Code in a stage: it has the token of its pod, and asks for what it likes.

    The pod is named as Argo names those of a workflow, and belongs to none.
    """

    def __init__(self, plane: Plane, cluster: Cluster) -> None:
        from kubernetes import client

        self.plane = plane
        self.workflow = plane.name("guarded")
        name = f"{self.workflow}-system-container-impl-1234567"
        self.pod, api = cluster.as_pod(name, plane.image("evaluate-safety"))
        self._objects = client.CustomObjectsApi(api)
        self._error = client.ApiException

    def asks(self, kind: tuple[str, str, str], body: dict[str, Any]) -> str:
        """Asks for an object in a dry run; returns the refusal, "" = none."""
        group, version, plural = kind
        try:
            self._objects.create_namespaced_custom_object(
                group, version, self.plane.namespace, plural, body, dry_run="All"
            )
        except self._error as error:
            try:
                return str(json.loads(error.body)["message"])
            except (TypeError, ValueError, KeyError):
                return f"HTTP {error.status} {error.reason}"
        return ""

    def job(self) -> dict[str, Any]:
        """Returns a TrainJob as the step that trains makes it."""
        hexdigits = f"{self.plane.id:0<64}"
        owner = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": self.pod.metadata.name,
            "uid": self.pod.metadata.uid,
            "controller": False,
            "blockOwnerDeletion": False,
        }
        job = TrainJob(
            digest=f"sha256:{hexdigits}",
            request=f"{self.plane.uri}/training/jobs/{hexdigits}/request.json",
            runtime="safescale-torch",
            image=self.plane.image("train-agents"),
        )
        return job.to_dict([owner])

    def result(self, number: int) -> dict[str, Any]:
        """Returns what Argo's executor writes for the pod of this number."""
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "WorkflowTaskResult",
            "metadata": {
                "name": f"{self.workflow}-{number}",
                "labels": {"workflows.argoproj.io/workflow": self.workflow},
            },
        }


@pytest.fixture(scope="module")
def intruder(plane: Plane, cluster: Cluster) -> OfARun:
    """Code in a stage, for all checks of the guards."""
    return OfARun(plane, cluster)


def _of_another_runtime(job: dict[str, Any]) -> None:
    job["spec"]["runtimeRef"]["name"] = "another"


def _with_a_secret(job: dict[str, Any]) -> None:
    key = {"name": "safescale-registry", "key": "AWS_SECRET_ACCESS_KEY"}
    job["spec"]["trainer"]["env"] = [
        {"name": "A", "valueFrom": {"secretKeyRef": {**key, "optional": True}}}
    ]


def _with_an_image(job: dict[str, Any]) -> None:
    job["spec"]["trainer"]["image"] = "registry.invalid/another:1"


def _with_a_command(job: dict[str, Any]) -> None:
    job["spec"]["trainer"]["command"] = ["sh", "-c", "id"]


def _with_an_initializer(job: dict[str, Any]) -> None:
    job["spec"]["initializer"] = {"dataset": {"storageUri": "s3://a/b"}}


def _for_another_pod(job: dict[str, Any]) -> None:
    job["metadata"]["ownerReferences"][0]["uid"] = (
        "00000000-0000-4000-8000-000000000000"
    )


ATTACKS = {
    "another runtime": _of_another_runtime,
    "a secret in its environment": _with_a_secret,
    "an image of its own": _with_an_image,
    "a command of its own": _with_a_command,
    "an initializer": _with_an_initializer,
    "another pod as its owner": _for_another_pod,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_guards_refuse_a_trainjob_with(
    attack: str, intruder: OfARun, look: Callable[[str], None]
) -> None:
    look(GUARDS)
    honest = intruder.job()
    refused = intruder.asks(TRAINJOBS, honest)
    skip_unless("could not find" not in refused, f"No TrainJobs here: {refused}")
    assert not refused, f"An honest TrainJob is refused: {refused[:300]}"
    forged = copy.deepcopy(honest)
    ATTACKS[attack](forged)
    refused = intruder.asks(TRAINJOBS, forged)
    assert refused, f"A TrainJob with {attack} is admitted."
    assert "'safescale-trainjobs'" in refused, f"Another refused it: {refused[:300]}"


def test_guards_let_a_pod_write_its_own_result_and_no_other(
    intruder: OfARun, look: Callable[[str], None]
) -> None:
    look(GUARDS)
    refused = intruder.asks(RESULTS, intruder.result(1234567))
    assert not refused, f"A pod may not write its own result: {refused[:300]}"
    refused = intruder.asks(RESULTS, intruder.result(7654321))
    assert refused, "A pod may write the result of another."
    assert "'safescale-results'" in refused, f"Another refused it: {refused[:300]}"


# What a pod of a run can try with the key that KFP's launcher needs: it lists the
# judge's rows, and reads one of their objects.
_THIEF = """
import json, os
from safescale_ammt.store.uri import open_store
place, key = {place!r}, {key!r}
environ = dict(os.environ)
for name, key_of_kfp in (
    ("AWS_ACCESS_KEY_ID", "accesskey"), ("AWS_SECRET_ACCESS_KEY", "secretkey")
):
    environ[name] = environ.get(key_of_kfp) or environ.get(name, "")
found = {{}}
for name, attempt in (
    ("lists", lambda s: len(list(s.list(key.rpartition("/")[0] + "/")))),
    ("reads", lambda s: len(s.get(key))),
):
    try:
        found[name] = attempt(open_store(place, environ=environ))
    except Exception as error:
        found[name] = type(error).__name__
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    "secret", ["mlpipeline-minio-artifact", "safescale-training", "safescale-datasets"]
)
def test_sealed_rows_cannot_be_read_with_the_key_in(
    secret: str, plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    look("see 'Who may do what' in docs/kubeflow.md: the policy of each key")
    sealed = [o for o in plane.store.list("sealed/") if o.key.endswith(".parquet")]
    if not sealed:
        workload = plane.workload("sealed")
        done = plane.submit("sealed", workload).end(plane.patience)
        assert done.code == 0, f"submit ended with {done.code}: {done.last}"
        sealed = [o for o in plane.store.list("sealed/") if o.key.endswith(".parquet")]
    assert sealed, f"No sealed rows lie below {plane.store.uri}/sealed/."
    skip_unless(cluster.secret(secret), f"There is no secret {secret} to try.")
    code = _THIEF.format(place=plane.store.uri, key=sealed[0].key)
    found = cluster.probe(
        f"thief-{secret}",
        plane.image("evaluate-safety"),
        code,
        # The place and the endpoint are those of the data store, the key is not.
        secrets=("safescale-store", secret),
        labels={"pipelines.kubeflow.org/v2_component": "true"},
    )
    open_ = [name for name, size in found.items() if isinstance(size, int) and size]
    assert not open_, (
        f"The key in {secret} {' and '.join(open_)} the judge's rows "
        f"({plane.store.uri}/sealed/)."
    )


def test_the_artifacts_of_a_run_hold_no_sealed_rows(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    workload = plane.workload("artifacts")
    done = plane.submit("artifacts", workload).end(plane.patience)
    run = plane.run_id("artifacts")
    look(f"safescale submit --follow {run} --namespace {plane.namespace}")
    assert done.code == 0, f"submit ended with {done.code}: {done.last}"
    places = cluster.artifact_places(run, "prepare-data")
    places |= cluster.artifact_places(run, "evaluate-safety")
    wanted = {
        f"{places[kind]}/{name}": name != MANIFEST
        for kind, names in APART.items()
        for name in (MANIFEST, *names)
        if kind in places
    }
    skip_unless(wanted, "No pod of the run says where its artifacts lie.")
    found = cluster.probe(
        "artifacts",
        plane.image("evaluate-safety"),
        _READER.format(wanted=list(wanted)),
        secrets=("safescale-store", "mlpipeline-minio-artifact"),
        labels={"pipelines.kubeflow.org/v2_component": "true"},
    )
    # Who cannot read what is there has not shown that the rows are not.
    blind = [
        uri for uri, apart in wanted.items() if not apart and found[uri] != "there"
    ]
    skip_unless(not blind, f"KFP's store shows nothing of the run: {found}")
    rows = [uri for uri, apart in wanted.items() if apart and found[uri] == "there"]
    assert not rows, f"KFP's store holds {', '.join(rows)}."


# KFP's own store, where its pods look for it: by its Service, or at the place of ours.
_READER = """
import json, os
from minio import Minio
from urllib.parse import urlsplit
found = {{}}
for uri in {wanted!r}:
    bucket, _, key = uri.partition("://")[2].partition("/")
    for endpoint in (
        "http://seaweedfs.kubeflow:9000",
        "http://minio-service.kubeflow:9000",
        os.environ.get("AWS_ENDPOINT_URL") or "https://s3.amazonaws.com",
    ):
        where = urlsplit(endpoint)
        client = Minio(
            where.netloc,
            os.environ["accesskey"],
            os.environ["secretkey"],
            secure=where.scheme == "https",
            region="us-east-1",
        )
        try:
            client.stat_object(bucket, key.partition("?")[0])
            found[uri] = "there"
            break
        except Exception as error:
            found[uri] = getattr(error, "code", "") or type(error).__name__
print(json.dumps(found))
"""
