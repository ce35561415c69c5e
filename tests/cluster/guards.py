"""The admission policies that lie in the cluster, in force for what comes over HTTP."""

from __future__ import annotations

from policy.admission import Request, policies_of

from cluster.api import ClusterApi
from cluster.objects import Failure, Kind, Object

KINDS = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")


def guard(
    api: ClusterApi,
    kind: Kind,
    place: str,
    *,
    user: str,
    pod: tuple[str, str] | None,
    old: Object | None = None,
    new: Object | None = None,
    sub: str = "",
) -> None:
    """Refuses what a policy refuses, in the words of the API server.

    Raises:
        Failure: 422, with the name of the policy and its first message.
    """
    if not all(plural in {k.plural for k in api.kinds.values()} for plural in KINDS):
        return
    operation = "UPDATE" if old and new else ("CREATE" if new else "DELETE")
    about = api.get("namespaces", place)["metadata"] if place else {}
    asked = {
        "object": new,
        "old": old,
        "subresource": sub,
        "namespace": place,
        "labels": about.get("labels") or {},
        "annotations": about.get("annotations") or {},
    }
    request = Request(kind.full_name, operation, user=user, pod=pod, **asked)
    for policy in policies_of([thing for p in KINDS for thing in api.list(p)]):
        if said := policy.refusals(request):
            name = ((new or old or {}).get("metadata") or {}).get("name", "")
            raise Failure(
                422,
                "Invalid",
                f'{kind.full_name} "{name}" is forbidden: ValidatingAdmissionPolicy '
                f"'{policy.name}' with binding '{policy.name}' denied request: "
                f"{said[0]}",
            )
