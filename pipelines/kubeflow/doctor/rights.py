"""Whose rights a run needs: those of KFP's caller, and those of its own account.

KFP takes the caller from the token or the login that it is sent, which need not be
the user of the kubeconfig here; so its rights are asked for by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.kubeflow.denials import ROLE
from pipelines.kubeflow.doctor.checks import Check, Fault, Unknown
from pipelines.kubeflow.doctor.cluster import APPLY, ARTIFACT_KEY, Cluster, RawPath
from pipelines.kubeflow.session import Session
from safescale_ammt.cluster.access import ACCESS, Access
from safescale_ammt.cluster.refusals import ApiRefusal, Denied, subject_of

# What KFP's own driver, launcher and executor call under a run's account.
LAUNCHER = (
    Access("get", "", "configmaps"),
    Access("get", "", "secrets"),
    Access("get", "", "pods"),
    Access("create", "argoproj.io", "workflowtaskresults"),
    Access("patch", "argoproj.io", "workflowtaskresults"),
)
# What `submit`, `--upload-only` and `schedule` call in a multi-user KFP, which asks
# Kubernetes about each of them under its own group.
OPERATOR = tuple(
    Access(verb, "pipelines.kubeflow.org", resource)
    for resource, verbs in (
        ("pipelines", ("create", "get", "list")),
        ("pipelines/versions", ("create", "get", "list")),
        ("experiments", ("create", "list")),
        ("runs", ("create", "get", "list", "terminate")),
        ("jobs", ("create", "list", "enable", "disable")),
    )
    for verb in verbs
)
_REVIEWS = "/apis/authorization.k8s.io/v1"
_SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True)
class Rights:
    """The rights that count, in one namespace.

    Attributes:
        cluster: which.
        session: says who KFP is told we are.
    """

    cluster: Cluster
    session: Callable[[], Session]

    def checks(self) -> list[Check]:
        """Returns the checks, each after those that it needs."""
        return [
            Check("own rights", self.of_the_caller, ("kubernetes", "kubeflow")),
            Check("account's rights", self.of_a_run, ("account",)),
        ]

    def of_the_caller(self) -> str:
        """Asks what the bearer of KFP's token, or who logs in at Dex, may do."""
        if not self.cluster.multi_user():
            raise Unknown("KFP is in single-user mode and asks for none")
        session = self.session()
        user = session.user
        if session.token_file is not None:
            user = subject_of(session.token())
        if not user:
            raise Unknown(
                "who Kubeflow takes us for is not known here: there is no login, and "
                "no token that names somebody"
            )
        missing = self.missing(OPERATOR, user)
        if missing:
            raise Fault(
                f"{user} may not {words(missing)} in {self.cluster.namespace}",
                ROLE,
            )
        return f"{len(OPERATOR)} of {len(OPERATOR)}, of {user}"

    def of_a_run(self) -> str:
        """Asks what the pods of a run may do."""
        cluster = self.cluster
        # Without doubles, in a fixed order: both lists hold `get pods`.
        rights = dict.fromkeys((*LAUNCHER, *(ACCESS if cluster.trainjob else ())))
        user = f"{_ACCOUNT}{cluster.namespace}:{cluster.account}"
        missing = self.missing(rights, user)
        if missing:
            raise Fault(
                f"{cluster.account} may not {words(missing)}",
                f"bind it to the Role of its name: {APPLY}",
            )
        return f"{len(rights)} of {len(rights)}"

    def missing(self, rights: Iterable[Access], user: str) -> list[Access]:
        """Returns those of some rights that a user lacks.

        Raises:
            Unknown: we may not ask about that user.
        """
        path, kind, more = self.form(user)
        return [right for right in rights if not self.may(right, path, kind, more)]

    def form(self, user: str) -> tuple[str, str, dict[str, Any]]:
        """Returns path, kind and further fields of a review of a user's rights."""
        api = self.cluster.api
        try:
            body = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "SelfSubjectReview",
            }
            review = api.call("create", RawPath("", "", _SELF), body=body)
            ours = review["status"]["userInfo"].get("username")
        except ApiRefusal:  # Kubernetes before 1.28 has none
            ours = ""
        if user == ours:  # everybody may ask about themselves
            return f"{_REVIEWS}/selfsubjectaccessreviews", "SelfSubjectAccessReview", {}
        groups = ["system:authenticated"]
        if user.startswith(_ACCOUNT):
            space = user.removeprefix(_ACCOUNT).partition(":")[0]
            groups += ["system:serviceaccounts", f"system:serviceaccounts:{space}"]
        # The local form: a right in this namespace is enough to ask for it.
        path = f"{_REVIEWS}/namespaces/{self.cluster.namespace}"
        more = {"user": user, "groups": groups}
        return f"{path}/localsubjectaccessreviews", "LocalSubjectAccessReview", more

    def may(self, right: Access, path: str, kind: str, more: dict[str, Any]) -> bool:
        """Asks for one right, in the form that `form` returns.

        Raises:
            Unknown: we may not ask.
        """
        body: dict[str, Any] = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": kind,
            "metadata": {"namespace": self.cluster.namespace} if more else {},
            "spec": {"resourceAttributes": self.attributes(right), **more},
        }
        try:
            review = self.cluster.api.call("create", RawPath("", "", path), body=body)
        except Denied:
            who = more.get("user", "ourselves")
            raise Unknown(f"you may not ask for the rights of {who}") from None
        return bool(review["status"].get("allowed"))

    def attributes(self, right: Access) -> dict[str, str]:
        """Returns a right as a review names it."""
        resource, _, sub = right.resource.partition("/")
        attributes = {
            "namespace": self.cluster.namespace,
            "verb": right.verb,
            "group": right.group,
            "resource": resource,
        }
        if sub:
            attributes["subresource"] = sub
        # The Role grants these by name; asked without one, Kubernetes says no.
        by_name = {
            "configmaps": "kfp-launcher",
            "secrets": ARTIFACT_KEY,
            "trainingruntimes": self.cluster.runtime,
        }
        if right.resource in by_name:
            attributes["name"] = by_name[right.resource]
        return attributes


def words(rights: Iterable[Access]) -> str:
    """Spells rights: `create trainjobs, get pods/log`."""
    return ", ".join(f"{right.verb} {right.resource}" for right in rights)
