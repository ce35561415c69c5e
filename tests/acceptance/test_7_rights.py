"""What a run's account may not do: steer other pods, read the judge's rows."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from kube import Cluster
from plane import Plane, first_line, skip_unless

from safescale_ammt.cluster.trainjob import TrainJob

pytestmark = pytest.mark.cluster
ACCOUNT = "safescale-pipeline"
GROUP = ("trainer.kubeflow.org", "v1alpha1")


def _job(plane: Plane) -> dict[str, Any]:
    job = TrainJob(
        digest=f"sha256:{plane.id:0<64}",
        request=f"{plane.uri}/training/acceptance/request.json",
        runtime="safescale-torch",
        image=plane.image("train-agents"),
    )
    return job.to_dict()


def _of_another_runtime(job: dict[str, Any]) -> None:
    job["spec"]["runtimeRef"]["name"] = "another"


def _with_a_secret(job: dict[str, Any]) -> None:
    key = {"name": "safescale-registry", "key": "AWS_SECRET_ACCESS_KEY"}
    job["spec"]["trainer"]["env"] = [
        {"name": "A", "valueFrom": {"secretKeyRef": {**key, "optional": True}}}
    ]


def _with_an_image(job: dict[str, Any]) -> None:
    job["spec"]["trainer"]["image"] = "registry.invalid/another:1"


def _with_an_initializer(job: dict[str, Any]) -> None:
    job["spec"]["initializer"] = {"dataset": {"storageUri": "s3://a/b"}}


ATTACKS = {
    "another runtime": _of_another_runtime,
    "a secret in its environment": _with_a_secret,
    "an image of its own": _with_an_image,
    "an initializer": _with_an_initializer,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_guards_refuse_a_trainjob_with(
    attack: str, plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    look("kubectl get validatingadmissionpolicies,validatingadmissionpolicybindings")
    from kubernetes import client

    mine = client.CustomObjectsApi(cluster.as_account(ACCOUNT))

    def ask(job: dict[str, Any]) -> str:
        try:
            mine.create_namespaced_custom_object(
                *GROUP, plane.namespace, "trainjobs", job, dry_run="All"
            )
        except client.ApiException as error:
            body = json.loads(error.body or "{}")
            return str(body.get("message") or error.reason)
        return ""

    honest = _job(plane)
    refused = ask(honest)
    skip_unless("not find" not in refused, f"No TrainJobs here: {refused}")
    assert not refused, f"An honest TrainJob is refused: {refused[:200]}"
    forged = copy.deepcopy(honest)
    ATTACKS[attack](forged)
    refused = ask(forged)
    assert refused, f"A TrainJob with {attack} is admitted for {ACCOUNT}."
    assert "ValidatingAdmissionPolicy" in refused, f"Another refused it: {refused}"


def test_guards_refuse_a_result_of_another_pod(
    plane: Plane, cluster: Cluster, look: Callable[[str], None]
) -> None:
    look("kubectl get validatingadmissionpolicies,validatingadmissionpolicybindings")
    from kubernetes import client

    mine = client.CustomObjectsApi(cluster.as_account(ACCOUNT))
    body = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTaskResult",
        "metadata": {"name": plane.name("result-1234567")},
    }
    group = ("argoproj.io", "v1alpha1", plane.namespace, "workflowtaskresults")
    try:
        mine.create_namespaced_custom_object(*group, body, dry_run="All")
    except client.ApiException as error:
        message = first_line(ValueError(json.loads(error.body)["message"]))
        assert "ValidatingAdmissionPolicy" in message, f"Another refused: {message}"
    else:
        raise AssertionError(f"{ACCOUNT} may write the result of any pod.")


# What a pod of a run can try with the key that KFP's launcher needs: it lists the
# judge's rows, and reads one of their objects.
_THIEF = """
import json, os
from safescale_ammt.store.uri import open_store
place, key = {place!r}, {key!r}
environ = dict(os.environ)
environ["AWS_ACCESS_KEY_ID"] = environ.get("accesskey", environ["AWS_ACCESS_KEY_ID"])
environ["AWS_SECRET_ACCESS_KEY"] = environ.get(
    "secretkey", environ["AWS_SECRET_ACCESS_KEY"]
)
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


@pytest.mark.parametrize("secret", ["mlpipeline-minio-artifact", "safescale-training"])
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
    assert cluster.secret(secret), f"Secret {secret} is empty."
    code = _THIEF.format(place=plane.store.uri, key=sealed[0].key)
    found = cluster.probe(
        f"thief-{secret}",
        plane.image("evaluate-safety"),
        code,
        # The place and the endpoint are those of the data store, the key is not.
        secrets=("safescale-store", secret),
        labels={"pipelines.kubeflow.org/v2_component": "true"},
    )
    open_ = [name for name, size in found.items() if isinstance(size, int)]
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
    bucket, prefix = cluster.artifact_root()
    found = cluster.probe(
        "artifacts",
        plane.image("evaluate-safety"),
        _LISTER.format(run=run, bucket=bucket, prefix=prefix),
        secrets=("safescale-store", "mlpipeline-minio-artifact"),
        labels={"pipelines.kubeflow.org/v2_component": "true"},
    )
    skip_unless(found["names"], f"KFP's store shows nothing of the run: {found}")
    rows = [n for n in found["names"] if n.endswith(("sealed.parquet", "rows.parquet"))]
    assert not rows, f"KFP's store holds {', '.join(rows)}."


_LISTER = """
import json, os
from minio import Minio
from urllib.parse import urlsplit
names, why = [], ""
for endpoint in ("http://minio-service.kubeflow:9000", os.environ["AWS_ENDPOINT_URL"]):
    where = urlsplit(endpoint)
    client = Minio(
        where.netloc,
        os.environ["accesskey"],
        os.environ["secretkey"],
        secure=where.scheme == "https",
    )
    try:
        found = client.list_objects({bucket!r}, {prefix!r}, recursive=True)
        names = [o.object_name for o in found if {run!r} in o.object_name]
    except Exception as error:
        why = type(error).__name__
    if names:
        break
print(json.dumps({{"names": names, "why": why}}))
"""
