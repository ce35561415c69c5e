"""Whether policies bound what a run may write (manifests/components/guards).

Who may read admission policies is told what they say. Policies are the cluster's, so
people who own a namespace mostly may not; they may act as its accounts, and then a dry
run of what must be refused tells more than any text. Who may do neither cannot know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.kubeflow.doctor.checks import Fault, Unknown
from pipelines.kubeflow.doctor.cluster import APPLY, Cluster, RawPath
from pipelines.kubeflow.manifests import TRAIN_IMAGE
from safescale_ammt.cluster.refusals import ApiRefusal, Denied
from safescale_ammt.cluster.resources import TRAINJOBS, Resource

RESULTS = Resource("argoproj.io", "v1alpha1", "workflowtaskresults")
GUARDS = {"safescale-trainjobs": TRAINJOBS, "safescale-results": RESULTS}
"""Policy -> what it guards."""
_ADMISSION = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic"
_TRIAL = {"name": "safescale-guards-trial"}
_TRIALS: Mapping[Resource, Mapping[str, Any]] = {
    TRAINJOBS: {
        "apiVersion": f"{TRAINJOBS.group}/{TRAINJOBS.version}",
        "kind": "TrainJob",
        "metadata": _TRIAL,
        "spec": {"runtimeRef": {"kind": "TrainingRuntime", "name": "safescale-torch"}},
    },
    RESULTS: {
        "apiVersion": f"{RESULTS.group}/{RESULTS.version}",
        "kind": "WorkflowTaskResult",
        "metadata": {**_TRIAL, "labels": {"workflows.argoproj.io/workflow": "none"}},
    },
}
_OPEN = "so code in any stage may reach every secret of the namespace"


def check_guards(cluster: Cluster) -> str:
    """Checks that the guards are there and in force.

    Raises:
        Fault: one is missing, bound to nothing, or lets through what it must refuse.
        Unknown: we may neither read them (and the namespace) nor act as the account.
    """
    try:
        whole = [read_guard(cluster, name) for name in GUARDS]
    except Denied as error:
        if error.status == 401:
            raise
        whole = []
    if whole and all(whole):
        about = cluster.read("")["metadata"].get("annotations") or {}
        image = about.get(TRAIN_IMAGE, "train_agents of any registry")
        jobs = f"; TrainJobs may run {image}" if cluster.trainjob else ""
        return f"{' and '.join(GUARDS)} are in force{jobs}"
    refused = [name for name in GUARDS if try_guard(cluster, name)]
    if not refused:
        raise Unknown("neither TrainJobs nor results of Argo's are served here")
    return f"{' and '.join(refused)} refused a trial"


def read_guard(cluster: Cluster, name: str) -> bool:
    """Reads a guard; says whether it is bound to all that it is about.

    False where each binding has a selector of somebody's own.

    Raises:
        Fault: it is not there, lets errors pass, denies nothing, or is about others.
        Denied: we may not read it.
    """
    account = cluster.account
    try:
        path = f"{_ADMISSION}ies/{name}"
        policy = cluster.api.call("get", RawPath("", "", path))["spec"]
    except ApiRefusal as error:
        if isinstance(error, Denied) or error.status != 404:
            raise
        raise Fault(f"policy {name} does not exist, {_OPEN}", APPLY) from None
    if policy.get("failurePolicy", "Fail") != "Fail":
        raise Fault(f"policy {name} lets through what it cannot judge", APPLY)
    for condition in policy.get("matchConditions") or ():
        if f":{account}$" not in condition["expression"]:
            raise Fault(
                f"policy {name} is not about the account {account}, {_OPEN}",
                f"run as safescale-pipeline, or write {account} into a copy of "
                "manifests/components/guards",
            )
    listed = cluster.api.call("get", RawPath("", "", f"{_ADMISSION}ybindings"))
    found = [b["spec"] for b in listed["items"] if b["spec"]["policyName"] == name]
    bound = [b for b in found if "Deny" in b["validationActions"]]
    if not bound:
        raise Fault(f"no binding lets policy {name} deny anything, {_OPEN}", APPLY)
    return not all(binding.get("matchResources") for binding in bound)


def try_guard(cluster: Cluster, name: str) -> bool:
    """Tries in a dry run, as the run's account, what a guard must refuse.

    The object comes from nobody's pod: that is the first thing that a guard refuses.

    Returns:
        Whether it refused; False if the cluster serves no such objects.

    Raises:
        Fault: it was let through.
        Unknown: we may not act as the account, or something else was in the way.
    """
    kind = GUARDS[name]
    user = f"system:serviceaccount:{cluster.namespace}:{cluster.account}"
    with cluster.connect() as api:
        api.client.set_default_header("Impersonate-User", user)
        try:
            api.call("create", kind, query={"dryRun": "All"}, body=_TRIALS[kind])
        except ApiRefusal as error:
            if f"'{name}'" in error.message:
                return True
            if error.status == 404:
                return False
            raise Unknown(
                f"you may not read admission policies, and a dry run as {user} ended "
                f"before them: {error.message}"
            ) from None
    raise Fault(f"policy {name} lets through what it must refuse, {_OPEN}", APPLY)
