"""`safescale doctor`: what a cluster lacks for a run, each fault by its own name."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any

from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.doctor import platform, quota, spark
from pipelines.kubeflow.doctor.checks import Check, Fault, Unknown
from pipelines.kubeflow.doctor.cluster import Cluster
from pipelines.kubeflow.doctor.guards import check_guards
from pipelines.kubeflow.doctor.network import check_api_address
from pipelines.kubeflow.doctor.quota import RunResources
from pipelines.kubeflow.doctor.rights import Rights
from pipelines.kubeflow.doctor.secrets import Secrets
from pipelines.kubeflow.doctor.shut import check_shut
from safescale_ammt.errors import PreconditionFailed, StorageError
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store, split_uri

# Seconds; S3's signatures tolerate 15 minutes, tokens and records less.
SKEW = 60.0
PROBES = "runs/doctor"
"""Where probes lie: `runs/` is every documented key's of the store of data."""
_CLOCK = "set this machine's or the server's clock by NTP"


@dataclass
class Doctor:
    """All checks, and what they look at.

    Attributes:
        kubeflow: opens the session; its errors are a result too.
        cluster: the namespace on Kubernetes.
        run: what a run takes.
        store: URI of the object store; "" = not known here.
        source: URI of the raw rows; "" = not on a cluster.
        environ: the store's endpoint and keys.
        now: the time on this machine, seconds since 1970.
    """

    kubeflow: Callable[[], Kubeflow]
    cluster: Cluster
    run: RunResources
    store: str
    source: str
    environ: Mapping[str, str]
    now: Callable[[], float] = time.time

    def checks(self) -> list[Check]:
        """Returns all checks, each after those that it needs."""
        secrets = Secrets(self.cluster, self.store)
        way = partial(check_api_address, self.cluster)
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
            *Rights(self.cluster, lambda: self.kubeflow().session).checks(),
            *secrets.checks(),
            Check("guards", partial(check_guards, self.cluster), ("account",)),
            *platform.checks(self.cluster),
            Check("way to the API", way, ("namespace",)),
            *quota.checks(self.cluster, self.run),
            *spark.checks(self.cluster),
            Check("store", self._store, remedy="check --store, its keys and bucket"),
            Check("store's place", secrets.place, ("store", "secret safescale-store")),
            Check(
                "sealed rows shut",
                partial(check_shut, secrets, self.environ),
                ("secrets apart", "store's place"),
            ),
            Check("data", self._data, ("store",)),
            Check("kubeflow's clock", self._kubeflow_clock, ("kubeflow",)),
            Check("kubernetes' clock", self._kubernetes_clock, ("kubernetes",)),
            Check("store's clock", self._store_clock, ("store",)),
            Check("images", self._images),
        ]

    def _kubeflow(self) -> str:
        kubeflow = self.kubeflow()
        host = kubeflow.session.host
        if kubeflow.health.get("multi_user"):
            return f"{host}, multi-user"
        return f"{host}, single-user: its pods run in KFP's own --namespace"

    def _version(self) -> str:
        self.kubeflow().require_version()
        return self.kubeflow().version or "the server does not say; 2.17 is needed"

    def _access(self) -> str:
        kubeflow = self.kubeflow()
        # The health check answers everybody; a listing takes login and namespace.
        kubeflow.call(
            "listing runs",
            kubeflow.runs.run_service_list_runs,
            page_size=1,
            **kubeflow.scope,
        )
        return "runs can be listed"

    def _store(self) -> str:
        """Writes, reads, writes on condition and deletes a probe."""
        if not self.store:
            raise Unknown("no --store is given")
        store = open_store(self.store, environ=self.environ)
        # Below a prefix that the key of safescale-store opens, by a name that nobody
        # else draws: two doctors at once would read each other's.
        key = f"{PROBES}/{uuid.uuid4().hex}"
        store.put(key, b"probe")
        try:
            if store.get(key) != b"probe":
                raise Fault(f"{self.store} gives other bytes", "use another store")
            check_condition(store, key)
        finally:
            # However the checks end, nothing stays behind, if the key may do that.
            kept = None
            try:
                store.delete(key)
            except StorageError as error:
                kept = error
        if kept is not None:
            return f"{self.store} can be read and written; a probe stays there: {kept}"
        return f"{self.store} can be read and written"

    def _data(self) -> str:
        if not self.source:
            raise Unknown("data.source is no s3:// URI")
        home, key = split_uri(self.source)
        store = open_store(home, environ=self.environ)
        # A name without a slash at its end may be an object's or a folder's.
        prefix = key if key.endswith("/") else f"{key}/"
        if store.exists(key.rstrip("/")) or any(True for _ in store.list(prefix)):
            return self.source
        raise Fault(
            f"nothing lies at {self.source}",
            f"safescale data fetch adult --store {self.store}, or set data.source",
        )

    def _kubeflow_clock(self) -> str:
        return self._skew(*self.kubeflow().health_endpoint())

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
        # A refusal has a `Date` as well, so no key is needed here.
        with urllib3.PoolManager(ca_certs=ca or certifi.where()) as pool:
            return self._skew(pool, endpoint)

    def _skew(self, pool: Any, url: str) -> str:
        """Compares a server's `Date` with our clock in the middle of the request."""
        from urllib3.exceptions import HTTPError

        before = self.now()
        try:
            # A retry or a redirect would put the middle of the request elsewhere.
            answer = pool.request(
                "GET", url, timeout=10.0, retries=False, redirect=False
            )
        except HTTPError:
            raise Unknown(f"{url} did not answer") from None
        here = (before + self.now()) / 2
        if "Date" not in answer.headers:
            raise Unknown(f"{url} states no time")
        # `Date` is cut to whole seconds, half a second on average.
        there = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
        skew = there - here
        if abs(skew) > SKEW:
            direction = "ahead of" if skew > 0 else "behind"
            raise Fault(f"{url} is {abs(skew):.0f} s {direction} this machine", _CLOCK)
        return f"within {max(1.0, abs(skew)):.0f} s of this machine"

    def _images(self) -> str:
        raise Unknown("only the cluster's nodes can tell whether they may pull them")


def check_condition(store: Store, key: str) -> None:
    """Checks that a store refuses a conditional write to an object that is there.

    Raises:
        Fault: it does not.
    """
    try:
        store.put(key, b"again", if_absent=True)
    except PreconditionFailed:
        return
    raise Fault(
        f"{store.uri} ignores If-None-Match: two runs could both win a version",
        "use a store with conditional writes, such as AWS S3, MinIO or SeaweedFS 4",
    )
