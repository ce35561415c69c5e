"""Whether a run's secrets are there, filled in, and shut against each other.

Values are compared and thrown away: no sentence ever holds one.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

from pipelines.kubeflow.doctor.checks import Check, Fault, Unknown
from pipelines.kubeflow.doctor.cluster import Cluster
from safescale_ammt.config.kubernetes_names import DATASETS_SECRET
from safescale_ammt.errors import StoreInputError
from safescale_ammt.files.json_text import parse_json
from safescale_ammt.store.environment import SECRET_KEYS
from safescale_ammt.store.uri import STORE, split_uri

FILL = "fill in manifests/secrets/{} and kubectl apply -k manifests/secrets"
NOTIFY = "safescale-notify"
STORED = "safescale-store"
_PLACEHOLDERS = ("REPLACE-ME", "REPLACE_ME", "CHANGE-ME", "CHANGEME")
# What the kubelet takes as a key of an image registry.
_DOCKER = ".dockerconfigjson"
_DOCKER_TYPE = "kubernetes.io/dockerconfigjson"


@dataclass(frozen=True)
class Secrets:
    """The secrets of a namespace.

    Attributes:
        cluster: which.
        store: URI of the store that is read and written from here; "" = not known.
    """

    cluster: Cluster
    store: str = ""

    def checks(self) -> list[Check]:
        """Returns the checks, each after those that it needs."""
        store_secrets = [
            Check(
                f"secret {name}",
                partial(self._store_secret, name, file),
                ("namespace",),
            )
            for name, file in self._names().items()
        ]
        names = (check.name for check in store_secrets)
        return [
            *store_secrets,
            Check(f"secret {NOTIFY}", self._notify, ("namespace",)),
            Check(
                f"secret {DATASETS_SECRET}",
                self.check_datasets,
                ("kubeflow", "namespace", f"secret {STORED}"),
            ),
            Check("secrets apart", self._apart, ("kubeflow", *names)),
            Check("pull secret", self._pull_secret, ("account",)),
        ]

    def _names(self) -> dict[str, str]:
        """Returns the secrets with an object store, and the file that makes each."""
        names = {STORED: "store.env", "safescale-registry": "registry.env"}
        return names | (
            {"safescale-training": "training.env"} if self.cluster.trainjob else {}
        )

    def of_others(self) -> dict[str, dict[str, str]]:
        """Returns the values of each secret of a store but that of judge and gate.

        Raises:
            Fault: one is not there that has to be.
            Unknown: we may not read them.
        """
        found = {
            name: self.secret(name, file)
            for name, file in self._names().items()
            if name != STORED
        }
        if self.cluster.find("secrets", DATASETS_SECRET) is not None:
            found[DATASETS_SECRET] = self.secret(DATASETS_SECRET, "datasets.env")
        return found

    def secret(self, name: str, example: str) -> dict[str, str]:
        """Returns a secret's values; they go nowhere but into comparisons.

        Raises:
            Fault: there is none.
            Unknown: we may not read it.
        """
        what, remedy = f"secret {name}", FILL.format(example)
        return _values(self.cluster.require("secrets", name, what, remedy))

    def _store_secret(self, name: str, example: str) -> str:
        """Checks the keys of a store's secret; no value of it is ever shown."""
        values, remedy = self.secret(name, example), FILL.format(example)
        absent = [key for key in SECRET_KEYS if key not in values]
        if absent:
            raise Fault(f"secret {name} lacks {', '.join(absent)}", remedy)
        for key in SECRET_KEYS:
            if _is_placeholder(values[key]):
                raise Fault(f"{key} of secret {name} is still a placeholder", remedy)
        try:
            split_uri(values[STORE])
        except StoreInputError:
            raise Fault(f"{STORE} of secret {name} is no s3:// URI", remedy) from None
        key_id = values["AWS_ACCESS_KEY_ID"]
        # Both empty is right: then the pod's role opens the store.
        if bool(key_id) != bool(values["AWS_SECRET_ACCESS_KEY"]):
            raise Fault(f"secret {name} has half a key", remedy)
        return "whole" if key_id else "whole, without a key: by role"

    def _notify(self) -> str:
        """The one secret that may be absent: then nobody learns of a run's end."""
        secret = self.cluster.find("secrets", NOTIFY)
        if secret is None:
            return "absent: nobody is told how a run ended"
        for key, value in _values(secret).items():
            if _is_placeholder(value):
                raise Fault(
                    f"{key} of secret {NOTIFY} is still a placeholder",
                    FILL.format("notify.env"),
                )
        return "whole"

    def check_datasets(self) -> str:
        """Whether who learns may read rows that lie apart; absent, it may not.

        Raises:
            Fault: it is not filled in, names another place, or has a key that writes.
            Unknown: we may not read it.
        """
        file, given = "datasets.env", dict[str, str]()
        if self.cluster.find("secrets", DATASETS_SECRET) is not None:
            given = self.secret(DATASETS_SECRET, file)
        if not any(given.get(key) for key in (STORE, "AWS_ACCESS_KEY_ID")):
            told = "rows of datasets that lie apart are not read"
            if self.cluster.spark:
                # Prepared there, all rows of a dataset lie apart.
                raise Fault(
                    f"secret {DATASETS_SECRET} is absent or empty, so that {told}, and "
                    "rows that Spark prepares do",
                    FILL.format(file),
                )
            return f"absent or empty: {told}"
        told = self._store_secret(DATASETS_SECRET, file)
        data = self.secret(STORED, "store.env")
        if given[STORE].rstrip("/") != data[STORE].rstrip("/"):
            raise Fault(
                f"{STORE} of secret {DATASETS_SECRET} is another place than that of "
                f"{STORED}, where rows are prepared",
                FILL.format(file),
            )
        key = given["AWS_ACCESS_KEY_ID"]
        # In single-user mode KFP has one key for all, and "secrets apart" says so.
        if key and key == data["AWS_ACCESS_KEY_ID"] and self.cluster.multi_user():
            raise Fault(
                f"{DATASETS_SECRET} and {STORED} have the same AWS_ACCESS_KEY_ID",
                "give it a key that reads datasets/ and opens nothing else",
            )
        return told

    def _apart(self) -> str:
        """No secret may open what another is there to keep shut."""
        secrets = {
            name: self.secret(name, file) for name, file in self._names().items()
        }
        for key in (STORE, "AWS_ACCESS_KEY_ID"):
            for one, other in combinations(secrets, 2):
                value = secrets[one].get(key)
                # Empty values are no key: there the pod's role opens the store.
                if not value or value != secrets[other].get(key):
                    continue
                same = f"{one} and {other} have the same {key}"
                if key != STORE and not self.cluster.multi_user():
                    raise Unknown(
                        f"{same}, as KFP in single-user mode has one key for all"
                    )
                raise Fault(
                    same,
                    "give each a key and a prefix of its own, so that a stage opens "
                    "only what it works on",
                )
        return f"{len(secrets)} secrets differ"

    def place(self) -> str:
        """Checks that a run writes to the store that is looked at from here.

        Raises:
            Fault: it writes elsewhere: `submit` would wait for an outcome in vain.
            Unknown: no store on S3 is named here, or we may not read the secret.
        """
        if not self.store.startswith("s3://"):
            raise Unknown("no --store on S3 is given")
        there = self.secret(STORED, "store.env")[STORE]
        if there.rstrip("/") != self.store.rstrip("/"):
            raise Fault(
                f"{STORE} of secret safescale-store is another place than {self.store}",
                f"give --store, or {STORE}, what stands in manifests/secrets/store.env",
            )
        return "as --store"

    def _pull_secret(self) -> str:
        account = self.cluster.read("serviceaccounts", self.cluster.account)
        names = [item["name"] for item in account.get("imagePullSecrets") or ()]
        if not names:
            return "the account names none: images are public, or the nodes hold a key"
        remedy = FILL.format("pull.json")
        for name in names:
            secret = self.cluster.require("secrets", name, f"secret {name}", remedy)
            text = base64.b64decode((secret.get("data") or {}).get(_DOCKER, ""))
            try:
                keys = parse_json(text)["auths"]
            except (ValueError, KeyError, TypeError):
                keys = None
            placeholder = _is_placeholder(text.decode("utf-8", "replace"))
            # The kubelet passes over a secret of another type without a word.
            if secret.get("type") != _DOCKER_TYPE or not keys or placeholder:
                raise Fault(f"secret {name} is no key of an image registry", remedy)
        return ", ".join(names)


def _values(secret: Mapping[str, Any]) -> dict[str, str]:
    """Returns key -> value."""
    return {
        # A value that was read from a file may end in a line break.
        key: base64.b64decode(value).decode("utf-8", "replace").strip()
        for key, value in (secret.get("data") or {}).items()
    }


def _is_placeholder(value: str) -> bool:
    has_mark = any(mark in value.upper() for mark in _PLACEHOLDERS)
    return has_mark or (value.startswith("<") and value.endswith(">"))
