"""What the namespace on Kubernetes must have: labels, accounts, rights, runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from pipelines.kubeflow.doctor.checks import Check, Lacking, Unknown
from safescale_ammt.cluster.access import ACCESS, Access
from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.refusals import ApiRefusal, Denied, OutOfReach
from safescale_ammt.cluster.resources import Resource
from safescale_ammt.cluster.timeouts import API_RETRY, Timeouts
from safescale_ammt.errors import ClusterInputError

APPLY = "kubectl apply -k manifests/base (or the overlay that you use)"
KUBECONFIG = "set KUBECONFIG to the cluster's kubeconfig, or check that it runs"
LAUNCHER = (
    Access("get", "", "configmaps"),
    Access("get", "", "pods"),
    Access("create", "argoproj.io", "workflowtaskresults"),
    Access("patch", "argoproj.io", "workflowtaskresults"),
)
"""What KFP's own driver, launcher and executor call under a run's account."""
OPERATOR = (
    *(Access(v, "pipelines.kubeflow.org", "experiments") for v in ("create", "list")),
    *(
        Access(v, "pipelines.kubeflow.org", "runs")
        for v in ("create", "get", "list", "terminate")
    ),
    *(
        Access(v, "pipelines.kubeflow.org", "jobs")
        for v in ("create", "list", "enable", "disable")
    ),
)
"""What `submit` and `schedule` ask of a multi-user KFP."""
_TRAINER = ("trainer.kubeflow.org", "v1alpha1")


class At(Resource):
    """A path outside of the namespaces: versions, discovery, own rights."""

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
        trains_there: whether the backend is trainjob.
        multi_user: says whether KFP asks for rights of our own.
        environ: names the cluster.
        patience: seconds that an API that is away is waited for.
    """

    namespace: str
    account: str
    runtime: str
    trains_there: bool
    multi_user: Callable[[], bool]
    environ: Mapping[str, str]
    patience: float

    @cached_property
    def api(self) -> Api:
        """The API, by kubeconfig or from within a pod."""
        # Somebody watches: short waits, and no answer that takes half a minute.
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
            Check("own rights", self._own_rights, ("kubernetes", "kubeflow")),
            Check("account", self._account, ("namespace",)),
            Check("account's rights", self._account_rights, ("account",)),
            Check("trainer", self._trainer, ("kubernetes",)),
            Check("runtime", self._runtime, ("trainer", "namespace")),
        ]

    def read(self, plural: str, name: str = "", *, group: str = "") -> dict[str, Any]:
        """Reads an object or a listing of the namespace.

        Raises:
            Unknown: we may not.
            ApiRefusal: it is not there.
        """
        version = "v1alpha1" if group else "v1"
        try:
            verb = "get" if name else "list"
            return self.api.call(verb, Resource(group, version, plural), name)
        except Denied as error:
            if error.status == 401:
                raise
            raise Unknown(f"you may not read {plural}") from None

    def _reachable(self) -> str:
        try:
            _ = self.api
        except ClusterInputError:  # its sentence speaks of a stage, not of a person
            raise Lacking("no Kubernetes API is known here", KUBECONFIG) from None
        try:
            said = self.api.call("get", At("", "", "/version"))
        except OutOfReach:  # as above
            raise Lacking(f"{self.api.host} does not answer", KUBECONFIG) from None
        return f"{said.get('gitVersion', 'some version')} at {self.api.host}"

    def _namespace(self) -> str:
        self.found("", "", f"namespace {self.namespace}", APPLY)
        return self.namespace

    def _pod_security(self) -> str:
        labels = self.read("")["metadata"].get("labels", {})
        level = labels.get("pod-security.kubernetes.io/enforce")
        if level != "restricted":
            if not self.multi_user():
                raise Unknown("KFP's own pods live there too, written for other rules")
            raise Lacking(
                f"namespace {self.namespace} enforces {level or 'nothing'}",
                f"kubectl label namespace {self.namespace} --overwrite "
                "pod-security.kubernetes.io/enforce=restricted",
            )
        return "restricted"

    def _own_rights(self) -> str:
        if not self.multi_user():
            raise Unknown("KFP is in single-user mode and asks for none")
        missing = [right for right in OPERATOR if not self._may(right)]
        if missing:
            raise Lacking(
                f"you may not {_words(missing)} in {self.namespace}",
                "bind yourself to the Role safescale-operator or to kubeflow-edit",
            )
        return f"{len(OPERATOR)} of {len(OPERATOR)}"

    def _account(self) -> str:
        self.found("serviceaccounts", self.account, f"account {self.account}", APPLY)
        return self.account

    def _account_rights(self) -> str:
        wanted = dict.fromkeys((*LAUNCHER, *(ACCESS if self.trains_there else ())))
        missing = [right for right in wanted if not self._may(right, self.account)]
        if missing:
            raise Lacking(
                f"{self.account} may not {_words(missing)}",
                f"bind it to the Role of its name: {APPLY}",
            )
        return f"{len(wanted)} of {len(wanted)}"

    def _may(self, right: Access, account: str = "") -> bool:
        """Asks for a right: of an account, else our own.

        Raises:
            Unknown: we may not ask about others.
        """
        resource, _, sub = right.resource.partition("/")
        asked: dict[str, Any] = {
            "namespace": self.namespace,
            "verb": right.verb,
            "group": right.group,
            "resource": resource,
        }
        asked |= {"subresource": sub} if sub else {}
        if right.resource == "configmaps":
            asked["name"] = "kfp-launcher"
        if right.resource == "trainingruntimes":
            asked["name"] = self.runtime
        spec: dict[str, Any] = {"resourceAttributes": asked}
        whose = "self"
        if account:
            spec["user"] = f"system:serviceaccount:{self.namespace}:{account}"
            whose = "local"
        reviews = f"{whose}subjectaccessreviews"
        path = "/apis/authorization.k8s.io/v1/"
        path += f"namespaces/{self.namespace}/{reviews}" if account else reviews
        kind = {"self": "Self", "local": "Local"}[whose] + "SubjectAccessReview"
        body: dict[str, Any] = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": kind,
            "metadata": {"namespace": self.namespace} if account else {},
            "spec": spec,
        }
        try:
            said = self.api.call("create", At("", "", path), body=body)
        except Denied:
            raise Unknown("you may not ask for the rights of others") from None
        return bool(said["status"].get("allowed"))

    def _trainer(self) -> str:
        if not self.trains_there:
            raise Unknown("training.backend is not trainjob")
        path = "/apis/" + "/".join(_TRAINER)
        try:
            said = self.api.call("get", At("", "", path))
            names = [item["name"] for item in said.get("resources", [])]
        except ApiRefusal:
            names = []
        if "trainjobs" not in names:
            raise Lacking("the API serves no TrainJob", "install Kubeflow Trainer 2.x")
        return "/".join(_TRAINER)

    def _runtime(self) -> str:
        found = self.found(
            "trainingruntimes",
            self.runtime,
            f"TrainingRuntime {self.runtime}",
            APPLY,
            group=_TRAINER[0],
        )
        jobs = found["spec"].get("template", {}).get("spec", {}).get("replicatedJobs")
        for job in jobs or ():
            pod = job["template"]["spec"]["template"]["spec"]
            names = [container["name"] for container in pod["containers"]]
            if job["name"] == "node" and "node" in names:
                return self.runtime
        raise Lacking(
            f"TrainingRuntime {self.runtime} has no container node in a job node", APPLY
        )

    def found(
        self, plural: str, name: str, what: str, remedy: str, *, group: str = ""
    ) -> dict[str, Any]:
        """Reads an object that must be there.

        Raises:
            Lacking: it is not.
        """
        found = self.optional(plural, name, group=group)
        if found is None:
            raise Lacking(f"{what} does not exist", remedy)
        return found

    def optional(
        self, plural: str, name: str, *, group: str = ""
    ) -> dict[str, Any] | None:
        """Reads an object; None if it is not there."""
        try:
            return self.read(plural, name, group=group)
        except ApiRefusal as error:
            if error.status != 404:
                raise
            return None


def _words(rights: Sequence[Access]) -> str:
    """Spells rights: `create trainjobs, get pods/log`."""
    return ", ".join(f"{right.verb} {right.resource}" for right in rights)
