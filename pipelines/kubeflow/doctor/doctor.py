"""`safescale doctor`: what a cluster lacks for a run, each fault by its own name."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.doctor.checks import Check, Lacking, Unknown
from pipelines.kubeflow.doctor.cluster import Cluster
from pipelines.kubeflow.doctor.quota import Needs, check_room
from pipelines.kubeflow.doctor.secrets import Secrets
from safescale_ammt.errors import PreconditionFailed
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store, split_uri

SKEW = 60.0
"""Seconds; S3's signatures tolerate 15 minutes, tokens and records less."""
_CLOCK = "set this machine's or the server's clock by NTP"


@dataclass
class Doctor:
    """All that is asked, and of whom.

    Attributes:
        kubeflow: opens the session; its errors are a finding too.
        cluster: the namespace on Kubernetes.
        needs: what a run asks for.
        store: URI of the object store; "" = not known here.
        source: URI of the raw rows; "" = not on a cluster.
        environ: the store's endpoint and keys.
        now: the time on this machine, seconds since 1970.
    """

    kubeflow: Callable[[], Kubeflow]
    cluster: Cluster
    needs: Needs
    store: str
    source: str
    environ: Mapping[str, str]
    now: Callable[[], float] = time.time

    def checks(self) -> list[Check]:
        """Returns all checks, each after those that it needs."""
        return [
            Check("kubeflow", self._kubeflow, remedy="check --host and the network"),
            Check(
                "version", self._version, ("kubeflow",), "upgrade Kubeflow Pipelines"
            ),
            Check(
                "access",
                self._access,
                ("kubeflow",),
                "check the token or the login, and --namespace",
            ),
            *self.cluster.checks(),
            *Secrets(self.cluster).checks(),
            Check(
                "quota",
                self._room,
                ("runtime", "namespace") if self.needs.pods else ("namespace",),
            ),
            Check("store", self._store, remedy="check --store, its keys and bucket"),
            Check("data", self._data, ("store",)),
            Check("kubeflow's clock", self._kubeflow_clock, ("kubeflow",)),
            Check("kubernetes' clock", self._kubernetes_clock, ("kubernetes",)),
            Check("store's clock", self._store_clock, ("store",)),
            Check("images", self._images),
        ]

    def _kubeflow(self) -> str:
        kubeflow = self.kubeflow()
        if kubeflow.health.get("multi_user"):
            return f"{kubeflow.session.host}, multi-user"
        host = kubeflow.session.host
        return f"{host}, single-user: its pods run in KFP's own --namespace"

    def _version(self) -> str:
        self.kubeflow().require_version()
        return self.kubeflow().version or "the server does not say; 2.17 is needed"

    def _access(self) -> str:
        kubeflow = self.kubeflow()
        where = {"namespace": kubeflow.namespace} if kubeflow.namespace else {}
        kubeflow.ask(
            "listing runs", kubeflow.runs.run_service_list_runs, page_size=1, **where
        )
        return "runs can be listed"

    def _room(self) -> str:
        return check_room(self.cluster, self.needs)

    def _store(self) -> str:
        """Writes, reads, writes on condition and deletes a probe."""
        if not self.store:
            raise Unknown("no --store is given")
        store, key = open_store(self.store, environ=self.environ), _probe()
        try:
            store.put(key, b"probe")
            if store.get(key) != b"probe":
                raise Lacking(f"{self.store} gives other bytes", "use another store")
            check_condition(store, key)
        finally:
            store.delete(key)
        return f"{self.store} can be read and written"

    def _data(self) -> str:
        if not self.source:
            raise Unknown("data.source is no s3:// URI")
        home, key = split_uri(self.source)
        store = open_store(home, environ=self.environ)
        prefix = key if key.endswith("/") else f"{key}/"
        if store.exists(key.rstrip("/")) or any(True for _ in store.list(prefix)):
            return self.source
        raise Lacking(
            f"nothing lies at {self.source}",
            f"safescale data fetch adult --store {self.store}, or set data.source",
        )

    def _kubeflow_clock(self) -> str:
        pool, url = self.kubeflow().door()
        return self._skew(pool, url)

    def _kubernetes_clock(self) -> str:
        api = self.cluster.api
        return self._skew(api.client.rest_client.pool_manager, f"{api.host}/version")

    def _store_clock(self) -> str:
        endpoint = self.environ.get("AWS_ENDPOINT_URL_S3") or self.environ.get(
            "AWS_ENDPOINT_URL", "https://s3.amazonaws.com"
        )
        if not self.store.startswith("s3://"):
            raise Unknown("a folder has no clock of its own")
        import certifi
        import urllib3

        ca = self.environ.get("AWS_CA_BUNDLE") or self.environ.get("SSL_CERT_FILE")
        with urllib3.PoolManager(ca_certs=ca or certifi.where()) as pool:
            return self._skew(pool, endpoint)

    def _skew(self, pool: Any, url: str) -> str:
        """Compares a server's `Date` with our clock in the middle of the request."""
        from urllib3.exceptions import HTTPError

        before = self.now()
        try:
            answer = pool.request(
                "GET", url, timeout=10.0, retries=False, redirect=False
            )
        except HTTPError:
            raise Unknown(f"{url} did not answer") from None
        ours = (before + self.now()) / 2
        if "Date" not in answer.headers:
            raise Unknown(f"{url} states no time")
        # `Date` is cut to whole seconds, half a second on average.
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
        skew = theirs - ours
        if abs(skew) > SKEW:
            way = "ahead of" if skew > 0 else "behind"
            raise Lacking(f"{url} is {abs(skew):.0f} s {way} this machine", _CLOCK)
        return f"within {max(1.0, abs(skew)):.0f} s of this machine"

    def _images(self) -> str:
        raise Unknown("only the cluster's nodes can tell whether they may pull them")


def check_condition(store: Store, key: str) -> None:
    """Checks that a store refuses a conditional write to an object that is there.

    Raises:
        Lacking: it does not.
    """
    try:
        store.put(key, b"again", if_absent=True)
    except PreconditionFailed:
        return
    raise Lacking(
        f"{store.uri} ignores If-None-Match: two runs could both win a version",
        "use a store with conditional writes, such as AWS S3, MinIO or SeaweedFS 4",
    )


def _probe() -> str:
    return f"doctor/{uuid.uuid4().hex}"
