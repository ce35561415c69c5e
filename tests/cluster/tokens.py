"""Tokens that somebody asked for: whose they are, and the pod that each is bound to."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.objects import Failure, Object

if TYPE_CHECKING:
    from cluster.api import ClusterApi


@dataclass(frozen=True)
class Bearer:
    """Who comes with a token: a user, and name and uid of a pod; None = of none."""

    user: str
    pod: tuple[str, str] | None = None


def issue(api: ClusterApi, place: str, account: str, asked: Object) -> Object:
    """Answers a TokenRequest as the API server does (registry/core/serviceaccount).

    Raises:
        Failure: no such account or pod, or the pod is another account's.
    """
    api.objects.get(api.kind("serviceaccounts"), place, account)
    user, pod = f"system:serviceaccount:{place}:{account}", None
    if bound := asked["spec"].get("boundObjectRef"):
        found = api.objects.get(api.kind("pods"), place, bound["name"])
        uid = found["metadata"]["uid"]
        if bound.get("uid", uid) != uid:
            raise Failure(409, "Conflict", "the UID in the bound object reference ...")
        if found["spec"].get("serviceAccountName") != account:
            raise Failure(
                400,
                "BadRequest",
                f'cannot bind token for serviceaccount "{account}" to pod running with '
                "different serviceaccount name.",
            )
        pod = bound["name"], uid
    claims = json.dumps({"sub": user}).encode()
    middle = base64.urlsafe_b64encode(claims).decode().rstrip("=")
    token = f"e30.{middle}.{secrets.token_hex(8)}"
    api.tokens[token] = Bearer(user, pod)
    until = "2036-01-01T00:00:00Z"
    return {**asked, "status": {"token": token, "expirationTimestamp": until}}
