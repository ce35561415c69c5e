"""A store in an S3 bucket: the contract of `Store` over the minio client.

Requests are retried with growing waits (`RetryPolicy`); what remains is turned
into one sentence that names the action, the bucket and the endpoint, and never
quotes what the server or the library said, which may hold secrets.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.etree.ElementTree import ParseError

from minio.error import MinioException, S3Error
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, MaxRetryError, ResponseError

from safescale_ammt.errors import (
    PreconditionFailed,
    StorageError,
    StoreInputError,
)
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.files.disk import CHUNK, reading
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.base import CONDITIONAL_LIMIT, ObjectInfo, Store, check_key
from safescale_ammt.store.s3_access import Clients, connect
from safescale_ammt.store.s3_retry import S3_RETRY
from safescale_ammt.store.s3_streams import Hashing, Resuming, file_etag, part_size

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_BAD_CREDENTIALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")


class S3Store(Store):
    """Objects below a prefix of a bucket; safe to share between threads."""

    def __init__(
        self, clients: Clients, bucket: str, prefix: str, policy: RetryPolicy
    ) -> None:
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._clients = clients
        self._bucket = bucket
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        self._policy = policy

    @classmethod
    def from_environ(
        cls,
        bucket: str,
        prefix: str,
        environ: Mapping[str, str],
        policy: RetryPolicy = S3_RETRY,
    ) -> S3Store:
        """Opens a bucket with the environment's endpoint and credentials.

        Raises:
            StoreInputError: they are missing or malformed.
        """
        return cls(connect(environ, bucket, policy), bucket, prefix, policy)

    def put(
        self, key: str, data: bytes | BinaryIO | Path, *, if_absent: bool = False
    ) -> None:
        """Writes an object; see `Store.put`."""
        check_key(key)
        size = _size(data)
        with self._asking("writing", key), reading(data) as source:
            if if_absent:
                self._put_if_absent(key, source)
            else:
                self._put(key, source, size)

    def open(self, key: str) -> BinaryIO:
        """Opens an object; see `Store.open`."""
        request = partial(self._request, check_key(key))
        stream = Resuming(request(0, ""), request, f"{self.uri}/{key}", self._policy)
        return cast("BinaryIO", io.BufferedReader(stream, CHUNK))

    def stat(self, key: str) -> ObjectInfo | None:
        """Describes an object; see `Store.stat`."""
        name = self._prefix + check_key(key)
        client = self._clients.plain
        with self._asking("looking for", key):
            try:
                found = client.stat_object(self._bucket, name)
            except S3Error as error:
                # HEAD has no body: a missing bucket looks like a missing key.
                if error.code != "NoSuchKey" or not client.bucket_exists(self._bucket):
                    raise
                return None
        return self._info(found)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Lists objects; see `Store.list`."""
        check_key(prefix, prefix=True)
        client = self._clients.plain
        with self._asking("listing", prefix):
            for found in client.list_objects(
                self._bucket, self._prefix + prefix, recursive=True
            ):
                if not found.is_dir:
                    yield self._info(found)

    def delete(self, key: str) -> None:
        """Deletes an object; see `Store.delete`."""
        with self._asking("deleting", key):
            self._clients.plain.remove_object(
                self._bucket, self._prefix + check_key(key)
            )

    def holds(self, info: ObjectInfo, path: Path) -> bool:
        """Compares size and ETag (the MD5 of the parts as we cut them).

        A store that tags otherwise never matches, and the file is sent again.
        """
        return info.size == path.stat().st_size and info.etag == file_etag(path)

    def _request(self, key: str, start: int, etag: str) -> BaseHTTPResponse:
        """Asks for the bytes of an object from `start` on, if it is unchanged."""
        headers: Any = {"If-Match": f'"{etag}"'} if etag else None
        with self._asking("reading", key):
            return self._clients.plain.get_object(
                self._bucket, self._prefix + key, offset=start, request_headers=headers
            )

    def _put(self, key: str, source: BinaryIO, size: int) -> None:
        watched = Hashing(source)
        try:
            sure = self._clients.plain.put_object(
                self._bucket,
                self._prefix + key,
                cast("BinaryIO", watched),
                size,
                part_size=part_size(size),
            ).etag
        except S3Error as error:
            # A finished upload whose reply got lost is unknown when asked again.
            if error.code != "NoSuchUpload":
                raise
            sure = None
        # S3 may also answer 200 with an error inside; the client overlooks it.
        if not sure and not (self.exists(key) and self.digest(key) == watched.digest):
            raise StorageError(
                f"writing {self.uri}/{key} failed: the store did not confirm it, and "
                "what stands there is not what was sent."
            )

    def _put_if_absent(self, key: str, source: BinaryIO) -> None:
        data = source.read(CONDITIONAL_LIMIT + 1)
        if len(data) > CONDITIONAL_LIMIT:
            raise StorageError(
                f"{self.uri}/{key} is over {CONDITIONAL_LIMIT >> 20} MiB, more than a "
                "conditional write can hold; write it under the digest of its bytes."
            )
        try:
            self._clients.conditional.put_object(
                self._bucket,
                self._prefix + key,
                io.BytesIO(data),
                len(data),
                part_size=CONDITIONAL_LIMIT,
            )
        except S3Error as error:
            if error.response.status != 412:
                raise
            # After a lost reply our own first try may be what stands there.
            again = error.response.retries and error.response.retries.history
            if not (again and self.digest(key) == digest_bytes(data)):
                raise

    def _info(self, found: Any) -> ObjectInfo:
        key = found.object_name.removeprefix(self._prefix)
        etag = (found.etag or "").strip('"')
        return ObjectInfo(key, found.size or 0, etag, found.last_modified or _BEGINNING)

    @contextmanager
    def _asking(self, action: str, key: str) -> Iterator[None]:
        """Turns what the client raises into our errors."""
        what = f"{self.uri}/{key}".rstrip("/")
        try:
            yield
        except S3Error as error:
            raise self._refused(error, action, what) from None
        except MaxRetryError as error:
            raise StorageError(
                f"{action} {what} failed: the store at {self._clients.endpoint} "
                f"{_symptom(error)} in {getattr(error, 'tries', 1)} tries."
            ) from None
        except (HTTPError, MinioException, ParseError, ValueError):
            raise StorageError(
                f"{action} {what} failed: the store at {self._clients.endpoint} did "
                "not answer as S3 does; check AWS_ENDPOINT_URL."
            ) from None
        except OSError as error:
            reason = error.strerror or "the data ended too early"
            raise StorageError(f"{action} {what} failed: {reason}.") from None

    def _refused(self, error: S3Error, action: str, what: str) -> StorageError:
        """Chooses the sentence for an answer that says no."""
        where = f"at {self._clients.endpoint}"
        if error.code == "NoSuchBucket" or (
            error.code == "NoSuchKey" and action == "looking for"
        ):
            return StoreInputError(
                f"bucket {self._bucket} does not exist {where}; create it or check "
                "the name."
            )
        if error.code == "NoSuchKey":
            return StoreInputError(f"{what} does not exist.")
        status = error.response.status
        if status == 412 and action == "writing":
            return PreconditionFailed(f"{what} exists already, so it was not written.")
        if status == 412:
            return StorageError(f"{what} was overwritten while it was being read.")
        if error.code in _BAD_CREDENTIALS:
            return StoreInputError(
                f"{action} {what} was refused {where}: the access key or its secret "
                "is not valid there; check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY."
            )
        if status in (401, 403):
            return StoreInputError(
                f"{action} {what} was refused {where}: the credentials do not permit "
                f"this action in bucket {self._bucket}."
            )
        return StorageError(
            f"{action} {what} failed: the store {where} answered {error.code} "
            f"(HTTP {status})."
        )


def _size(data: bytes | BinaryIO | Path) -> int:
    """Returns the number of bytes, -1 if only reading will tell."""
    if isinstance(data, bytes):
        return len(data)
    return data.stat().st_size if isinstance(data, Path) and data.is_file() else -1


def _symptom(error: MaxRetryError) -> str:
    """Says in words how a store failed, quoting nothing."""
    if isinstance(error.reason, ResponseError):
        return "answered only with server errors"
    if error.reason is not None and "Timeout" in type(error.reason).__name__:
        return "did not answer in time"
    return "could not be reached or broke off"
