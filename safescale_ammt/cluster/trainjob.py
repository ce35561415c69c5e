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
"""Annotation with the digest of what is asked for: a job's identity."""
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

    The name comes from the digest alone: a retry of the step, and another run
    that asks for the very same training, find the job that is there.
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
        """DNS label; the pods' names add at most 20 characters to its 32."""
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

    def is_it(self, found: Mapping[str, Any]) -> bool:
        """Says whether an object of this name was made for the same request."""
        notes = found["metadata"].get("annotations") or {}
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
            "code": code_digest(),
        }
    )


def state(found: Mapping[str, Any]) -> JobState:
    """Reads an object's state off its conditions (Trainer 2: three types)."""
    if found["metadata"].get("deletionTimestamp"):
        return JobState.GOING
    if condition(found, "Complete"):
        return JobState.COMPLETE
    if condition(found, "Failed"):
        return JobState.FAILED
    if condition(found, "Suspended") or found["spec"].get("suspend"):
        return JobState.SUSPENDED
    return JobState.ACTIVE


def condition(found: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """Returns a condition that holds, None if it does not."""
    for one in (found.get("status") or {}).get("conditions") or ():
        if one.get("type") == kind and one.get("status") == "True":
            return dict(one)
    return None


def progress(found: Mapping[str, Any]) -> str:
    """Says how far a job is, if its train pod and Trainer tell ("" if not)."""
    told = (found.get("status") or {}).get("trainerStatus") or {}
    parts = []
    if (percent := told.get("progressPercentage")) is not None:
        parts.append(f"{percent} %")
    if (left := told.get("estimatedRemainingSeconds")) is not None:
        parts.append(f"{left} s left")
    parts += [f"{m['name']} {m['value']}" for m in told.get("metrics") or ()]
    return ", ".join(parts)
