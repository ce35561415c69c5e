"""Whether a run's secrets are there, filled in, and shut against each other.

Values are compared and thrown away: no sentence ever holds one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pipelines.kubeflow.doctor.checks import Check, Lacking, Unknown
from pipelines.kubeflow.doctor.cluster import Cluster
from safescale_ammt.errors import StoreInputError
from safescale_ammt.store.environment import SECRET_KEYS
from safescale_ammt.store.uri import STORE, split_uri

FILL = "fill in manifests/secrets/{} and kubectl apply -k manifests/secrets"
NOTIFY = "safescale-notify"
_PLACEHOLDERS = ("REPLACE-ME", "REPLACE_ME", "CHANGE-ME", "CHANGEME")
_DOCKER = ".dockerconfigjson"
_DOCKER_TYPE = "kubernetes.io/dockerconfigjson"


@dataclass(frozen=True)
class Secrets:
    """The secrets of a namespace."""

    cluster: Cluster

    def checks(self) -> list[Check]:
        """Returns the checks, each after those that it needs."""
        names = self._names()
        each = [
            Check(f"secret {name}", self._looking_at(name, file), ("namespace",))
            for name, file in names.items()
        ]
        kept = tuple(check.name for check in each)
        return [
            *each,
            Check(f"secret {NOTIFY}", self._notify, ("namespace",)),
            Check("secrets apart", self._apart, ("kubeflow", *kept)),
            Check("pull secret", self._pull_secret, ("account",)),
        ]

    def _names(self) -> dict[str, str]:
        """Returns the secrets with an object store, and the file that makes each."""
        names = {"safescale-store": "store.env", "safescale-registry": "registry.env"}
        return names | (
            {"safescale-training": "training.env"} if self.cluster.trains_there else {}
        )

    def _looking_at(self, secret: str, example: str) -> Callable[[], str]:
        def look() -> str:
            return _check_store_secret(self.secret(secret, example), secret, example)

        return look

    def secret(self, name: str, example: str) -> dict[str, str]:
        """Returns a secret's values; they go nowhere but into comparisons."""
        what = f"secret {name}"
        return _values(self.cluster.found("secrets", name, what, FILL.format(example)))

    def _notify(self) -> str:
        """The one secret that may be absent: then nobody is told of a run's end."""
        held = self.cluster.optional("secrets", NOTIFY)
        if held is None:
            return "absent: nobody is told how a run ended"
        for key, value in _values(held).items():
            if _is_placeholder(value):
                raise Lacking(
                    f"{key} of secret {NOTIFY} is still a placeholder",
                    FILL.format("notify.env"),
                )
        return "whole"

    def _apart(self) -> str:
        """No secret may open what another is there to keep shut."""
        held = {name: self.secret(name, file) for name, file in self._names().items()}
        for key in (STORE, "AWS_ACCESS_KEY_ID"):
            for one, other in combinations(held, 2):
                if held[one].get(key) and held[one][key] == held[other].get(key):
                    raise self._same(one, other, key)
        return f"{len(held)} secrets differ"

    def _same(self, one: str, other: str, key: str) -> Exception:
        """Returns what is to be said of two secrets with one place or one key."""
        found = f"{one} and {other} have the same {key}"
        if key != STORE and not self.cluster.multi_user():
            return Unknown(f"{found}, as KFP in single-user mode has one key for all")
        return Lacking(
            found,
            "give each a key and a prefix of its own, so that a stage opens only what "
            "it works on",
        )

    def _pull_secret(self) -> str:
        account = self.cluster.read("serviceaccounts", self.cluster.account)
        named = [item["name"] for item in account.get("imagePullSecrets") or ()]
        if not named:
            return "the account names none: images are public, or the nodes hold a key"
        for name in named:
            remedy = FILL.format("pull.json")
            found = self.cluster.found("secrets", name, f"secret {name}", remedy)
            text = base64.b64decode((found.get("data") or {}).get(_DOCKER, ""))
            if found.get("type") != _DOCKER_TYPE or not _is_docker_config(text):
                raise Lacking(f"secret {name} is no key of an image registry", remedy)
        return ", ".join(named)


def _check_store_secret(held: Mapping[str, str], name: str, example: str) -> str:
    """Checks the keys of a store's secret; no value of it is ever shown."""
    remedy = FILL.format(example)
    absent = [key for key in SECRET_KEYS if key not in held]
    if absent:
        raise Lacking(f"secret {name} lacks {', '.join(absent)}", remedy)
    for key in SECRET_KEYS:
        if _is_placeholder(held[key]):
            raise Lacking(f"{key} of secret {name} is still a placeholder", remedy)
    try:
        split_uri(held[STORE])
    except StoreInputError:
        raise Lacking(f"{STORE} of secret {name} is no s3:// URI", remedy) from None
    if bool(held["AWS_ACCESS_KEY_ID"]) != bool(held["AWS_SECRET_ACCESS_KEY"]):
        raise Lacking(f"secret {name} has half a key", remedy)
    return "whole" if held["AWS_ACCESS_KEY_ID"] else "whole, without a key: by role"


def _values(secret: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: base64.b64decode(value).decode("utf-8", "replace").strip()
        for key, value in (secret.get("data") or {}).items()
    }


def _is_placeholder(value: str) -> bool:
    marked = any(mark in value.upper() for mark in _PLACEHOLDERS)
    return marked or (value.startswith("<") and value.endswith(">"))


def _is_docker_config(text: bytes) -> bool:
    try:
        auths = json.loads(text)["auths"]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(auths) and not _is_placeholder(text.decode("utf-8", "replace"))
