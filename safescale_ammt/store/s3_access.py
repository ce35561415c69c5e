"""Credentials of an S3 account, and clients that use them.

Credentials and endpoint come from the standard environment:

    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN   static keys
    AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN                     IRSA
    AWS_CONTAINER_CREDENTIALS_FULL_URI / _RELATIVE_URI            pod identity
    AWS_SHARED_CREDENTIALS_FILE, AWS_PROFILE                      a profile file
    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL                       default: AWS
    AWS_REGION or AWS_DEFAULT_REGION                              us-east-1
    AWS_CA_BUNDLE or SSL_CERT_FILE                                default: certifi

The instance metadata service is left out: outside EC2 it only hangs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    IamAwsProvider,
    Provider,
    StaticProvider,
)
from minio.error import MinioException

from safescale_ammt.errors import StoreInputError
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.s3_retry import connection_pool

_AWS = "https://s3.amazonaws.com"
_DELEGATED = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
_CREDENTIAL_RETRIES = 6
"""Most retries at a credential service: its no is mostly for good, unlike a store's."""


class OnlyIfAbsent(urllib3.PoolManager):
    """A pool whose writes carry `If-None-Match: *`."""

    # The client library has no argument for it (given as metadata, the condition
    # becomes a user header and the store overwrites), but it takes a pool. The header
    # is not signed, which S3 permits for all but `host` and `x-amz-*`.

    def urlopen(  # type: ignore[override]  # as PoolManager's own
        self, method: str, url: str, redirect: bool = True, **options: Any
    ) -> urllib3.BaseHTTPResponse:
        """Sends a request, on condition if it is a write."""
        if method == "PUT":
            # A copy: the dictionary is the caller's.
            headers = options["headers"].copy()
            headers["If-None-Match"] = "*"
            options["headers"] = headers
        return super().urlopen(method, url, redirect, **options)


@dataclass(frozen=True)
class Clients:
    """Two clients of one account: plain, and for conditional writes."""

    plain: Minio
    conditional: Minio
    endpoint: str


def connect(environ: Mapping[str, str], bucket: str, policy: RetryPolicy) -> Clients:
    """Builds the clients that the environment describes; contacts nobody.

    Raises:
        StoreInputError: no credentials, half of them, or a malformed endpoint.
    """
    endpoint = (
        environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or _AWS
    )
    parts = urlsplit(endpoint)
    plain = not (parts.path.strip("/") or parts.query or parts.fragment)
    # The endpoint is not quoted: it may hold credentials.
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
        raise StoreInputError(
            "AWS_ENDPOINT_URL is no endpoint: http(s)://HOST[:PORT] is expected."
        )
    if "@" in parts.netloc:
        raise StoreInputError(
            "AWS_ENDPOINT_URL must not hold credentials: put them into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    ca = environ.get("AWS_CA_BUNDLE") or environ.get("SSL_CERT_FILE")
    ca = ca or certifi.where()
    provider = _provider(environ, bucket, policy, ca)

    def client(kind: type[urllib3.PoolManager]) -> Minio:
        return Minio(
            parts.netloc,
            credentials=provider,
            secure=parts.scheme == "https",
            # Given, so that the client does not ask the store for the bucket's.
            region=region or "us-east-1",
            http_client=connection_pool(kind, policy, ca),
        )

    return Clients(client(urllib3.PoolManager), client(OnlyIfAbsent), endpoint)


def _provider(
    environ: Mapping[str, str], bucket: str, policy: RetryPolicy, ca: str
) -> Provider:
    """Chooses the source of credentials: static keys, a role, a profile file."""
    # Static keys first: the embedded store brings its own, whatever the shell holds.
    access = environ.get("AWS_ACCESS_KEY_ID")
    secret = environ.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        return StaticProvider(access, secret, environ.get("AWS_SESSION_TOKEN"))
    if access or secret:
        absent = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
        raise StoreInputError(f"{absent} is not set, so s3://{bucket} cannot be used.")
    named = next((name for name in _DELEGATED if environ.get(name)), None)
    if named:
        # No urllib3 retries: it logs the URL, which holds the identity token.
        once = replace(policy, retries=0)
        pool = connection_pool(urllib3.PoolManager, once, ca)
        service = IamAwsProvider(
            custom_endpoint=environ.get("AWS_ENDPOINT_URL_STS"), http_client=pool
        )
        fewer = replace(policy, retries=min(policy.retries, _CREDENTIAL_RETRIES))
        return Renewing(service, named, fewer)
    for named in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_PROFILE"):
        if environ.get(named):
            # A file that lacks the keys lacks them a minute later too.
            return Renewing(AWSConfigProvider(), named, replace(policy, retries=0))
    raise StoreInputError(
        f"no credentials for s3://{bucket}: set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL for a store outside AWS)."
    )


class Renewing(Provider):
    """Credentials of a service: fetched with retries, its answers never quoted."""

    def __init__(self, service: Provider, named: str, policy: RetryPolicy) -> None:
        self._service = service
        self._named = named
        self._policy = policy

    def retrieve(self) -> Credentials:
        """Returns credentials that are valid now.

        Raises:
            StoreInputError: the service gave none.
        """
        for failures in range(1, self._policy.retries + 2):
            try:
                return self._service.retrieve()
            except (
                MinioException,
                OSError,
                KeyError,
                ValueError,
                urllib3.exceptions.HTTPError,
            ):
                # Not chained either: the library's errors quote URLs that hold tokens.
                if failures <= self._policy.retries:
                    time.sleep(self._policy.wait(failures))
        raise StoreInputError(
            f"{self._named} is set, but the credentials that it stands for could not "
            "be obtained; check the role, the file and the network."
        )
