"""The pods for which a job works: its owners in the sense of Kubernetes.

A job names every pod that waits for it in `ownerReferences`. The garbage
collector deletes it once all of them are gone, so that a stage that was killed
leaves nothing behind when its workflow is deleted; the pod of a retry, or of
another run that asks for the same training, adds itself on adoption.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.refusals import ApiRefusal
from safescale_ammt.cluster.resources import PODS, TRAINJOBS

_MAIN = ("main", "user-container")
"""What Argo, and then others, call the container of a step."""
_LIVING = ("Pending", "Running")


@dataclass(frozen=True)
class Owner:
    """This stage's pod: its reference, and the image that it runs."""

    reference: Mapping[str, Any]
    image: str = ""

    @property
    def uid(self) -> str:
        """Uid of the pod."""
        return str(self.reference["uid"])


def own_pod(api: Api, environ: Mapping[str, str] = os.environ) -> Owner | None:
    """Finds the pod that this stage runs in; None, said once, if it cannot.

    The pod's name comes from KFP, else from the host name, which is the pod's.

    Raises:
        Denied: nobody knows the caller (401).
    """
    name = environ.get("KFP_POD_NAME") or environ.get("HOSTNAME", "")
    try:
        if not name:
            raise ApiRefusal("The name of this step's own pod is not known.", 404, "")
        pod = api.call("get", PODS, name)
    except ApiRefusal as answer:
        if answer.status == 401:
            raise
        api.say(
            f"{answer} The TrainJob gets no owner: if this step is killed, the job "
            "goes on until it is done, and stays until it is deleted."
        )
        return None
    return Owner(_reference(pod), _image(pod))


def adopt(api: Api, found: Mapping[str, Any], owner: Owner | None) -> None:
    """Adds this pod to a job's owners, unless it is one already.

    Raises:
        ApiRefusal: 409 if the job has changed meanwhile, 404 if it is gone.
    """
    refs = owners_of(found)
    if owner is not None and owner.uid not in {ref["uid"] for ref in refs}:
        _write(api, found, [*refs, dict(owner.reference)])


def disown(api: Api, found: Mapping[str, Any], owner: Owner | None) -> bool:
    """Takes this pod off a job's owners if another of them still lives.

    Returns:
        Whether the job has been left to others; if not, it may be deleted.
    """
    others = [r for r in owners_of(found) if owner is None or r["uid"] != owner.uid]
    if owner is None or not any(_lives(api, ref) for ref in others):
        return False
    _write(api, found, others)
    return True


def owners_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the owners that a job names."""
    return list(found["metadata"].get("ownerReferences") or ())


def _write(api: Api, found: Mapping[str, Any], refs: list[dict[str, Any]]) -> None:
    meta = found["metadata"]
    # With the version that was read: of two who write at once, one gets a 409.
    patch = {
        "metadata": {
            "resourceVersion": meta["resourceVersion"],
            "ownerReferences": refs,
        }
    }
    api.call("patch", TRAINJOBS, meta["name"], body=patch)


def _lives(api: Api, reference: Mapping[str, Any]) -> bool:
    if reference.get("kind") != "Pod":
        return True
    try:
        pod = api.call("get", PODS, str(reference["name"]))
    except ApiRefusal:
        return False
    same = pod["metadata"]["uid"] == reference["uid"]
    return same and (pod.get("status") or {}).get("phase") in _LIVING


def _reference(pod: Mapping[str, Any]) -> dict[str, Any]:
    # Neither controller nor blocking: that would take rights on pods' finalizers.
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod["metadata"]["name"],
        "uid": pod["metadata"]["uid"],
        "controller": False,
        "blockOwnerDeletion": False,
    }


def _image(pod: Mapping[str, Any]) -> str:
    """Returns the image of the step's container, by digest where it is known."""
    containers = pod["spec"]["containers"]
    named = [c for c in containers if c["name"] in _MAIN] or containers
    name, image = named[0]["name"], str(named[0].get("image", ""))
    if "@sha256:" in image:
        return image
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        pulled = str(status.get("imageID", "")).split("://")[-1]
        if status["name"] == name and "@sha256:" in pulled:
            return pulled
    return image
