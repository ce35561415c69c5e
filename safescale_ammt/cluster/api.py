"""Calls of the Kubernetes API: patient with outages, clear about refusals.

The `kubernetes` client brings addresses, certificates and tokens that renew
themselves; on top of it, plain JSON goes through one door. A call that meets an
API that is away is tried again with growing pauses until `Patience.outage`; an
answer that another try would not change is one sentence.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from safescale_ammt.errors import ClusterError, ClusterInputError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and its namespace."""
_AWAY = frozenset({408, 429, 500, 502, 503, 504})
_METHODS = {"create": "POST", "patch": "PATCH", "delete": "DELETE"}
_DENIED = re.compile(r'User "([^"]*)" cannot (\S+) resource "([^"]+)"')
_MERGE = "application/merge-patch+json"
Query = Mapping[str, str | int]


@dataclass(frozen=True)
class Resource:
    """A kind of object that this package calls."""

    group: str
    version: str
    plural: str

    @property
    def full_name(self) -> str:
        """Plural and group, as messages of the API spell it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "", sub: str = "") -> str:
        """Returns the path of the collection, of one object or of a part of it."""
        root = f"/apis/{self.group}" if self.group else "/api"
        parts = (root, self.version, "namespaces", namespace, self.plural, name, sub)
        return "/".join(filter(None, parts))


TRAINJOBS = Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs")
RUNTIMES = Resource("trainer.kubeflow.org", "v1alpha1", "trainingruntimes")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("", "v1", "events")


@dataclass(frozen=True)
class Patience:
    """How long things may take, in seconds."""

    outage: float = 600.0
    """The API does not answer."""
    first: float = 0.5
    """Pause after a first failure; it doubles."""
    longest: float = 15.0
    """Longest pause."""
    connect: float = 5.0
    """One connection attempt."""
    read: float = 30.0
    """One answer; also the silence after which a log stream is opened anew."""
    watch: float = 25.0
    """One watch, after which the job is read anew; less than `read`."""
    poll: float = 5.0
    """Between looks at pods, and at the job where it may not be watched."""
    pending: float = 1800.0
    """Until a first pod runs, or runs again."""
    queued: float = 86400.0
    """The same in a Kueue queue."""
    denied: float = 60.0
    """A right that the caller has had is refused: API servers do so as they start."""
    gone: float = 300.0
    """Until a deleted job is gone; its pods have 120 s for a last checkpoint."""
    grace: float = 20.0
    """For deleting the job at SIGTERM; pods have 30 s by default."""


PATIENCE = Patience()
"""Of a step that may take hours."""


class Answer(ClusterError):
    """The API answered, and not with success; `status` is the HTTP status."""

    def __init__(self, sentence: str, status: int, message: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.message = message


class Denied(Answer, ClusterInputError):
    """The caller is unknown (401), or may not do this (403)."""

    exit_code = 2


class OutOfReach(ClusterError):
    """The API stayed away for longer than one is patient; the job goes on."""


class Away(Exception):
    """No answer, or one that says to come back; `str` says what happened."""


class Api:
    """The API server as one namespace's service account sees it."""

    def __init__(
        self,
        client: Any,
        namespace: str,
        patience: Patience = PATIENCE,
        *,
        say: Callable[[str], None] = print,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        deadline: float = math.inf,
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.patience = patience
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
        patience: Patience = PATIENCE,
        *,
        say: Callable[[str], None] = print,
        account: Path = ACCOUNT,
    ) -> Self:
        """Finds the API: the pod's own, or the one of a kubeconfig.

        Raises:
            ClusterInputError: neither is there.
        """
        from kubernetes import config

        try:
            client, namespace = _configured(environ, account)
        except (config.ConfigException, OSError) as error:
            raise ClusterInputError(
                "No Kubernetes API is known here: this is no pod with a service "
                f"account, and no kubeconfig can be read ({_one_line(error)}); "
                "training.backend trainjob runs on Kubeflow, set backend: local here."
            ) from None
        return cls(client, namespace, patience, say=say)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.rest_client.pool_manager.clear()
        self.client.close()

    @property
    def host(self) -> str:
        """Address of the API server."""
        return str(self.client.configuration.host)

    def hasty(self, seconds: float) -> Api:
        """Returns this API for calls that all have to end in so many seconds."""
        brief = max(0.5, seconds / 4)
        patience = replace(
            self.patience,
            longest=min(self.patience.longest, brief),
            connect=min(self.patience.connect, brief),
            read=min(self.patience.read, brief),
        )
        return Api(
            self.client,
            self.namespace,
            patience,
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
            OutOfReach: it did not answer for `Patience.outage` seconds.
        """
        since = self.clock()
        pause = self.patience.first
        while True:
            try:
                answer = self._whole(verb, resource, name, query, body)
            except Away as away:
                self._bear(away, since, self.patience.outage)
            except Denied as denied:
                if (verb, resource) not in self._permitted:
                    raise
                self._bear(denied, since, self.patience.denied)
            else:
                self._announced = False
                self._permitted.add((verb, resource))
                return answer
            self.sleep(pause)
            pause = min(2 * pause, self.patience.longest)

    def lines(
        self, verb: str, resource: Resource, name: str, sub: str, query: Query
    ) -> Iterator[bytes]:
        """Opens a stream once and yields its whole lines as they come.

        What follows the last line end is yielded only if the stream ended well.

        Raises:
            Answer: as `call`.
            Away: the stream could not be opened, broke, or was silent for
                `Patience.read` seconds.
        """
        path = resource.path(self.namespace, name, sub)
        response = self._open(verb, path, resource, query, None)
        rest = b""
        try:
            for chunk in _chunks(response):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            if rest:
                yield rest
        finally:
            response.close()
            response.release_conn()

    def _bear(self, trouble: Away | Denied, since: float, limit: float) -> None:
        """Says once that there is trouble; raises when it has lasted too long."""
        if not self._announced:
            self._announced = True
            does = "refuses now" if isinstance(trouble, Denied) else "does not answer"
            self.say(
                f"The Kubernetes API at {self.host} {does} ({trouble}); trying for up "
                f"to {limit:g} s."
            )
        now = self.clock()
        if now < min(since + limit, self.deadline):
            return
        if isinstance(trouble, Denied):
            raise trouble
        raise OutOfReach(
            f"The Kubernetes API at {self.host} has not answered for "
            f"{now - since:.0f} s ({trouble}); a TrainJob that runs goes on, and a "
            "retry of this step adopts it."
        ) from None

    def _whole(
        self,
        verb: str,
        resource: Resource,
        name: str,
        query: Query | None,
        body: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        path = resource.path(self.namespace, name)
        response = self._open(verb, path, resource, query or {}, body)
        try:
            answer = json.loads(b"".join(_chunks(response)))
        except ValueError:
            raise Away("an answer that is not JSON") from None
        finally:
            response.release_conn()
        return dict(answer)

    def _open(
        self,
        verb: str,
        path: str,
        resource: Resource,
        query: Query,
        body: Mapping[str, Any] | None,
    ) -> Any:
        """Sends one request; returns the open response of a success.

        The client's own `call_api` is gone round: its exceptions call what urllib3
        has deprecated, and it cannot send `sinceTime` or a merge patch.
        """
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", **self.client.default_headers}
        headers["Content-Type"] = _MERGE if verb == "patch" else "application/json"
        self.client.update_params_for_auth(headers, [], ["BearerToken"])
        asked = f"?{urlencode(query)}" if query else ""
        try:
            response = self.client.rest_client.pool_manager.request(
                _METHODS.get(verb, "GET"),
                self.host + path + asked,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=Timeout(self.patience.connect, self.patience.read),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            if 200 <= response.status < 300:
                return response
            text = response.data.decode(errors="replace")
        except (HTTPError, OSError) as error:
            raise self._no_connection(error) from None
        raise self._failure(verb, resource, response.status, _message(text))

    def _no_connection(self, error: Exception) -> Exception:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return ClusterInputError(
                f"The certificate of the Kubernetes API at {self.host} cannot be "
                f"verified ({_one_line(error)}); check the cluster's CA."
            )
        return Away(_one_line(error))

    def _failure(
        self, verb: str, resource: Resource, status: int, message: str
    ) -> Exception:
        if status in _AWAY:
            return Away(f"{status} {message}".strip())
        if status == 401:
            sentence = (
                f"The Kubernetes API at {self.host} does not know {self._caller()} "
                f"(401), who wanted to {verb} {resource.full_name} in namespace "
                f"{self.namespace}; check the pod's service account token."
            )
            return Denied(sentence, 401, message)
        if status == 403 and (told := _DENIED.search(message)):
            sentence = (
                f"{_account(told[1])} may not {told[2]} {_full(told[3], resource)} in "
                f"namespace {self.namespace} (403); bind it to the Role "
                "safescale-pipeline of manifests/base."
            )
            return Denied(sentence, 403, message)
        sentence = (
            f"The Kubernetes API at {self.host} refuses to {verb} {resource.full_name} "
            f"in namespace {self.namespace} ({status}): {message}"
        )
        return Answer(sentence, status, message)

    def _caller(self) -> str:
        token = self.client.configuration.get_api_key_with_prefix("authorization")
        try:
            payload = str(token).split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
            return _account(str(claims["sub"]))
        except (IndexError, ValueError, KeyError, TypeError):
            return "the bearer of this token"


def _configured(environ: Mapping[str, str], account: Path) -> tuple[Any, str]:
    from kubernetes import client, config
    from kubernetes.config.incluster_config import InClusterConfigLoader

    settings = client.Configuration()
    if environ.get("KUBERNETES_SERVICE_HOST") and not environ.get("KUBECONFIG"):
        files = (str(account / "token"), str(account / "ca.crt"))
        InClusterConfigLoader(*files, environ=environ).load_and_set(settings)
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
    else:
        file = environ.get("KUBECONFIG") or None
        config.load_kube_config(file, client_configuration=settings)
        _, active = config.list_kube_config_contexts(file)
        namespace = active["context"].get("namespace", "default")
    return client.ApiClient(settings), namespace


def _chunks(response: Any) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    try:
        yield from response.stream(None)
    except (HTTPError, OSError, AttributeError, ValueError) as error:
        # The last two: the stream was closed by another thread while it was read.
        raise Away(_one_line(error)) from None


def _message(text: str) -> str:
    """Returns the message of a Status object, or the beginning of the body."""
    try:
        return _one_line(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return _one_line(text)


def _full(plural: str, resource: Resource) -> str:
    return f"{plural}.{resource.group}" if resource.group else plural


def _account(user: str) -> str:
    parts = user.split(":")
    if user.startswith("system:serviceaccount:") and len(parts) == 4:
        return f"Service account {parts[2]}/{parts[3]}"
    return f"User {user}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
