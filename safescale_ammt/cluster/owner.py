"""The pods for which a job works: its owners in the sense of Kubernetes.

A job names every pod that waits for it in `ownerReferences`. The garbage
collector deletes it once all of them are gone, so that a stage that was killed
leaves nothing behind when its workflow is deleted; the pod that follows a lost one,
or that of another run which asks for the same training, adds itself on adoption.
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

    @classmethod
    def of(cls, pod: Mapping[str, Any]) -> Owner:
        """Returns a pod as an owner, with the image of its step's container."""
        # Neither controller nor blocking: that would take rights on pods' finalizers.
        reference = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
            "controller": False,
            "blockOwnerDeletion": False,
        }
        containers = pod["spec"]["containers"]
        steps = [one for one in containers if one["name"] in _MAIN] or containers
        name, image = steps[0]["name"], str(steps[0].get("image", ""))
        if "@sha256:" in image:
            return cls(reference, image)
        # A tag may point elsewhere by now; the kubelet knows which digest it pulled.
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            pulled = str(status.get("imageID", "")).split("://")[-1]
            if status["name"] == name and _same_repository(image, pulled):
                return cls(reference, pulled)
        return cls(reference, image)

    @property
    def uid(self) -> str:
        """Uid of the pod."""
        return str(self.reference["uid"])


def _same_repository(image: str, pulled: str) -> bool:
    """Says whether an image by digest is of the repository that a tag names.

    An image that was loaded into the node (`kind load`, `ctr import`) has a digest
    under a name that containerd made up; no registry knows it, nor do guards.
    """
    repository, at, _ = pulled.partition("@sha256:")
    path, _, last = image.rpartition("/")
    named = f"{path}/{last.partition(':')[0]}".lstrip("/")
    return bool(at) and repository in (
        named,
        f"docker.io/{named}",
        f"docker.io/library/{named}",
    )


def own_pod(api: Api, environ: Mapping[str, str] = os.environ) -> Owner | None:
    """Finds the pod that this stage runs in; None, and one line, if it cannot.

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
        # 401 would be the answer to every later call too; without the right to read
        # pods (403), or outside of a pod (404), training works all the same.
        if answer.status == 401:
            raise
        api.say(
            f"{answer} The TrainJob gets no owner: if this step is killed, the job "
            "goes on until it is done, and stays until it is deleted."
        )
        return None
    return Owner.of(pod)


def adopt(api: Api, live: Mapping[str, Any], owner: Owner | None) -> None:
    """Adds this pod to a job's owners, unless it is one already.

    Raises:
        ApiRefusal: 409 if the job has changed meanwhile, 404 if it is gone.
    """
    refs = owners_of(live)
    if owner is not None and owner.uid not in {ref["uid"] for ref in refs}:
        _write(api, live, [*refs, dict(owner.reference)])


def disown(api: Api, live: Mapping[str, Any], owner: Owner | None) -> bool:
    """Takes this pod off a job's owners if another of them still lives.

    Returns:
        Whether the job has been left to others; if not, it may be deleted.
    """
    if owner is None:
        return False
    others = [ref for ref in owners_of(live) if ref["uid"] != owner.uid]
    for ref in others:
        if ref.get("kind") != "Pod":
            break  # somebody has adopted it for a purpose of their own
        try:
            pod = api.call("get", PODS, str(ref["name"]))
        except ApiRefusal:
            continue
        # A new pod may have the name of one that is gone; a uid is never used twice.
        same = pod["metadata"]["uid"] == ref["uid"]
        if same and (pod.get("status") or {}).get("phase") in _LIVING:
            break
    else:
        return False
    _write(api, live, others)
    return True


def owners_of(live: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the owners that a job names."""
    return list(live["metadata"].get("ownerReferences") or ())


def _write(api: Api, live: Mapping[str, Any], refs: list[dict[str, Any]]) -> None:
    meta = live["metadata"]
    # With the version that was read: of two who write at once, one gets a 409.
    patch = {
        "metadata": {
            "resourceVersion": meta["resourceVersion"],
            "ownerReferences": refs,
        }
    }
    api.call("patch", TRAINJOBS, meta["name"], body=patch)
