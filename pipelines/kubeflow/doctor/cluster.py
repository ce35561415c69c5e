"""What the namespace on Kubernetes must have: labels, an account, a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipelines.kubeflow.doctor.checks import Check, Fault, Unknown
from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.refusals import ApiRefusal, Denied, OutOfReach
from safescale_ammt.cluster.resources import Resource
from safescale_ammt.cluster.timeouts import API_RETRY, Timeouts
from safescale_ammt.errors import ClusterInputError

APPLY = "kubectl apply -k manifests/base (or the overlay that you use)"
KUBECONFIG = "set KUBECONFIG to the cluster's kubeconfig, or check that it runs"
ARTIFACT_KEY = "mlpipeline-minio-artifact"
"""The secret with the key of KFP's own store."""
_TRAINER = ("trainer.kubeflow.org", "v1alpha1")


class RawPath(Resource):
    """A path outside of the namespace: versions, discovery, reviews, nodes."""

    def path(self, namespace: str, name: str = "", sub: str = "") -> str:  # noqa: ARG002
        """Returns the path as it was given."""
        return self.plural


@dataclass
class Cluster:
    """One namespace, seen from outside.

    Attributes:
        namespace: which.
        account: service account of a run.
        runtime: name of the TrainingRuntime.
        trainjob: whether the backend is trainjob.
        multi_user: says whether KFP asks for rights of our own.
        environ: names the cluster.
        patience: seconds that an API that is away is waited for.
        spark: whether rows are prepared on Spark.
    """

    namespace: str
    account: str
    runtime: str
    trainjob: bool
    multi_user: Callable[[], bool]
    environ: Mapping[str, str]
    patience: float
    spark: bool = False

    @cached_property
    def api(self) -> Api:
        """The API, by kubeconfig or from within a pod."""
        return self.connect()

    def connect(self) -> Api:
        """Opens a connection of its own, for calls that say more than others."""
        # Shorter than a stage's: a person waits in front of each check.
        retry = replace(API_RETRY, total=self.patience, longest=2.0, read=15.0)
        api = Api.connect(self.environ, Timeouts(retry), say=lambda _: None)
        api.namespace = self.namespace
        return api

    def checks(self) -> list[Check]:
        """Returns the checks, each after those that it needs."""
        return [
            Check("kubernetes", self._reachable, remedy=KUBECONFIG),
            Check("namespace", self._namespace, ("kubernetes",)),
            Check("pod security", self._pod_security, ("namespace", "kubeflow")),
            Check("account", self._account, ("namespace",)),
            Check("trainer", self._trainer, ("kubernetes",)),
            Check("runtime", self._runtime, ("trainer", "namespace")),
        ]

    def read(self, plural: str, name: str = "", *, group: str = "") -> dict[str, Any]:
        """Reads an object or a listing of the namespace.

        Raises:
            Unknown: we may not.
            ApiRefusal: it is not there.
        """
        # Besides Kubernetes' own, groups of the trainer and of Spark are read here.
        version = "v1alpha1" if group else "v1"
        try:
            # Without a plural it is the namespace itself.
            verb = "get" if name or not plural else "list"
            return self.api.call(verb, Resource(group, version, plural), name)
        except Denied as error:
            if error.status == 401:  # nobody is logged in: a fault, no missing right
                raise
            raise Unknown(f"you may not read {plural}") from None

    def look(self, path: str, what: str) -> dict[str, Any] | None:
        """Reads what lies outside of the namespace; None if it is not there.

        Args:
            path: of the API, such as "/api/v1/nodes".
            what: it is, for the sentence, as in "the nodes".

        Raises:
            Unknown: we may not.
        """
        try:
            return self.api.call("get", RawPath("", "", path))
        except Denied as error:
            if error.status == 401:
                raise
            raise Unknown(f"you may not read {what}") from None
        except ApiRefusal as error:
            if error.status != 404:
                raise
            return None

    def _reachable(self) -> str:
        try:
            _ = self.api
        except ClusterInputError:  # its sentence speaks of a stage, not of a person
            raise Fault("no Kubernetes API is known here", KUBECONFIG) from None
        try:
            version = self.api.call("get", RawPath("", "", "/version"))
        except OutOfReach:  # as above
            raise Fault(f"{self.api.host} does not answer", KUBECONFIG) from None
        return f"{version.get('gitVersion', 'some version')} at {self.api.host}"

    def _namespace(self) -> str:
        self.require("", "", f"namespace {self.namespace}", APPLY)
        return self.namespace

    def _pod_security(self) -> str:
        labels = self.read("")["metadata"].get("labels", {})
        level = labels.get("pod-security.kubernetes.io/enforce")
        # The manifests' namespace refuses pods that may do more; one that enforces less
        # is another namespace, or lost its labels.
        if level != "restricted":
            if not self.multi_user():
                raise Unknown("KFP's own pods live there too, written for other rules")
            raise Fault(
                f"namespace {self.namespace} enforces {level or 'nothing'}",
                f"kubectl label namespace {self.namespace} --overwrite "
                "pod-security.kubernetes.io/enforce=restricted",
            )
        return "restricted"

    def _account(self) -> str:
        self.require("serviceaccounts", self.account, f"account {self.account}", APPLY)
        return self.account

    def _trainer(self) -> str:
        if not self.trainjob:
            raise Unknown("training.backend is not trainjob")
        listing = self.look("/apis/" + "/".join(_TRAINER), "what the API serves") or {}
        names = [item["name"] for item in listing.get("resources", [])]
        if "trainjobs" not in names:
            raise Fault("the API serves no TrainJob", "install Kubeflow Trainer 2.x")
        return "/".join(_TRAINER)

    def _runtime(self) -> str:
        if self.node_container() is None:
            raise Fault(
                f"TrainingRuntime {self.runtime} has no container node in a job node",
                APPLY,
            )
        return self.runtime

    def node_container(self) -> dict[str, Any] | None:
        """Returns the container that a TrainJob trains in, as its runtime has it.

        None if there is none: Kubeflow Trainer knows it by its name and its job's,
        `node`.

        Raises:
            Fault: there is no such runtime.
            Unknown: we may not read it.
        """
        what = f"TrainingRuntime {self.runtime}"
        runtime = self.require(
            "trainingruntimes", self.runtime, what, APPLY, group=_TRAINER[0]
        )
        jobs = runtime["spec"].get("template", {}).get("spec", {}).get("replicatedJobs")
        for job in jobs or ():
            pod = job["template"]["spec"]["template"]["spec"]
            for container in pod["containers"]:
                if job["name"] == container["name"] == "node":
                    return dict(container)
        return None

    def require(
        self, plural: str, name: str, what: str, remedy: str, *, group: str = ""
    ) -> dict[str, Any]:
        """Reads an object that must be there.

        Raises:
            Fault: it is not.
            Unknown: we may not.
        """
        item = self.find(plural, name, group=group)
        if item is None:
            raise Fault(f"{what} does not exist", remedy)
        return item

    def find(self, plural: str, name: str, *, group: str = "") -> dict[str, Any] | None:
        """Reads an object; None if it is not there."""
        try:
            return self.read(plural, name, group=group)
        except ApiRefusal as error:
            if error.status != 404:
                raise
            return None
