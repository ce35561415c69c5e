"""JSON in the one spelling that digests are taken of, and those digests."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from safescale_ammt.errors import InputError

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


_CHUNK = 1 << 20


def canonical_json(value: Any) -> bytes:
    """Serialises to the one spelling that digests are taken of.

    Keys sorted, no white space, UTF-8, no NaN or infinity.

    Raises:
        ValueError: a float is not finite.
    """
    text = json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return text.encode()


def is_digest(value: Any) -> bool:
    """Says whether a value is spelled as a digest: `sha256:` and 64 hex digits."""
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def digest_bytes(data: bytes) -> str:
    """Returns `sha256:<hex>` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Returns the digest of a JSON value's canonical spelling."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """Returns `sha256:<hex>` of a file, read in chunks."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return "sha256:" + sha.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Writes canonical JSON (stable bytes, one trailing newline)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(canonical_json(value) + b"\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not JSON ({error}).") from None
