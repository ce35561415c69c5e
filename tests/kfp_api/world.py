"""Lives of runs, and the namespace that `manifests/` makes, for the tests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cluster.api import ClusterApi
from yaml_texts import documents

from kfp_api.lives import FAILED, RUNNING, STAGES, SUCCEEDED, Scene

BASE = Path(__file__).parents[2] / "manifests" / "base"
GUARDS = BASE.parent / "components" / "guards"
STORES = {
    "safescale-store": ("s3://team/data", "key-of-data"),
    "safescale-registry": ("s3://team/registry", "key-of-registry"),
    "safescale-training": ("s3://team/training", "key-of-training"),
}


def life(ends: str = SUCCEEDED, at: str = "register-model") -> tuple[Scene, ...]:
    """Returns the life of a run: each stage runs, and the last named one ends so."""
    done: dict[str, str] = {}
    scenes = []
    for stage in STAGES[: STAGES.index(at) + 1]:
        scenes.append(Scene(RUNNING, {**done, stage: RUNNING}))
        done[stage] = SUCCEEDED
    return (*scenes, Scene(ends, {**done, at: ends if ends == FAILED else SUCCEEDED}))


def furnish(api: ClusterApi) -> None:
    """Puts all that a run needs into the namespace, from the manifests."""
    api.delete("namespaces", api.namespace)
    files = ("namespace", "accounts", "limits", "runtime", "launcher", "network")
    for file in (*files, "object-store"):
        text = (BASE / f"{file}.yaml").read_text(encoding="utf-8")
        for item in documents(text):
            put(api, item)
    for file in ("trainjobs", "results"):
        text = (GUARDS / f"{file}.yaml").read_text(encoding="utf-8")
        for item in documents(text):
            put(api, item)
    for name, (place, key) in STORES.items():
        values = {
            "SAFESCALE_STORE": place,
            "AWS_ENDPOINT_URL": "http://seaweedfs.kubeflow:9000",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": f"secret-{key}",
            "AWS_REGION": "us-east-1",
        }
        api.add("secrets", name, data=encoded(values))
    api.add(
        "secrets",
        "mlpipeline-minio-artifact",
        data=encoded({"accesskey": "safescale", "secretkey": "of-the-test"}),
    )
    _furnish_the_rest(api)
    pull = encoded({".dockerconfigjson": '{"auths": {"registry.test": {}}}'})
    api.add(
        "secrets", "safescale-pull", type="kubernetes.io/dockerconfigjson", data=pull
    )


def _furnish_the_rest(api: ClusterApi) -> None:
    """Puts there what lies outside: Argo's settings, a node, the API's address."""
    for namespace in ("kubeflow", "default"):
        api.add("namespaces", namespace)
    context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    executor = yaml.safe_dump({"securityContext": context})
    api.add(
        "configmaps",
        "workflow-controller-configmap",
        namespace="kubeflow",
        data={"executor": executor},
    )
    allocatable = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "100Gi"}
    api.add("nodes", "node-1", spec={}, status={"allocatable": allocatable})
    api.add(
        "endpointslices",
        "kubernetes",
        namespace="default",
        addressType="IPv4",
        endpoints=[{"addresses": ["10.88.0.1"], "conditions": {"ready": True}}],
        ports=[{"name": "https", "port": 6443, "protocol": "TCP"}],
    )


def token_of(user: str) -> str:
    """Returns a token that says whom it is of, as a service account's does."""
    claims = json.dumps({"sub": user}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).decode().rstrip('=')}.c2ln"


def put(api: ClusterApi, item: Mapping[str, Any]) -> None:
    """Creates an object of a manifest."""
    meta = item["metadata"]
    rest = {k: v for k, v in item.items() if k not in ("apiVersion", "metadata")}
    plural = next(k.plural for k in api.kinds.values() if k.kind == item["kind"])
    api.add(plural, meta["name"], labels=meta.get("labels"), **rest)


def encoded(values: Mapping[str, str]) -> dict[str, str]:
    """Returns a secret's `data`."""
    return {k: base64.b64encode(v.encode()).decode() for k, v in values.items()}
