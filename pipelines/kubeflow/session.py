"""Who we are to Kubeflow Pipelines, and where it is.

    --host, SAFESCALE_KFP_HOST, KF_PIPELINES_ENDPOINT  else the service in the cluster
    --token-file, KF_PIPELINES_SA_TOKEN_PATH           a bearer token, read each time
    /var/run/secrets/kubeflow/pipelines/token          the same, projected into a pod
    SAFESCALE_KFP_USER, SAFESCALE_KFP_PASSWORD         a login at Dex
    --ca-file, SSL_CERT_FILE                           who signs the certificate

Secrets come from files and the environment alone: a command line is readable by
everybody on the machine. They travel encrypted, or inside the cluster, or nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from safescale_ammt.errors import InputError

NAMESPACE = "safescale"
TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where KFP's SDK looks for a token of audience pipelines.kubeflow.org."""
# Plain HTTP is what this service speaks; the request stays inside the cluster.
_SERVICE = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
# Ours, and the one that KFP's SDK reads.
_HOSTS = ("SAFESCALE_KFP_HOST", "KF_PIPELINES_ENDPOINT")
_INSIDE = (".svc", ".svc.cluster.local", ".localhost")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Session:
    """An address and credentials.

    Attributes:
        host: base URL of the API, without a slash at its end.
        namespace: where runs live; in single-user mode KFP has none, and it is
            Kubernetes' alone.
        token_file: holds a bearer token.
        ca_file: certificates that are trusted; None = the system's.
        user, password: of Dex; "" = no login.
    """

    host: str
    namespace: str = NAMESPACE
    token_file: Path | None = None
    ca_file: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def find(
        cls,
        environ: Mapping[str, str],
        *,
        host: str | None = None,
        namespace: str = NAMESPACE,
        token_file: Path | None = None,
        ca_file: Path | None = None,
    ) -> Session:
        """Completes the options from the environment.

        Raises:
            InputError: no address, a malformed one, half a login, a file that is
                not there, or a secret that would travel in the clear.
        """
        user = environ.get("SAFESCALE_KFP_USER", "")
        password = environ.get("SAFESCALE_KFP_PASSWORD", "")
        if bool(user) != bool(password):
            absent = "SAFESCALE_KFP_PASSWORD" if user else "SAFESCALE_KFP_USER"
            raise InputError(f"{absent} is not set, so nobody can log in at Dex.")
        token = token_file or environ.get("KF_PIPELINES_SA_TOKEN_PATH")
        if not token and TOKEN.is_file():
            token = TOKEN
        ca = ca_file or environ.get("SSL_CERT_FILE")
        session = cls(
            host=_host(host, environ),
            namespace=namespace,
            token_file=_existing(token, "Token file"),
            ca_file=_existing(ca, "Certificate file"),
            user=user,
            password=password,
        )
        # Here, not at the first call: by then the header would be on its way.
        session.refuse_cleartext()
        return session

    @property
    def has_secret(self) -> bool:
        """Whether requests carry a token or a cookie."""
        return bool(self.token_file or self.password)

    def token(self) -> str:
        """Returns the token as it is now: kubelets and people replace it.

        Raises:
            InputError: the file is gone, empty or holds more than a token.
        """
        assert self.token_file is not None
        try:
            text = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            raise InputError(f"Token file {self.token_file} cannot be read.") from None
        # A line break would end the header, and what follows would be another one.
        if not text or not text.isprintable() or " " in text:
            raise InputError(f"Token file {self.token_file} holds no token.")
        return text

    def client(self) -> Any:
        """Builds the generated client that sends this token; it contacts nobody."""
        import kfp_server_api
        import urllib3

        config = kfp_server_api.Configuration()
        config.host = self.host
        config.ssl_ca_cert = str(self.ca_file) if self.ca_file else None
        # Retries are ours: urllib3's would send a request again that must not be. No
        # redirect either: a token must not follow one to a login page.
        config.retries = urllib3.Retry(total=0, redirect=False)
        if self.token_file is not None:
            # The client sends the header only if a key is there; the hook then replaces
            # it before each request.
            config.api_key["authorization"] = "read by the hook"
            config.api_key_prefix["authorization"] = "Bearer"
            config.refresh_api_key_hook = lambda c: c.api_key.update(
                authorization=self.token()
            )
        return kfp_server_api.ApiClient(config)

    def refuse_cleartext(self) -> None:
        """Keeps a secret from a network where everybody can read it.

        Raises:
            InputError: a secret would leave the machine or cluster unencrypted.
        """
        if self.has_secret and in_the_clear(self.host):
            raise InputError(
                f"{self.host} is not encrypted: the token or password would travel in "
                "the clear; use https://."
            )


def in_the_clear(url: str) -> bool:
    """Says whether what is sent there can be read on the way."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    # A name without a dot is a service of the pod's own namespace.
    near = name in _LOOPBACK or "." not in name or name.endswith(_INSIDE)
    return parts.scheme != "https" and not near


def _host(option: str | None, environ: Mapping[str, str]) -> str:
    """Returns the API's base URL.

    Raises:
        InputError: none is named, or it is no base URL, or it holds a password.
    """
    # The kubelet sets this variable in every pod.
    in_cluster = _SERVICE if environ.get("KUBERNETES_SERVICE_HOST") else None
    candidates = [option, *map(environ.get, _HOSTS), in_cluster]
    host = next(filter(None, candidates), None)
    if host is None:
        raise InputError(
            "No Kubeflow Pipelines is named: give --host https://HOST/pipeline or set "
            "SAFESCALE_KFP_HOST."
        )
    host = host.rstrip("/")
    try:
        parts = urlsplit(host)
        usable = bool(parts.hostname) and parts.port != 0 and not parts.query
        usable = usable and parts.scheme in ("http", "https")
    except ValueError:  # half a bracket, or a port that is no number
        usable = False
    # A fragment: the address of a page in the browser, not of the API.
    if not usable or "#" in host or any(char.isspace() for char in host):
        # What stands before an @ may be a password.
        raise InputError(
            f"{host.rpartition('@')[2]!r} is no address of Kubeflow Pipelines, "
            "http(s)://HOST[:PORT][/pipeline] is expected."
        )
    if "@" in parts.netloc:
        raise InputError(
            f"The address of {parts.hostname} must not hold a password; set "
            "SAFESCALE_KFP_USER and SAFESCALE_KFP_PASSWORD, or give --token-file."
        )
    return host


def _existing(path: Path | str | None, what: str) -> Path | None:
    if path and not Path(path).is_file():
        raise InputError(f"{what} {path} does not exist.")
    return Path(path) if path else None
