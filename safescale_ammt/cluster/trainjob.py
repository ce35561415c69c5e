"""A TrainJob as an object: its name, its body, and what its status says.

Only fields that have kept their names since Kubeflow Trainer 2.0 are used:
`runtimeRef`, `trainer` and `suspend`. Volumes, security, secrets and the network
are the business of our TrainingRuntime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from safescale_ammt.code_version import code_digest
from safescale_ammt.files.canonical import digest_json

REQUEST = "safescale-ammt/request"
"""Annotation with the digest of the request: a job's identity."""
QUEUE = "kueue.x-k8s.io/queue-name"
NODE = "node"
"""Trainer's name for the replicated job and the container of the nodes."""
_LABELS = {
    "app.kubernetes.io/name": "safescale-ammt",
    "app.kubernetes.io/component": "train-agents",
    "app.kubernetes.io/managed-by": "safescale-ammt",
}


class JobState(Enum):
    """What a job is up to."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    COMPLETE = "complete"
    FAILED = "failed"
    GOING = "being deleted"


@dataclass(frozen=True)
class TrainJob:
    """One job to be made.

    The name comes from the digest alone: the next pod of a step, and another
    run that asks for the very same training, find the job that is there.
    """

    digest: str
    """Of everything that decides what is trained and by what code."""
    request: str
    """URI of the request that the worker reads."""
    runtime: str
    nodes: int = 1
    processes: int = 1
    """On all nodes together."""
    queue: str = ""
    image: str = ""
    """The stage's own image, by digest if known; "" = the runtime's."""

    @property
    def name(self) -> str:
        """DNS label of 32 characters."""
        # JobSet and Job add at most 20 for a pod; a label ends at 63. Sixteen digits
        # of SHA-256 are unique enough; `matches` compares the whole digest.
        return f"safescale-train-{self.digest.removeprefix('sha256:')[:16]}"

    def to_dict(self, owners: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Returns the object to create."""
        labels = {**_LABELS, **({QUEUE: self.queue} if self.queue else {})}
        trainer = {
            "command": ["python", "-m", "torch.distributed.run"],
            "args": ["-m", "safescale_ammt.launch.worker", self.request],
            "numNodes": self.nodes,
            "numProcPerNode": self.processes // self.nodes,
        }
        return {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "TrainJob",
            "metadata": {
                "name": self.name,
                "labels": labels,
                "annotations": {REQUEST: self.digest},
                **({"ownerReferences": [dict(o) for o in owners]} if owners else {}),
            },
            "spec": {
                "runtimeRef": {
                    "apiGroup": "trainer.kubeflow.org",
                    "kind": "TrainingRuntime",
                    "name": self.runtime,
                },
                # Kueue lets it start; without it, pods could start before Kueue looks.
                "suspend": bool(self.queue),
                "trainer": {**trainer, **({"image": self.image} if self.image else {})},
            },
        }

    def matches(self, live: Mapping[str, Any]) -> bool:
        """Says whether an object of this name was made for the same request."""
        notes = live["metadata"].get("annotations") or {}
        return bool(notes.get(REQUEST) == self.digest)


def digest_of(
    parents: Mapping[str, str],
    config: str,
    layout: Mapping[str, Any],
    image: str,
) -> str:
    """Returns the digest of a request.

    Args:
        parents: identities of dataset, architecture and constitution.
        config: digest of the training section.
        layout: processes, nodes, runtime and queue.
        image: the image that will run it, "" if unknown.
    """
    return digest_json(
        {
            "parents": dict(parents),
            "config": config,
            "layout": dict(layout),
            "image": image,
            # A tag may come to mean another image: the code counts by itself.
            "code": code_digest(),
        }
    )


def state(live: Mapping[str, Any]) -> JobState:
    """Reads an object's state off its conditions (Trainer 2: three types)."""
    # First: conditions stay as they are while finalizers hold the object.
    if live["metadata"].get("deletionTimestamp"):
        return JobState.GOING
    if condition(live, "Complete"):
        return JobState.COMPLETE
    if condition(live, "Failed"):
        return JobState.FAILED
    # The spec too: the condition comes only once the controller has looked.
    if condition(live, "Suspended") or live["spec"].get("suspend"):
        return JobState.SUSPENDED
    return JobState.ACTIVE


def condition(live: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """Returns a condition that holds, None if it does not."""
    for one in (live.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind and one.get("status") == "True":
            return dict(one)
    return None


def progress(live: Mapping[str, Any]) -> str:
    """Says how far a job is, if its train pod and Trainer report it ("" if not)."""
    status = (live.get("status") or {}).get("trainerStatus") or {}
    parts = []
    if (percent := status.get("progressPercentage")) is not None:
        parts.append(f"{percent} %")
    if (left := status.get("estimatedRemainingSeconds")) is not None:
        parts.append(f"{left} s left")
    parts += [f"{m['name']} {m['value']}" for m in status.get("metrics") or ()]
    return ", ".join(parts)
