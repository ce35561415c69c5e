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
from urllib.parse import urlsplit

from safescale_ammt.errors import InputError

NAMESPACE = "safescale"
TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where KFP's SDK looks for a token of audience pipelines.kubeflow.org."""
_SERVICE = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_HOSTS = ("SAFESCALE_KFP_HOST", "KF_PIPELINES_ENDPOINT")
_INSIDE = (".svc", ".svc.cluster.local", ".localhost")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Session:
    """An address and credentials.

    Attributes:
        host: base URL of the API, without a slash at its end.
        namespace: where runs live; in single-user mode only Kubernetes is asked.
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
        """Completes what was given from the environment.

        Raises:
            InputError: no address, a malformed one, half a login, a file that is
                not there, or a secret that would travel in the clear.
        """
        user = environ.get("SAFESCALE_KFP_USER", "")
        password = environ.get("SAFESCALE_KFP_PASSWORD", "")
        if bool(user) != bool(password):
            absent = "SAFESCALE_KFP_PASSWORD" if user else "SAFESCALE_KFP_USER"
            raise InputError(f"{absent} is not set, so nobody can log in at Dex.")
        ca = ca_file or (Path(f) if (f := environ.get("SSL_CERT_FILE")) else None)
        session = cls(
            host=_host(host, environ),
            namespace=namespace,
            token_file=_existing(token_file or _token_file(environ), "Token file"),
            ca_file=_existing(ca, "Certificate file"),
            user=user,
            password=password,
        )
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
        if not text or not text.isprintable() or " " in text:
            raise InputError(f"Token file {self.token_file} holds no token.")
        return text

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
    near = name in _LOOPBACK or "." not in name or name.endswith(_INSIDE)
    return parts.scheme != "https" and not near


def _host(given: str | None, environ: Mapping[str, str]) -> str:
    named = [environ[name] for name in _HOSTS if environ.get(name)]
    inside = [_SERVICE] if environ.get("KUBERNETES_SERVICE_HOST") else []
    candidates = [*([given] if given else []), *named, *inside]
    if not candidates:
        raise InputError(
            "No Kubeflow Pipelines is named: give --host https://HOST/pipeline or set "
            "SAFESCALE_KFP_HOST."
        )
    host = candidates[0].rstrip("/")
    if not _is_address(host):
        raise InputError(
            f"{host.rpartition('@')[2]!r} is no address of Kubeflow Pipelines, "
            "http(s)://HOST[:PORT][/pipeline] is expected."
        )
    parts = urlsplit(host)
    if "@" in parts.netloc:
        raise InputError(
            f"The address of {parts.hostname} must not hold a password; set "
            "SAFESCALE_KFP_USER and SAFESCALE_KFP_PASSWORD, or give --token-file."
        )
    return host


def _is_address(text: str) -> bool:
    """Says whether this is a base URL; not a page's, which has a fragment."""
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:  # half a bracket, or a port that is no number
        return False
    more = parts.query or "#" in text or any(c.isspace() for c in text)
    return named and parts.scheme in ("http", "https") and not more


def _token_file(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if named:
        return Path(named)
    return TOKEN if TOKEN.is_file() else None


def _existing(path: Path | None, what: str) -> Path | None:
    if path is not None and not path.is_file():
        raise InputError(f"{what} {path} does not exist.")
    return path
