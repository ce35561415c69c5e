"""What the API answers when it does not do what a call wants, as one sentence.

An answer that another try would not change is an `ApiRefusal`; what may pass is `Away`.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from safescale_ammt.cluster.resources import Resource
from safescale_ammt.errors import ClusterError, ClusterInputError
from safescale_ammt.files.json_text import parse_json

_DENIED = re.compile(r'User "([^"]*)" cannot (\S+) resource "([^"]+)"')


class ApiRefusal(ClusterError):
    """The API answered, and not with success; `status` is the HTTP status."""

    def __init__(self, sentence: str, status: int, message: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.message = message

    @property
    def is_full(self) -> bool:
        """Whether a quota is full: it refuses with 403, and has room again later."""
        return self.status == 403 and "exceeded quota" in self.message


class Denied(ApiRefusal, ClusterInputError):
    """The caller is unknown (401), or may not do this (403)."""

    exit_code = 2


class OutOfReach(ClusterError):
    """The API stayed away until it was given up; the job goes on."""


class Away(Exception):
    """No answer, or one that says to come back; `str` says what happened."""


@dataclass(frozen=True)
class ApiRequest:
    """One call: what it does, where, and with whose token."""

    verb: str
    resource: Resource
    namespace: str
    host: str
    token: str

    def refusal(
        self, status: int, body: str, transient: frozenset[int]
    ) -> ApiRefusal | Away:
        """Returns what an answer other than success means.

        Args:
            status: the HTTP status.
            body: a Status object as JSON, or what a proxy says.
            transient: statuses that another try may change.
        """
        try:
            message = one_line(parse_json(body)["message"])
        except (ValueError, KeyError, TypeError):
            message = one_line(body)  # a proxy's page, or nothing
        if status in transient:
            return Away(f"{status} {message}".strip())
        if status == 401:
            user = subject_of(self.token)
            who = _account(user) if user else "the bearer of this token"
            return Denied(
                f"The Kubernetes API at {self.host} does not know {who} (401), who "
                f"wanted to {self.verb} {self.resource.full_name} in "
                f"namespace {self.namespace}; check the pod's service account token.",
                status,
                message,
            )
        # The API server's own words name account, verb and resource; other 403s (an
        # admission policy, a quota) are no missing right.
        if status == 403 and (match := _DENIED.search(message)):
            group = f".{self.resource.group}" if self.resource.group else ""
            return Denied(
                f"{_account(match[1])} may not {match[2]} {match[3]}{group} in "
                f"namespace {self.namespace} (403); bind it to the Role "
                "safescale-pipeline of manifests/base.",
                status,
                message,
            )
        return ApiRefusal(
            f"The Kubernetes API at {self.host} refuses to {self.verb} "
            f"{self.resource.full_name} in namespace {self.namespace} ({status}): "
            f"{message}",
            status,
            message,
        )

    def failure(self, error: Exception) -> ClusterInputError | Away:
        """Returns what it means that there was no answer at all."""
        # Waiting does not mend a certificate.
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ClusterInputError(
                f"The certificate of the Kubernetes API at {self.host} cannot be "
                f"verified ({one_line(error)}); check the cluster's CA."
            )
        return Away(one_line(error))


def one_line(text: object) -> str:
    """Returns the beginning of a text, on one line."""
    return " ".join(str(text).split())[:300]


def subject_of(token: str) -> str:
    """Returns whom a service account's token, a JWT, says it is of; "" if it says none.

    Read, not verified: it is only who a question or a sentence is about.
    """
    try:
        payload = token.split(".")[1]
        claims = parse_json(base64.urlsafe_b64decode(payload + "=="))
        return str(claims["sub"])
    except (IndexError, ValueError, KeyError, TypeError):
        return ""


def _account(user: str) -> str:
    parts = user.split(":")
    if user.startswith("system:serviceaccount:") and len(parts) == 4:
        return f"Service account {parts[2]}/{parts[3]}"
    return f"User {user}"
