"""What stands at the end of KFP's answer to a caller without a right."""

from __future__ import annotations

import re

ROLE = "bind it to the Role safescale-operator of manifests/base, or to kubeflow-edit"
# As Go prints what KFP asked Kubernetes (backend/src/apiserver/auth, 2.17.0).
_ASKED = re.compile(
    r"User '(?P<user>[^']+)' is not authorized.*?ResourceAttributes\{"
    r"Namespace:(?P<space>[^,]*),Verb:(?P<verb>[^,]*),Group:[^,]*,Version:[^,]*,"
    r"Resource:(?P<resource>[^,]*),Subresource:(?P<sub>[^,]*),",
    re.DOTALL,
)
# The upload service answers so, with 400, whatever became of the right to upload.
_UPLOAD = re.compile(r"Failed to create a pipeline(?: version)?\.?")


def denial(body: object) -> str:
    """Returns who may not do what, where: `USER may not VERB RESOURCE in NAMESPACE`.

    "" if the answer does not say it.
    """
    match = _ASKED.search(str(body))
    if match is None:
        return ""
    resource = "/".join(filter(None, (match["resource"], match["sub"])))
    space = f" in namespace {match['space']!r}" if match["space"] else ""
    return f"{match['user']} may not {match['verb']} {resource}{space}"


def hint_of_upload(status: int, reason: str) -> str:
    """Returns what else may stand behind an upload's no, which names no reason.

    Args:
        status: of HTTP.
        reason: as the server says it.
    """
    bare = _UPLOAD.fullmatch(reason.strip(": "))
    if status != 400 or bare is None:
        return ""
    return (
        ": it says no more where the caller may not create pipelines or "
        f"pipelines/versions; {ROLE}"
    )
