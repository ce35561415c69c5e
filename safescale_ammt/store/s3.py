"""A store in an S3 bucket: the contract of `Store` over the minio client.

Requests are retried with growing waits (`RetryPolicy`); what remains is turned
into one sentence that names the action, the bucket and the endpoint, and never
quotes what the server or the library said, which may hold secrets.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.etree.ElementTree import ParseError

from minio.commonconfig import COMPLIANCE
from minio.error import MinioException, S3Error
from minio.retention import Retention
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
from safescale_ammt.store.addresses import NO_ADDRESS, looks_like_address
from safescale_ammt.store.base import CONDITIONAL_LIMIT, ObjectInfo, Store, check_key
from safescale_ammt.store.s3_access import Clients, connect
from safescale_ammt.store.s3_retry import S3_RETRY
from safescale_ammt.store.s3_streams import Hashing, Resuming, file_etag, part_size

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""Time of an object whose store states none."""
_BAD_CREDENTIALS = (
    "the access key or its secret is not valid there; check AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY"
)
_BAD_REGION = (
    "the bucket lies in another region than AWS_REGION says; set it to its own"
)
_REASONS = {
    "InvalidAccessKeyId": _BAD_CREDENTIALS,
    "SignatureDoesNotMatch": _BAD_CREDENTIALS,
    "ExpiredToken": _BAD_CREDENTIALS,
    "RequestTimeTooSkewed": (
        "the clocks of this machine and of the store are more than 15 minutes apart; "
        "set the one that is wrong by NTP"
    ),
    "AccountProblem": (
        "there is a problem with the account that the bucket belongs to, such as an "
        "open bill; its owner is told which"
    ),
    "AuthorizationHeaderMalformed": _BAD_REGION,
    "PermanentRedirect": _BAD_REGION,
}
"""What stands behind a code of S3 that no other try would change."""
_UNLOCKED = (
    "InvalidRequest",
    "ObjectLockConfigurationNotFoundError",
    "NoSuchObjectLockConfiguration",
    "NotImplemented",
)
"""What stores answer of a bucket that was made without object lock."""
_FULL = ("QuotaExceeded", "XMinioAdminBucketQuotaExceeded")


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
        self._kept: dict[ObjectInfo, bytes] = {}

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
        with self._translate_errors("writing", key), reading(data) as source:
            if if_absent:
                self._put_if_absent(key, source)
                return
            # -1 is unknown: minio cuts parts until the source ends.
            size = len(data) if isinstance(data, bytes) else -1
            if isinstance(data, Path):
                size = data.stat().st_size
            cut = part_size(size)
            watched: Any = Hashing(source)  # reads, and that is all that minio wants
            try:
                etag = self._clients.plain.put_object(
                    self._bucket, self._prefix + key, watched, size, part_size=cut
                ).etag
            except S3Error as error:
                # A finished upload whose reply got lost is unknown when it is repeated.
                if error.code != "NoSuchUpload":
                    raise
                etag = None
            # S3 may also answer 200 with an error inside; the client overlooks it.
            if not (etag or (self.exists(key) and self.digest(key) == watched.digest)):
                raise StorageError(
                    f"writing {self.uri}/{key} failed: the store did not confirm it, "
                    "and what stands there is not what was sent."
                )

    def open(self, key: str) -> BinaryIO:
        """Opens an object; see `Store.open`."""
        request = partial(self._request, check_key(key))
        stream = Resuming(request(0, ""), request, f"{self.uri}/{key}", self._policy)
        return cast("BinaryIO", io.BufferedReader(stream, CHUNK))

    def get_listed(self, info: ObjectInfo, most: int) -> bytes:
        """Reads an object, once for each ETag; see `Store.get_listed`."""
        # S3's ETag follows the bytes: whoever writes others gives the key another one.
        if not info.etag:
            return self.get(info.key, most)
        if info not in self._kept:
            self._kept[info] = self.get(info.key, most)
        return self._kept[info]

    def stat(self, key: str) -> ObjectInfo | None:
        """Describes an object; see `Store.stat`."""
        name = self._prefix + check_key(key)
        client = self._clients.plain
        with self._translate_errors("looking for", key):
            try:
                answer = client.stat_object(self._bucket, name)
            except S3Error as error:
                if error.code != "NoSuchKey" and error.response.status != 403:
                    raise
                # HEAD has no body, so that an absent key, a missing bucket and a lack
                # of rights look alike. A listing tells, and a key of one prefix alone
                # may list there, though it may not ask about its bucket.
                found = client.list_objects(self._bucket, prefix=name)
                first = next(iter(found), None)
                there = first is not None and first.object_name == name
                if there and error.code != "NoSuchKey":
                    raise
                return None
        return self._info(answer)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Lists objects; see `Store.list`."""
        check_key(prefix, prefix=True)
        client = self._clients.plain
        with self._translate_errors("listing", prefix):
            for answer in client.list_objects(
                self._bucket, self._prefix + prefix, recursive=True
            ):
                if not answer.is_dir:
                    yield self._info(answer)

    def delete(self, key: str) -> None:
        """Deletes an object; see `Store.delete`."""
        with self._translate_errors("deleting", key):
            self._clients.plain.remove_object(
                self._bucket, self._prefix + check_key(key)
            )

    def lock(self, key: str, until: datetime) -> str:
        """Locks the newest version in compliance mode; see `Store.lock`."""
        name, client = self._prefix + check_key(key), self._clients.plain
        with self._translate_errors("locking", key):
            version = client.stat_object(self._bucket, name).version_id
            # A bucket without versions has none to lock, and gives them no ids.
            if version and not self.is_kept_until(name, version, until):
                asked = Retention(COMPLIANCE, until)
                try:
                    client.set_object_retention(self._bucket, name, asked, version)
                except S3Error as error:
                    if error.code not in _UNLOCKED:
                        raise
                    version = None
        return version or super().lock(key, until)

    def is_kept_until(self, name: str, version: str, until: datetime) -> bool:
        """Says whether a version is locked for as long already."""
        try:
            client = self._clients.plain
            held = client.get_object_retention(self._bucket, name, version)
        except S3Error as error:
            if error.code not in _UNLOCKED:
                raise
            return False
        at = held and held.mode == COMPLIANCE and held.retain_until_date
        return bool(at and at >= until)

    def holds(self, info: ObjectInfo, path: Path) -> bool:
        """Compares size and ETag (the MD5 of the parts as we cut them).

        A store that tags otherwise never matches, and the file is sent again.
        """
        return info.size == path.stat().st_size and info.etag == file_etag(path)

    def _request(self, key: str, start: int, etag: str) -> BaseHTTPResponse:
        """Requests the bytes of an object from `start` on, if it is unchanged."""
        headers: Any = {"If-Match": f'"{etag}"'} if etag else None
        name = self._prefix + key
        with self._translate_errors("reading", key):
            try:
                return self._clients.plain.get_object(
                    self._bucket, name, offset=start, request_headers=headers
                )
            except S3Error as error:
                # AWS says 404 only to who may list the whole bucket.
                absent = False
                if error.code == "AccessDenied":
                    with suppress(StorageError):
                        absent = self.stat(key) is None
                if not absent:
                    raise
        raise StoreInputError(f"{self.uri}/{key} does not exist.")

    def _put_if_absent(self, key: str, source: BinaryIO) -> None:
        """Writes in one request, on condition; `PreconditionFailed` from `put`."""
        # Kept: after a lost reply they are compared with what stands there.
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
            was_repeated = error.response.retries and error.response.retries.history
            if not (was_repeated and self.digest(key) == digest_bytes(data)):
                raise

    def _info(self, answer: Any) -> ObjectInfo:
        key = answer.object_name.removeprefix(self._prefix)
        etag = (answer.etag or "").strip('"')
        modified = answer.last_modified or _BEGINNING
        return ObjectInfo(key, answer.size or 0, etag, modified)

    @contextmanager
    def _translate_errors(self, action: str, key: str) -> Iterator[None]:
        """Turns what the client raises into our errors.

        Their sentences begin with `action`, such as "writing"; `key` may be the
        beginning of keys.
        """
        # `from None` throughout: a log must not hold what server or library said.
        what = f"{self.uri}/{key}".rstrip("/")
        try:
            yield
        except S3Error as error:
            raise self._refusal(error, action, what) from None
        except MaxRetryError as error:
            symptom = "could not be reached or broke off"
            if isinstance(error.reason, ResponseError):
                symptom = "answered only with server errors"
            elif "Timeout" in type(error.reason).__name__:
                symptom = "did not answer in time"
            raise StorageError(
                f"{action} {what} failed: the store at {self._clients.endpoint} "
                f"{symptom} in {getattr(error, 'tries', 1)} tries."
            ) from None
        except (HTTPError, MinioException, ParseError, ValueError):
            raise StorageError(
                f"{action} {what} failed: the store at {self._clients.endpoint} did "
                "not answer as S3 does; check AWS_ENDPOINT_URL."
            ) from None
        except OSError as error:
            reason = error.strerror or "the data ended too early"
            raise StorageError(f"{action} {what} failed: {reason}.") from None

    def _refusal(self, error: S3Error, action: str, what: str) -> StorageError:
        """Returns the error for an answer that says no."""
        at = f"at {self._clients.endpoint}"
        refused = f"{action} {what} was refused {at}"
        code, status = error.code, error.response.status
        if code == "NoSuchBucket":
            hint = "create it or check the name"
            if looks_like_address(self._bucket):
                hint = f"that looks like an address: {NO_ADDRESS}"
            return StoreInputError(
                f"bucket {self._bucket} does not exist {at}; {hint}."
            )
        if code == "NoSuchKey":
            return StoreInputError(f"{what} does not exist.")
        if status == 412 and action == "writing":
            return PreconditionFailed(f"{what} exists already, so it was not written.")
        if status == 412:  # `If-Match` of a download that was taken up again
            return StorageError(f"{what} was overwritten while it was being read.")
        if code in _REASONS:
            return StoreInputError(f"{refused}: {_REASONS[code]}.")
        if code in _FULL:
            return StorageError(
                f"{refused}: the quota of bucket {self._bucket} is used up; free some "
                "of it, or have it raised."
            )
        if status in (401, 403):
            return StoreInputError(
                f"{refused}: the credentials do not permit this action in bucket "
                f"{self._bucket}."
            )
        return StorageError(
            f"{action} {what} failed: the store {at} answered {code} (HTTP {status})."
        )
