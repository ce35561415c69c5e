"""The cluster below: pods of a run, what befalls them, and pods of our own.

The client is Kubernetes' own and not the product's: what is observed must not come
from what is tested.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from typing import Any

from plane import PART_LABEL, RUN_LABEL, Plane, first_line

from pipelines.kubeflow.runs import ACCOUNT

SMALL = {"cpu": "100m", "memory": "512Mi", "ephemeral-storage": "100Mi"}
MOST = {**SMALL, "cpu": "500m"}
ALONE = {"sidecar.istio.io/inject": "false"}
"""Label and annotation of a pod that no mesh adds to."""


class Shown(dict[str, Any]):
    """An object as the API shows it; what is not there is None.

    The client's own models refuse what real servers leave out, such as the names of
    images that were loaded into a node.
    """

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


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
        found = self.shown(
            self.core.list_namespaced_pod,
            self.plane.namespace,
            label_selector=selector,
        )
        return list(found["items"])

    def nodes(self) -> list[Any]:
        """Returns the nodes."""
        return list(self.shown(self.core.list_node)["items"])

    def shown(self, call: Callable[..., Any], *place: str, **more: Any) -> Shown:
        """Returns the answer to a call of the client as it came."""
        answer = call(*place, _preload_content=False, **more)
        return Shown(json.loads(answer.data, object_hook=Shown))

    def lose(self, run_id: str, part: str) -> str:
        """Deletes the pod of a stage while it runs, at once; returns its name."""

        def running() -> Any:
            pods = [p for p in self.pods(run_id, part) if p.status.phase == "Running"]
            return pods and pods[0]

        pod = self.plane.until(running, f"No pod of {part} was seen running.")
        self.delete_pod(str(pod.metadata.name))
        return str(pod.metadata.name)

    def delete_pod(self, name: str) -> None:
        """Deletes a pod at once; one that is gone already is no error."""
        try:
            self.shown(
                self.core.delete_namespaced_pod,
                name,
                self.plane.namespace,
                grace_period_seconds=0,
            )
        except self._client.ApiException as error:
            if error.status != 404:
                raise

    def as_pod(self, name: str, image: str) -> tuple[Any, Any]:
        """Makes a pod as those of a run are; returns it, and a client that is it.

        The token is bound to the pod, as the kubelet's are; whether the pod has begun
        is no matter to it.
        """
        pod = self._made(pod_of(name, image, "import time; time.sleep(500)", (), {}))
        bound = self._client.V1BoundObjectReference(
            api_version="v1", kind="Pod", name=name, uid=pod.metadata.uid
        )
        request = self._client.AuthenticationV1TokenRequest(
            spec=self._client.V1TokenRequestSpec(
                audiences=[], bound_object_ref=bound, expiration_seconds=600
            )
        )
        token = self.core.create_namespaced_service_account_token(
            ACCOUNT, self.plane.namespace, request
        )
        config = self._client.Configuration()
        for what in ("host", "ssl_ca_cert", "verify_ssl", "tls_server_name", "proxy"):
            setattr(config, what, getattr(self._config, what))
        config.api_key = {"authorization": f"Bearer {token.status.token}"}
        return pod, self._client.ApiClient(config)

    def artifact_places(self, run_id: str, part: str) -> dict[str, str]:
        """Returns output -> URI of its folder, as KFP's launcher in a pod is told."""
        places: dict[str, str] = {}
        for pod in self.pods(run_id, part):
            for container in pod.spec.containers:
                command = [*(container.command or ()), *(container.args or ())]
                for flag, value in pairwise(command):
                    if flag == "--executor_input":
                        outputs = json.loads(value).get("outputs", {})
                        for name, found in outputs.get("artifacts", {}).items():
                            places[name] = str(found["artifacts"][0]["uri"])
        return places

    def secret(self, name: str) -> bool:
        """Says whether a secret is there and holds something."""
        with suppress(self._client.ApiException):
            found = self.core.read_namespaced_secret(name, self.plane.namespace)
            return bool(found.data)
        return False

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
        wait: bool = True,
    ) -> Any:
        """Runs Python in a pod like those of a run; returns the JSON that it prints.

        Args:
            what: names the pod.
            image: of one of the stages.
            code: prints one line of JSON.
            secrets: become its environment.
            labels: of the pod; policies of the network go by them.
            wait: whether its end is waited for; else its address is returned.
        """
        name = self.plane.name(what)
        self._made(pod_of(name, image, code, secrets, labels or {}))

        def state() -> Any:
            pod = self.shown(self.core.read_namespaced_pod, name, self.plane.namespace)
            status = pod.status or Shown()
            if not wait:
                return status.phase == "Running" and status.podIP
            return status.phase in ("Succeeded", "Failed") and status.phase

        phase = self.plane.until(state, f"Probe pod {name} did not start.", 300)
        if not wait:
            return phase
        # As it came: the client takes a log that is one line of JSON apart.
        log = self.core.read_namespaced_pod_log(
            name, self.plane.namespace, _preload_content=False
        ).data.decode(errors="replace")
        last = (log.strip().splitlines() or [""])[-1]
        try:
            return json.loads(last)
        except ValueError:
            raise AssertionError(
                f"Probe pod {name} {phase.lower()} and says {last[:200]!r}."
            ) from None

    def _made(self, body: dict[str, Any]) -> Any:
        """Makes a pod, which goes again at the end."""
        space, name = self.plane.namespace, body["metadata"]["name"]
        pod = self.shown(self.core.create_namespaced_pod, space, body=body)
        self.plane.later(f"pod {name}", lambda: self.delete_pod(name))
        return pod


def reachable_cluster(plane: Plane) -> tuple[Cluster | None, str]:
    """Opens the cluster; returns it, or why there is none."""
    if not os.environ.get("KUBECONFIG"):
        return None, "KUBECONFIG is not set, so the cluster is not looked at."
    try:
        cluster = Cluster(plane)
        cluster.shown(cluster.core.list_namespaced_pod, plane.namespace, limit=1)
    except Exception as error:  # noqa: BLE001  every client error means the same here
        return None, f"The cluster of KUBECONFIG does not answer: {first_line(error)}"
    return cluster, ""


def pod_of(
    name: str,
    image: str,
    code: str,
    secrets: tuple[str, ...],
    labels: dict[str, str],
) -> dict[str, Any]:
    """Returns a pod of a run's account that Pod Security `restricted` admits."""
    shut = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    container = {
        "name": "main",
        "image": image,
        "command": ["python", "-c", code],
        "envFrom": [{"secretRef": {"name": s, "optional": True}} for s in secrets],
        "resources": {"requests": SMALL, "limits": MOST},
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
        "metadata": {"name": name, "labels": {**ALONE, **labels}, "annotations": ALONE},
        "spec": {
            "serviceAccountName": ACCOUNT,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 600,
            "terminationGracePeriodSeconds": 1,
            "securityContext": person,
            "containers": [container],
        },
    }
