"""Streams: a download that resumes, an upload that knows its digest."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from safescale_ammt.errors import StorageError
from safescale_ammt.retry import RetryPolicy

PART = 16 << 20
"""Bytes of one part of a large upload; a few parts are in memory at a time."""
_MOST_PARTS = 9_000  # S3 permits 10,000

Request = Callable[[int, str], BaseHTTPResponse]
"""Requests an object from a byte on, provided that its ETag is still this one."""


class Resuming(io.RawIOBase):
    """The bytes of an object; a broken connection is taken up where it broke."""

    def __init__(
        self,
        response: BaseHTTPResponse,
        request: Request,
        what: str,
        policy: RetryPolicy,
    ) -> None:
        super().__init__()
        self._response = response
        self._request = request
        self._what = what
        self._policy = policy
        self._done = 0
        self._failures = 0
        self._etag = self._response.headers.get("etag", "").strip('"')
        self._size = int(self._response.headers.get("content-length", -1))

    def readable(self) -> bool:
        """Says that bytes come out."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads on, over as many connections as it takes and the policy permits.

        Raises:
            StorageError: the last permitted try broke off too, or the object is
                not the same any more.
        """
        while self._done != self._size:
            try:
                chunk = self._response.read(len(buffer))
            except (HTTPError, OSError) as error:
                self._failures += 1
                self._response.close()
                if self._failures > self._policy.retries:
                    raise StorageError(
                        f"reading {self._what} failed: the store broke off "
                        f"{self._failures} times, at last after {self._done} of "
                        f"{self._size} bytes."
                    ) from error
                time.sleep(self._policy.wait(self._failures))
                self._response = self._request(self._done, self._etag)
                # Without 206 the store has ignored the range: these are the first
                # bytes again.
                if self._done and self._response.status != 206:
                    raise StorageError(
                        f"reading {self._what} failed: the store broke off after "
                        f"{self._done} of {self._size} bytes and cannot send the rest "
                        "alone."
                    ) from error
                continue
            # An end before `_size` raises (IncompleteRead); a store that states no
            # size is believed where its stream ends.
            if not chunk:
                break
            buffer[: len(chunk)] = chunk
            self._done += len(chunk)
            return len(chunk)
        return 0

    def close(self) -> None:
        """Gives the connection back."""
        if not self.closed:
            # Closed first: a connection with unread bytes must not be used again.
            self._response.close()
            self._response.release_conn()
        super().close()


class Hashing(io.RawIOBase):
    """A source that knows the digest of what was read from it."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._sha = hashlib.sha256()

    def readable(self) -> bool:
        """Says that bytes come out."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Reads from the source; what it reads goes into the digest."""
        chunk = self._source.read(size)
        self._sha.update(chunk)
        return chunk

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of everything read so far."""
        return "sha256:" + self._sha.hexdigest()


def part_size(size: int) -> int:
    """Returns the bytes of one part of an upload; all parts but the last."""
    # -(-a // b) rounds up, so that the parts never outnumber the limit.
    return max(PART, -(-size // _MOST_PARTS))


def file_etag(path: Path) -> str:
    """Returns the ETag that S3 gives a file uploaded in our parts."""
    size = path.stat().st_size
    sums = []
    with path.open("rb") as file:
        while part := file.read(part_size(size)):
            sums.append(hashlib.md5(part, usedforsecurity=False))
    # One part is sent as a plain put, whose ETag is the MD5 itself; that of a multipart
    # upload is the MD5 of the parts' MD5s and their number. MD5 is S3's choice: here
    # it tells a changed file from an unchanged one, and guards nothing.
    if len(sums) == 1:
        return sums[0].hexdigest()
    whole = hashlib.md5(b"".join(s.digest() for s in sums), usedforsecurity=False)
    return f"{whole.hexdigest()}-{len(sums)}" if sums else whole.hexdigest()
