"""A Kubeflow on kind for `make cluster-test`: KFP's and Trainer's own manifests.

    .venv/bin/python tests/acceptance/kind.py up      makes it; the last lines are what
                                                      to export
    .venv/bin/python tests/acceptance/kind.py down    takes it away

It needs docker, kind, kubectl and the images of `make images`. KFP runs as its
manifests for one user have it, beside a SeaweedFS of ours whose keys open one prefix
each (manifests/secrets/policies/seaweedfs.json): KFP's own has one key for everything.
There the network is open (overlays/local), so its check is skipped.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components import STAGES, image

ROOT = Path(__file__).parents[2]
CLUSTER = "safescale"
NAMESPACE = "kubeflow"
BUCKET = "safescale"
KFP = "github.com/kubeflow/pipelines/manifests/kustomize"
KFP_VERSION = "2.17.0"
TRAINER = "https://github.com/kubeflow/trainer.git/manifests/overlays/manager"
TRAINER_VERSION = "v2.3.0"
SEAWEEDFS = "ghcr.io/chrislusf/seaweedfs:4.34"
PLACES = {
    "safescale-store": f"s3://{BUCKET}",
    "safescale-registry": f"s3://{BUCKET}/registry",
    "safescale-training": f"s3://{BUCKET}/training",
    "safescale-datasets": f"s3://{BUCKET}",
}
S3, API = 30333, 30888
"""Ports of this machine that lead to the store and to KFP's API."""


def up() -> None:
    """Makes the cluster and prints the environment that names it."""
    run("kind", "create", "cluster", "--name", CLUSTER, "--config=-", given=_nodes())
    names = [image(stage) for stage in STAGES]
    run("kind", "load", "docker-image", "--name", CLUSTER, *names)
    version = f"?ref={KFP_VERSION}"
    kubectl("apply", "-k", f"{KFP}/cluster-scoped-resources{version}")
    established = "--for=condition=established"
    kubectl("wait", established, "crd/workflows.argoproj.io", "--timeout=60s")
    kubectl("apply", "-k", f"{KFP}/env/platform-agnostic{version}")
    kubectl("apply", "--server-side", "-k", f"{TRAINER}?ref={TRAINER_VERSION}")
    kubectl("rollout", "status", "-n", "kubeflow-system", "--timeout=600s", _TRAINER)
    keys = {name: (secrets.token_hex(8), secrets.token_hex(20)) for name in PLACES}
    for item in (*_store(keys), *_secrets(keys), *_ways()):
        kubectl("apply", "-f", "-", given=json.dumps(item))
    kubectl("apply", "-k", str(ROOT / "manifests/overlays/local"))
    for name in ("ml-pipeline", "objects"):
        place = ("-n", NAMESPACE, f"deployment/{name}")
        kubectl("rollout", "status", "--timeout=900s", *place)
    bucket = f"echo 's3.bucket.create -name {BUCKET}' | weed shell"
    kubectl("exec", "-n", NAMESPACE, "deployment/objects", "--", "sh", "-c", bucket)
    access, secret = keys["safescale-store"]
    print(
        f"SAFESCALE_KFP_HOST=http://127.0.0.1:{API}",
        f"SAFESCALE_NAMESPACE={NAMESPACE}",
        f"SAFESCALE_STORE={PLACES['safescale-store']}",
        f"AWS_ENDPOINT_URL=http://127.0.0.1:{S3}",
        f"AWS_ACCESS_KEY_ID={access}",
        f"AWS_SECRET_ACCESS_KEY={secret}",
        "AWS_REGION=us-east-1",
        # Where kind has just written its part.
        f"KUBECONFIG={os.environ.get('KUBECONFIG') or Path.home() / '.kube/config'}",
        sep="\n",
    )


_TRAINER = "deployment/kubeflow-trainer-controller-manager"


