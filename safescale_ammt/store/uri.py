"""From a URI to a store: `s3://bucket[/prefix]` or `file:///folder`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from safescale_ammt.errors import StoreInputError, one_of
from safescale_ammt.store.addresses import (
    NO_ADDRESS,
    is_ip_address,
    looks_like_address,
)
from safescale_ammt.store.base import Store

STORE = "SAFESCALE_STORE"
"""Environment variable with the URI of the store of data and ledger."""
OWN_DISK = "SAFESCALE_OWN_DISK"
"""Environment variable: whoever gives addresses has this disk, as in a run on it."""
# The naming rules of S3: a bucket may become a host name.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(uri: str, *, environ: Mapping[str, str] = os.environ) -> Store:
    """Opens `s3://bucket[/prefix]` or `file:///folder`.

    Nothing is contacted yet: a wrong bucket shows at the first operation.

    Raises:
        StoreInputError: the URI is malformed, or S3 credentials are missing.
    """
    scheme, root, key = _parse(uri)
    if scheme == "file":
        from safescale_ammt.store.folder import FileStore

        return FileStore(Path(root))
    # Imported here: work on a folder needs no S3 client.
    from safescale_ammt.store.s3 import S3Store

    return S3Store.from_environ(root, key.strip("/"), environ)


def split_uri(uri: str) -> tuple[str, str]:
    """Splits the URI of one object (or prefix) into its store's URI and its key.

    A local path is resolved first, so that a linked file is read where it lies;
    a trailing slash, the sign of a prefix, stays on the key.

    Example:
        split_uri("s3://bucket/a/b.csv") == ("s3://bucket", "a/b.csv")
        split_uri("file:///data/b.csv") == ("file:///data", "b.csv")

    Raises:
        StoreInputError: the URI is malformed.
    """
    scheme, root, key = _parse(uri)
    if scheme == "s3":
        return f"s3://{root}", key
    try:
        path = Path(root).resolve()
    except (OSError, RuntimeError):
        raise StoreInputError(f"{uri} is a link that leads to no file.") from None
    # The root of the file system has no name that a slash could follow.
    slash = "/" if root.endswith("/") and path.name else ""
    return path.parent.as_uri(), path.name + slash


def read_uri(
    uri: str, most: int | None = None, *, environ: Mapping[str, str] = os.environ
) -> bytes:
    """Reads the one object that a URI names; the errors of `Store.get`."""
    store, key = split_uri(uri)
    if not key or key.endswith("/"):
        raise StoreInputError(f"{uri} names no single object to read.")
    return open_store(store, environ=environ).get(key, most)


def check_given(uri: str, what: str, environ: Mapping[str, str]) -> None:
    """Refuses a place that whoever starts a run gives, and that is a pod's own disk.

    There lie the keys of its account and of its stores (`/proc`, mounted secrets), and
    a form may be filled in by people who have none of them.

    Args:
        uri: the place.
        what: the parameter, for the sentence.
        environ: of the stage; Kubernetes names itself in it, a run on this machine
            says `OWN_DISK`.

    Raises:
        StoreInputError: it is one.
    """
    # Schemes have no case; nothing else than these two is read anyway.
    local = uri.strip().lower().startswith("file:")
    # A notebook is a pod too, whose owner reads his own disk.
    foreign = environ.get("KUBERNETES_SERVICE_HOST") and not environ.get(OWN_DISK)
    if local and foreign:
        raise StoreInputError(
            f"{what} is a file:// address, which in a pod is the pod's own disk, and "
            "is not read there; give an s3://BUCKET/KEY address."
        )


def _parse(uri: str) -> tuple[str, str, str]:
    """Returns scheme, bucket or absolute path, and (S3 only) the key."""
    scheme, separator, rest = uri.partition("://")
    # Keys do not belong there; where somebody wrote some, no sentence repeats them.
    uri = re.sub(r"//.*@", "//...@", uri)
    if not separator or scheme not in ("s3", "file"):
        raise StoreInputError(
            f"{uri!r} is no storage URI, {one_of(['s3://BUCKET', 'file:///PATH'])}."
        )
    if scheme == "file":
        # RFC 8089: the host is empty or "localhost"; a path is percent-encoded.
        path = unquote(rest.removeprefix("localhost"))
        if not path.startswith("/") or "\0" in path:
            raise StoreInputError(
                f"{uri!r} must hold an absolute path, as in file:///data/table.csv."
            )
        return scheme, path, ""
    bucket, _, key = rest.partition("/")
    # S3 itself forbids buckets in the form of an IP address.
    if is_ip_address(bucket) or (":" in bucket and looks_like_address(bucket)):
        raise StoreInputError(
            f"{uri!r} holds an address where a bucket is expected: {NO_ADDRESS}."
        )
    if not _BUCKET.fullmatch(bucket):
        raise StoreInputError(
            f"{uri!r} holds no valid bucket name: 3-63 lower-case letters, digits, "
            "dots and hyphens are expected."
        )
    return scheme, bucket, key
