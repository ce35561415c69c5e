"""The cluster below: pods of a run, what befalls them, and pods of our own.

The client is Kubernetes' own and not the product's: what is observed must not come
from what is tested.
"""

from __future__ import annotations

import base64
import json
import os
from contextlib import suppress
from functools import cached_property
from typing import Any

from plane import PART_LABEL, RUN_LABEL, Plane, first_line

SMALL = {"cpu": "100m", "memory": "512Mi", "ephemeral-storage": "100Mi"}


class Cluster:
    """The Kubernetes API that KUBECONFIG names."""

    def __init__(self, plane: Plane) -> None:
        from kubernetes import client, config

        self.plane = plane
        self._client = client
        self._config = client.Configuration()
        config.load_kube_config(client_configuration=self._config)
        self._api = client.ApiClient(self._config)

    @cached_property
    def core(self) -> Any:
        """Calls about pods, secrets, accounts, nodes."""
        return self._client.CoreV1Api(self._api)

    @cached_property
    def objects(self) -> Any:
        """Calls about kinds that Kubernetes itself does not have."""
        return self._client.CustomObjectsApi(self._api)

    def pods(self, run_id: str, part: str = "") -> list[Any]:
        """Returns the pods of a run, or of one of its stages."""
        selector = f"{RUN_LABEL}={run_id}" + (f",{PART_LABEL}={part}" if part else "")
        found = self.core.list_namespaced_pod(
            self.plane.namespace, label_selector=selector
        )
        return list(found.items)

    def lose(self, run_id: str, part: str) -> str:
        """Deletes the pod of a stage while it runs, at once; returns its name."""

        def running() -> Any:
            pods = [p for p in self.pods(run_id, part) if p.status.phase == "Running"]
            return pods and pods[0]

        pod = self.plane.until(running, f"No pod of {part} was seen running.")
        self.core.delete_namespaced_pod(
            pod.metadata.name, self.plane.namespace, grace_period_seconds=0
        )
        return str(pod.metadata.name)

    def as_account(self, account: str) -> Any:
        """Returns a client that is a service account of the namespace."""
        request = self._client.AuthenticationV1TokenRequest(
            spec=self._client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)
        )
        token = self.core.create_namespaced_service_account_token(
            account, self.plane.namespace, request
        )
        config = self._client.Configuration()
        config.host = self._config.host
        config.ssl_ca_cert = self._config.ssl_ca_cert
        config.verify_ssl = self._config.verify_ssl
        config.api_key = {"authorization": f"Bearer {token.status.token}"}
        return self._client.ApiClient(config)

    def artifact_root(self) -> tuple[str, str]:
        """Returns bucket and prefix of KFP's artifacts in this namespace."""
        name, root = "kfp-launcher", "minio://mlpipeline/v2/artifacts"
        # A missing one is no error to KFP, but its prefix for all.
        with suppress(self._client.ApiException):
            found = self.core.read_namespaced_config_map(name, self.plane.namespace)
            root = (found.data or {}).get("defaultPipelineRoot") or root
        bucket, _, prefix = root.partition("://")[2].partition("?")[0].partition("/")
        return bucket, f"{prefix.rstrip('/')}/"

    def secret(self, name: str) -> dict[str, str]:
        """Returns the names of a secret's keys, and nothing of its values."""
        found = self.core.read_namespaced_secret(name, self.plane.namespace)
        return dict.fromkeys(found.data or {}, "")

    def notify_file(self) -> str:
        """Returns the place of the notices, "" where none is set or may be read."""
        with suppress(self._client.ApiException):
            found = self.core.read_namespaced_secret(
                "safescale-notify", self.plane.namespace
            )
            value = (found.data or {}).get("SAFESCALE_NOTIFY_FILE", "")
            return base64.b64decode(value).decode()
        return ""

    def probe(
        self,
        what: str,
        image: str,
        code: str,
        *,
        secrets: tuple[str, ...] = (),
        labels: dict[str, str] | None = None,
        account: str = "safescale-pipeline",
        wait: bool = True,
    ) -> Any:
        """Runs Python in a pod like those of a run; returns the JSON that it prints.

        Args:
            what: names the pod.
            image: of one of the stages.
            code: prints one line of JSON.
            secrets: become its environment.
            labels: of the pod; policies of the network go by them.
            account: it runs as.
            wait: whether its end is waited for; else its address is returned.
        """
        name = self.plane.name(what)
        body = pod_of(name, image, code, secrets, labels or {}, account)
        self.core.create_namespaced_pod(self.plane.namespace, body)
        self.plane.later(
            f"pod {name}",
            lambda: self.core.delete_namespaced_pod(
                name, self.plane.namespace, grace_period_seconds=0
            ),
        )

        def state() -> Any:
            pod = self.core.read_namespaced_pod(name, self.plane.namespace)
            if not wait:
                return pod.status.phase == "Running" and pod.status.pod_ip
            return pod.status.phase in ("Succeeded", "Failed") and pod.status.phase

        phase = self.plane.until(state, f"Probe pod {name} did not start.", 300)
        if not wait:
            return phase
        log = self.core.read_namespaced_pod_log(name, self.plane.namespace)
        last = (str(log).strip().splitlines() or [""])[-1]
        try:
            return json.loads(last)
        except ValueError:
            raise AssertionError(f"Probe pod {name} says {last[:200]!r}.") from None


def reachable_cluster(plane: Plane) -> tuple[Cluster | None, str]:
    """Opens the cluster; returns it, or why there is none."""
    if not os.environ.get("KUBECONFIG"):
        return None, "KUBECONFIG is not set, so the cluster is not looked at."
    try:
        cluster = Cluster(plane)
        cluster.core.list_namespaced_pod(plane.namespace, limit=1)
    except Exception as error:  # noqa: BLE001  every client error means the same here
        return None, f"The cluster of KUBECONFIG does not answer: {first_line(error)}"
    return cluster, ""


def pod_of(  # noqa: PLR0917
    name: str,
    image: str,
    code: str,
    secrets: tuple[str, ...],
    labels: dict[str, str],
    account: str,
) -> dict[str, Any]:
    """Returns a pod that Pod Security `restricted` admits."""
    shut = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "main",
        "image": image,
        "command": ["python", "-c", code],
        "envFrom": [{"secretRef": {"name": s, "optional": True}} for s in secrets],
        "resources": {"requests": SMALL, "limits": SMALL},
        "securityContext": shut,
    }
    person = {
        "runAsUser": 10001,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "serviceAccountName": account,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 600,
            "securityContext": person,
            "containers": [container],
        },
    }
