"""What others put there for a run: KFP's key and place, the context of Argo's pods."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from yaml import YAMLError

from pipelines.kubeflow.doctor.checks import Check, Fault, Unknown
from pipelines.kubeflow.doctor.cluster import APPLY, ARTIFACT_KEY, Cluster
from safescale_ammt.files.yaml_file import parse_yaml

KFP = "kubeflow"
"""Namespace of KFP's servers and of Argo's controller."""
_ARGO = "workflow-controller-configmap"
_SHARED = "mlpipeline"
"""KFP's own bucket, where each namespace has a prefix."""
_PLACEHOLDER = "REPLACE-ME"


def checks(cluster: Cluster) -> list[Check]:
    """Returns the checks, each after those that it needs."""
    key, place, executor = (
        partial(look, cluster)
        for look in (check_artifact_key, check_launcher, check_executor)
    )
    return [
        Check("artifact key", key, ("namespace",)),
        Check("artifact place", place, ("namespace", "kubeflow")),
        Check("Argo's executor", executor, ("pod security",)),
    ]


def check_artifact_key(cluster: Cluster) -> str:
    """Looks for the key of KFP's store, which the launcher and Argo read.

    Raises:
        Fault: it is not there; KFP's pods would then wait for it for ever.
        Unknown: we may not read it.
    """
    remedy = (
        "label the namespace pipelines.kubeflow.org/enabled=true, and see what KFP's "
        "profile controller says"
    )
    secret = cluster.require("secrets", ARTIFACT_KEY, f"secret {ARTIFACT_KEY}", remedy)
    data: Mapping[str, str] = secret.get("data") or {}
    absent = [
        key
        for key in ("accesskey", "secretkey")
        if not base64.b64decode(data.get(key, "")).strip()
    ]
    if absent:
        raise Fault(f"secret {ARTIFACT_KEY} lacks {', '.join(absent)}", remedy)
    return "there"


def check_launcher(cluster: Cluster) -> str:
    """Checks where KFP's launcher puts artifacts of this namespace.

    Raises:
        Fault: nowhere of its own: without the ConfigMap, or without a place in it, all
            namespaces share one prefix (backend/src/v2/config/env.go).
        Unknown: we may not read it, or KFP knows one namespace only.
    """
    if not cluster.multi_user():
        raise Unknown("KFP in single-user mode has one place for all artifacts")
    name, space = "kfp-launcher", cluster.namespace
    config = cluster.require("configmaps", name, f"ConfigMap {name}", APPLY)
    root = str((config.get("data") or {}).get("defaultPipelineRoot", ""))
    parts = urlsplit(root)
    steps = parts.path.strip("/").split("/")
    if not root or _PLACEHOLDER in root:
        raise Fault(f"ConfigMap {name} names no defaultPipelineRoot", APPLY)
    private = f"private-artifacts/{space}"
    elsewhere = steps[:1] == ["private-artifacts"] and steps[1:2] != [space]
    if elsewhere or (parts.netloc == _SHARED and steps[:2] != private.split("/")):
        raise Fault(
            f"artifacts go to {root}, which other namespaces share",
            f"set defaultPipelineRoot in manifests/base/launcher.yaml to "
            f"minio://{_SHARED}/{private}/v2/artifacts, and apply it",
        )
    return root


def check_executor(cluster: Cluster) -> str:
    """Checks that Argo's own containers are admitted under `restricted`.

    Raises:
        Fault: they say less than that, so that no pod of a run would be made.
        Unknown: we may not read Argo's settings.
    """
    path = f"/api/v1/namespaces/{KFP}/configmaps/{_ARGO}"
    config = cluster.look(path, f"ConfigMap {_ARGO} of {KFP}")
    if config is None:
        raise Unknown(f"namespace {KFP} has no ConfigMap {_ARGO}")
    settings = settings_of(config.get("data") or {})
    executor = (settings.get("executor") or {}).get("securityContext") or {}
    spec = (settings.get("workflowDefaults") or {}).get("spec") or {}
    found = {**(spec.get("securityContext") or {}), **executor}
    seccomp = (found.get("seccompProfile") or {}).get("type")
    may_escalate = executor.get("allowPrivilegeEscalation")
    dropped = (executor.get("capabilities") or {}).get("drop", ())
    keeps = {
        "allowPrivilegeEscalation: false": may_escalate is False,
        "capabilities.drop: [ALL]": "ALL" in dropped,
        "runAsNonRoot: true": found.get("runAsNonRoot") is True,
        "seccompProfile": seccomp in ("RuntimeDefault", "Localhost"),
    }
    lacks = [what for what, kept in keeps.items() if not kept]
    if lacks:
        raise Fault(
            f"Argo's containers lack {', '.join(lacks)}, so none of them is admitted",
            f"set executor.securityContext in ConfigMap {_ARGO} of namespace {KFP}, as "
            "KFP's own manifests do",
        )
    return "Argo's containers are restricted"


def settings_of(data: Mapping[str, str]) -> dict[str, Any]:
    """Returns Argo's settings, which stand below `config` or each under its own key."""
    texts = {"config": data["config"]} if data.get("config") else dict(data)
    parsed = {}
    for key, text in texts.items():
        try:
            parsed[key] = parse_yaml(text)
        except (ValueError, YAMLError):  # a setting of Argo's that is plain text
            parsed[key] = text
    whole = parsed.get("config", parsed)
    return whole if isinstance(whole, dict) else {}