def run(*command: str, given: str = "") -> None:
    """Runs a program; what it prints goes to standard error.

    Raises:
        SystemExit: it is not installed or failed; with a sentence.
    """
    try:
        subprocess.run(command, input=given, text=True, check=True, stdout=sys.stderr)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not installed: docker, kind and kubectl are needed.")
    except subprocess.CalledProcessError as error:
        words = [w for w in command if not w.startswith(("-", f"kind-{CLUSTER}"))]
        sys.exit(
            f"`{' '.join(words[:3])}` ended with {error.returncode}, its reason is "
            "above; `kind.py down` takes away what was made."
        )


def kubectl(*arguments: str, given: str = "") -> None:
    """Runs kubectl in the cluster of this file."""
    run("kubectl", "--context", f"kind-{CLUSTER}", *arguments, given=given)


def _nodes() -> str:
    """Returns kind's configuration: one node, two ports of this machine."""
    ports = [
        {"containerPort": port, "hostPort": port, "listenAddress": "127.0.0.1"}
        for port in (S3, API)
    ]
    node = {"role": "control-plane", "extraPortMappings": ports}
    head = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4"}
    return json.dumps({**head, "nodes": [node]})


def _identities(keys: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Returns the store's keys: the policies of the manifests, filled in."""
    file = ROOT / "manifests/secrets/policies/seaweedfs.json"
    text = file.read_text(encoding="utf-8").replace("REPLACE-ME/", f"{BUCKET}/")
    # The auditor is a person, for whom no secret is made: nobody has that key here.
    named = [i for i in json.loads(text)["identities"] if i["name"] in keys]
    for identity in named:
        access, secret = keys[identity["name"]]
        identity["credentials"] = [{"accessKey": access, "secretKey": secret}]
    return {"identities": named}


def _store(keys: dict[str, tuple[str, str]]) -> Iterator[dict[str, Any]]:
    yield _secret("objects-keys", {"s3.json": json.dumps(_identities(keys))})
    command = ["server", "-dir=/data", "-filer", "-s3", "-s3.config=/keys/s3.json"]
    container = {
        "name": "objects",
        "image": SEAWEEDFS,
        "args": [*command, "-master.volumePreallocate=false"],
        "volumeMounts": [
            {"name": "keys", "mountPath": "/keys"},
            {"name": "data", "mountPath": "/data"},
        ],
        "readinessProbe": {"tcpSocket": {"port": 8333}},
    }
    volumes = [
        {"name": "keys", "secret": {"secretName": "objects-keys"}},
        {"name": "data", "emptyDir": {}},
    ]
    labels = {"app": "objects"}
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "objects", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "volumes": volumes},
            },
        },
    }


def _secrets(keys: dict[str, tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for name, (access, secret) in keys.items():
        values = {
            "SAFESCALE_STORE": PLACES[name],
            "AWS_ENDPOINT_URL": f"http://objects.{NAMESPACE}.svc.cluster.local:8333",
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
        }
        yield _secret(name, values)
    # The nodes hold the images, but the accounts name a key, and `doctor` asks for it.
    pull = json.dumps({"auths": {"registry.invalid": {"auth": "bm9ib2R5Om5vbmU="}}})
    yield {
        **_secret("safescale-pull", {".dockerconfigjson": pull}),
        "type": "kubernetes.io/dockerconfigjson",
    }


def _ways() -> Iterator[dict[str, Any]]:
    """Yields the services that lead from this machine to the store and KFP's API."""
    yield _service("objects", {"app": "objects"}, 8333, S3)
    yield _service("safescale-kfp", {"app": "ml-pipeline"}, 8888, API)


def _service(name: str, labels: dict[str, str], port: int, node: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "type": "NodePort",
            "selector": labels,
            "ports": [{"port": port, "targetPort": port, "nodePort": node}],
        },
    }


def _secret(name: str, values: dict[str, str]) -> dict[str, Any]:
    data = {k: base64.b64encode(v.encode()).decode() for k, v in values.items()}
    head = {"apiVersion": "v1", "kind": "Secret"}
    return {**head, "metadata": {"name": name, "namespace": NAMESPACE}, "data": data}


if __name__ == "__main__":
    if sys.argv[1:] == ["up"]:
        up()
    elif sys.argv[1:] == ["down"]:
        run("kind", "delete", "cluster", "--name", CLUSTER)
    else:
        sys.exit(__doc__)
