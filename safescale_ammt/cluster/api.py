"""Calls of the Kubernetes API: tried again in an outage, clear about refusals.

The `kubernetes` client brings addresses, certificates and tokens that renew
themselves; on top of it, every call is plain JSON. A call that meets an API that
is away is tried again with growing waits for `RetryPolicy.total` seconds; an answer
that another try would not change is one sentence.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from safescale_ammt.cluster.refusals import (
    ApiRequest,
    Away,
    Denied,
    OutOfReach,
    one_line,
)
from safescale_ammt.cluster.resources import Resource
from safescale_ammt.cluster.timeouts import TIMEOUTS, Timeouts
from safescale_ammt.errors import ClusterInputError
from safescale_ammt.files.json_text import parse_json

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and its namespace."""
# Custom resources take no strategic merge. This patch replaces lists whole, so that an
# owner that is taken off is off.
_MERGE = "application/merge-patch+json"
_METHODS = {"create": "POST", "patch": "PATCH", "delete": "DELETE"}
Query = Mapping[str, str | int]


class Api:
    """The API server as one namespace's service account sees it."""

    def __init__(
        self,
        client: Any,
        namespace: str,
        timeouts: Timeouts = TIMEOUTS,
        *,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        deadline: float = math.inf,
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.timeouts = timeouts
        self.say = say
        self.clock = clock
        self.sleep = sleep
        self.deadline = deadline
        """Of the clock; no call tries again after it."""
        self._announced = False
        self._permitted: set[tuple[str, Resource]] = set()

    @classmethod
    def connect(
        cls,
        environ: Mapping[str, str] = os.environ,
        timeouts: Timeouts = TIMEOUTS,
        *,
        say: Callable[[str], None] = print,
        account: Path = ACCOUNT,
    ) -> Self:
        """Finds the API: the one of a kubeconfig, or the pod's own.

        Raises:
            ClusterInputError: neither is there.
        """
        from kubernetes import client, config
        from kubernetes.config.incluster_config import InClusterConfigLoader

        settings = client.Configuration()
        try:
            # A kubeconfig that is named outranks the pod's own account.
            if environ.get("KUBERNETES_SERVICE_HOST") and not environ.get("KUBECONFIG"):
                files = (str(account / "token"), str(account / "ca.crt"))
                InClusterConfigLoader(*files, environ=environ).load_and_set(settings)
                namespace = (account / "namespace").read_text(encoding="utf-8").strip()
            else:
                file = environ.get("KUBECONFIG") or None
                config.load_kube_config(file, client_configuration=settings)
                _, active = config.list_kube_config_contexts(file)
                namespace = active["context"].get("namespace", "default")
        except (config.ConfigException, OSError) as error:
            raise ClusterInputError(
                "No Kubernetes API is known here: this is no pod with a service "
                f"account, and no kubeconfig can be read ({one_line(error)}); "
                "training.backend trainjob runs on Kubeflow, set backend: local here."
            ) from None
        return cls(client.ApiClient(settings), namespace, timeouts, say=say)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.rest_client.pool_manager.clear()
        self.client.close()

    @property
    def host(self) -> str:
        """Address of the API server."""
        return str(self.client.configuration.host)

    def with_deadline(self, seconds: float) -> Api:
        """Returns this API for calls that all have to end in so many seconds."""
        # One silent connection must not take all of the time: a quarter of it leaves
        # room for more tries.
        brief = max(0.5, seconds / 4)
        retry = self.timeouts.retry
        retry = replace(
            retry,
            longest=min(retry.longest, brief),
            connect=min(retry.connect, brief),
            read=min(retry.read, brief),
        )
        return Api(
            self.client,
            self.namespace,
            replace(self.timeouts, retry=retry),
            say=self.say,
            clock=self.clock,
            sleep=self.sleep,
            deadline=self.clock() + seconds,
        )

    def call(
        self,
        verb: str,
        resource: Resource,
        name: str = "",
        *,
        query: Query | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Calls until there is an answer; returns the JSON object.

        Args:
            verb: get, list, create, patch (a merge patch) or delete.
            resource: what kind of object.
            name: which one; none for list and create.
            query: parameters such as `fieldSelector`.
            body: the object, the patch, or the options of a delete.

        Raises:
            Answer: the API refused; `Denied` for 401 and 403.
            OutOfReach: it did not answer for `RetryPolicy.total` seconds.
        """
        failures, since = 0, 0.0
        while True:
            try:
                answer = self._once(verb, resource, name, query, body)
            except (Away, Denied) as trouble:
                # A right that this process has had is a fault of a starting API server
                # rather than of a Role: it comes back.
                had_right = (verb, resource) in self._permitted
                if isinstance(trouble, Denied) and not had_right:
                    raise
                failures += 1
                since = self.clock() if failures == 1 else since
                self._tolerate(trouble, since)
            else:
                self._announced = False
                self._permitted.add((verb, resource))
                return answer
            self.sleep(self.timeouts.retry.wait(failures))

    def lines(
        self, verb: str, resource: Resource, name: str, sub: str, query: Query
    ) -> Iterator[bytes]:
        """Opens a stream once and yields its whole lines as they come.

        What follows the last line end is yielded only if the stream ended well.

        Raises:
            Answer: as `call`.
            Away: the stream could not be opened, broke, or was silent for
                `RetryPolicy.read` seconds.
        """
        path = resource.path(self.namespace, name, sub)
        response = self._open(verb, path, resource, query, None)
        # A chunk ends anywhere; bytes after the last line end wait for the next one.
        rest = b""
        try:
            for chunk in _chunks(response):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            if rest:
                yield rest
        finally:
            # Closed first: a stream that was left halfway is of no further use.
            response.close()
            response.release_conn()

    def _tolerate(self, trouble: Away | Denied, since: float) -> None:
        """Says once that there is trouble; raises when it has lasted too long."""
        denied = isinstance(trouble, Denied)
        limit = self.timeouts.denied if denied else self.timeouts.retry.total
        if not self._announced:
            self._announced = True
            does = "refuses now" if denied else "does not answer"
            self.say(
                f"The Kubernetes API at {self.host} {does} ({trouble}); trying for up "
                f"to {limit:g} s."
            )
        now = self.clock()
        if now < min(since + limit, self.deadline):
            return
        if denied:
            raise trouble
        raise OutOfReach(
            f"The Kubernetes API at {self.host} has not answered for "
            f"{now - since:.0f} s ({trouble}); a TrainJob that runs goes on, and the "
            "next run of the same training adopts it."
        ) from None

    def _once(
        self,
        verb: str,
        resource: Resource,
        name: str,
        query: Query | None,
        body: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Calls once; the errors of `_open`, and `Away` for half an answer."""
        path = resource.path(self.namespace, name)
        response = self._open(verb, path, resource, query or {}, body)
        try:
            answer = parse_json(b"".join(_chunks(response)))
        except ValueError:
            # A gateway's page, or JSON that was cut: the API itself speaks JSON.
            raise Away("an answer that is not JSON") from None
        finally:
            response.release_conn()
        if not isinstance(answer, dict) or (verb == "list" and "items" not in answer):
            raise Away("an answer of another form")
        # Go writes an empty list as null.
        return answer | ({"items": answer["items"] or []} if verb == "list" else {})

    def _open(
        self,
        verb: str,
        path: str,
        resource: Resource,
        query: Query,
        body: Mapping[str, Any] | None,
    ) -> Any:
        """Sends one request; returns the open response of a success."""
        # Not by the client's `call_api`: its exceptions call what urllib3 has
        # deprecated, and it can send neither `sinceTime` nor a merge patch.
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", **self.client.default_headers}
        headers["Content-Type"] = _MERGE if verb == "patch" else "application/json"
        # Reads the token's file anew when it is due: a pod's token lives for an hour.
        self.client.update_params_for_auth(headers, [], ["BearerToken"])
        token = str(headers.get("authorization", ""))
        request = ApiRequest(verb, resource, self.namespace, self.host, token)
        try:
            response = self.client.rest_client.pool_manager.request(
                _METHODS.get(verb, "GET"),
                self.host + path + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=self.timeouts.retry.timeout(),
                # `call` retries, and says so; a redirect could take the token along.
                retries=False,
                redirect=False,
                # The caller reads: a log's stream has no end to wait for.
                preload_content=False,
            )
            if 200 <= response.status < 300:
                return response
            text = response.data.decode(errors="replace")
        except (HTTPError, OSError) as error:
            raise request.failure(error) from None
        raise request.refusal(response.status, text, self.timeouts.retry.statuses)


def _chunks(response: Any) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    try:
        yield from response.stream(None)
    except (HTTPError, OSError, AttributeError, ValueError) as error:
        # The last two: the stream was closed by another thread while it was read.
        raise Away(one_line(error)) from None
