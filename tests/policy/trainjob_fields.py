"""Every field that a TrainJob may have, by Trainer's version: allowed or refused.

From `pkg/apis/trainer/v1alpha1/trainjob_types.go` of kubeflow/trainer v2.1.0, v2.2.1
and v2.3.0, by the names of the CRD. Each has a value that a run might send: what our
own jobs send where it is allowed, else the first of what it could do.
"""

from __future__ import annotations

from typing import Any

DIGEST = "52680018516dc43ff42fbdc6556f063fc5b072e0853a876411106bad03456fc8"
IMAGE = "registry.example.org/team/train_agents@sha256:" + "c" * 64
CONTROLLER = "trainer.kubeflow.org/trainjob-controller"
SECRET = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "safescale-registry"}}}
QUEUE = "kueue.x-k8s.io/queue-name"
KUEUE = "kueue.x-k8s.io/manager"

SPEC = {
    "2.1": "runtimeRef initializer trainer labels annotations podTemplateOverrides "
    "suspend managedBy",
    "2.2": "runtimeRef initializer trainer runtimePatches suspend "
    "activeDeadlineSeconds managedBy",
    "2.3": "runtimeRef initializer trainer runtimePatches suspend "
    "activeDeadlineSeconds managedBy",
}
"""Version -> fields of `spec`."""
TRAINER = "image command args env numNodes resourcesPerNode numProcPerNode"
"""Fields of `spec.trainer`, the same in all three."""

ALLOWED: dict[str, Any] = {
    "spec.runtimeRef": {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": "safescale-torch",
    },
    "spec.suspend": True,
    "spec.managedBy": CONTROLLER,
    "spec.trainer": {
        "command": ["python", "-m", "torch.distributed.run"],
        "args": [
            "-m",
            "safescale_ammt.launch.worker",
            f"s3://bucket/training/jobs/{DIGEST}/request.json",
        ],
        "numNodes": 2,
        "numProcPerNode": 4,
        "image": IMAGE,
    },
    "spec.trainer.image": IMAGE,
    "spec.trainer.command": ["python", "-m", "torch.distributed.run"],
    # As on the plane that the shared facts tell of: an earlier home of the worker.
    "spec.trainer.args": [
        "-m",
        "safescale_ammt.training.worker",
        f"s3://safescale/training/jobs/{DIGEST}/request.json",
    ],
    "spec.trainer.numNodes": 1,
    "spec.trainer.numProcPerNode": 1,
}
"""Field -> what a job of ours has there, or Trainer's defaults put there."""

REFUSED: dict[str, Any] = {
    # Secrets by name, URIs of an attacker's, environment.
    "spec.initializer": {"dataset": {"secretRef": {"name": "safescale-registry"}}},
    # Reach the pods (2.1): the mesh's sidecar, network policies, marks of webhooks.
    "spec.labels": {"app.kubernetes.io/component": "register-model"},
    "spec.annotations": {"sidecar.istio.io/inject": "true"},
    "spec.podTemplateOverrides": [
        {
            "targetJobs": [{"name": "node"}],
            "spec": {"serviceAccountName": "safescale-pipeline"},
        }
    ],
    "spec.runtimePatches": [{"manager": "safescale-ammt"}],
    # None of our jobs says one: the step that waits has the deadline.
    "spec.activeDeadlineSeconds": 60,
    "spec.trainer.env": [SECRET],
    "spec.trainer.resourcesPerNode": {"limits": {"nvidia.com/gpu": "4"}},
}
"""Field -> what a run may not have there, with the first of what it could do."""

OF_A_POD = {
    "serviceAccountName": "safescale-pipeline",
    "volumes": [{"name": "x", "secret": {"secretName": "safescale-registry"}}],
    "initContainers": [{"name": "x", "env": [SECRET]}],
    "containers": [
        {"name": "node", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}
    ],
    "imagePullSecrets": [{"name": "safescale-pull"}],
    "securityContext": {"runAsUser": 0},
    "nodeSelector": {"a": "b"},
    "affinity": {"nodeAffinity": {}},
    "tolerations": [{"operator": "Exists"}],
    "schedulingGates": [{"name": "x"}],
    "terminationGracePeriodSeconds": 3600,
}
"""Fields of PodSpecPatch (2.3); PodTemplateSpecOverride of 2.1 has a part of them."""


def patch(manager: str = KUEUE, **template: Any) -> dict[str, Any]:
    """Returns an entry of runtimePatches."""
    return {"manager": manager, "trainingRuntimeSpec": {"template": template}}


def of_a_pod(name: str, value: Any) -> dict[str, Any]:
    """Returns a template that patches one field of the nodes' pods."""
    pod = {"template": {"spec": {"template": {"spec": {name: value}}}}}
    return {"spec": {"replicatedJobs": [{"name": "node", **pod}]}}


BY_KUEUE: dict[str, dict[str, Any]] = {
    # pkg/controller/jobs/trainjob/trainjob_webhook.go of kubernetes-sigs/kueue: what
    # its defaulting adds to a job that somebody creates, before policies see it.
    "0.15, 0.16": {"suspend": True, "labels": {QUEUE: "safescale"}},
    "0.17": {
        "suspend": True,
        "runtimePatches": [
            {
                **patch(
                    metadata={
                        "labels": {QUEUE: "safescale"},
                        "creationTimestamp": None,
                    },
                    spec={},
                ),
                "time": "2026-11-29T10:08:16Z",
            }
        ],
    },
    "0.18, 0.19": {"suspend": True, "runtimePatches": [patch(spec={})]},
    "0.18, 0.19, no queue": {"runtimePatches": [patch(spec={})]},
}
"""Version -> what it puts into `spec`."""

PATCHES_THAT_REACH_PODS = [
    *(patch(**of_a_pod(name, value)) for name, value in OF_A_POD.items()),
    patch(metadata={"labels": {"sidecar.istio.io/inject": "true"}}, spec={}),
    patch(metadata={"labels": {QUEUE: "another"}}, spec={}),
    patch(metadata={"annotations": {"a": "b"}}, spec={}),
    patch("a.person/me", spec={}),
    {"manager": KUEUE, "podTemplate": {}},
    {"manager": KUEUE, "trainingRuntimeSpec": {"mlPolicy": {"numNodes": 9}}},
    {"manager": KUEUE, "trainingRuntimeSpec": {"template": {"status": {}}}},
]
"""Under the name of Kueue too: it is the content that counts, not who says it is."""
