"""JSON in the one spelling that digests are taken of, those digests, and its files."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from safescale_ammt.errors import InputError
from safescale_ammt.files.json_text import (
    LARGEST,
    LONGEST,
    JsonError,
    parse_json,
    parse_lines,
)
from safescale_ammt.files.regular import open_regular, read_regular
from safescale_ammt.printable import unseen_in

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Bytes read at a time, so that memory does not grow with the file.
_CHUNK = 1 << 20
_SEEN = dict.fromkeys(map(ord, "\n\r\t"))
_FLAGS = dict.fromkeys(("yes", "on"), True) | dict.fromkeys(("no", "off"), False)


def canonical_json(value: Any) -> bytes:
    """Serialises to the one spelling that digests are taken of.

    Keys sorted, no white space, UTF-8, no NaN or infinity.

    Raises:
        ValueError: a float is not finite.
    """
    text = json.dumps(
        value,
        # Two dicts that are equal have one spelling, whatever order they were built in.
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        # NaN is no JSON: other readers refuse it or read it as null.
        allow_nan=False,
    )
    return text.encode()


def json_form(value: Any) -> Any:
    """Returns a value with its mappings as dicts and its tuples as lists.

    As JSON reads it back: equal values are then equal before and after a file.
    """
    if isinstance(value, Mapping):
        return {key: json_form(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [json_form(item) for item in value]
    return value


def checked_text(value: Any, where: str, error: type[InputError]) -> str:
    """Returns a value of a file that people write, if it is text with a digest.

    Args:
        value: as YAML or JSON gave it.
        where: its key, for the sentence.
        error: what is raised.

    Raises:
        InputError: of the given class: no text, not Unicode, or with characters that
            nobody sees (line breaks and tabs are seen).
    """
    if not isinstance(value, str):
        # YAML reads true, 1.10 and 2026-11-16 as a boolean, a number and a day.
        quote = "; put it in quotes" if isinstance(value, int | float | date) else ""
        raise error(f"{where} must be text, found {value!r}{quote}.")
    # Half of a surrogate pair (YAML's "\ud800") is a str that has no digest.
    try:
        value.encode()
    except UnicodeEncodeError:
        raise error(f"{where} is not Unicode text.") from None
    # Quoted, YAML's "\e[2J" is an escape sequence on every terminal that shows it.
    if unseen := unseen_in(value.translate(_SEEN)):
        raise error(f"{where} holds {unseen}; leave it out.")
    return value


def checked_flag(value: Any, where: str, error: type[InputError]) -> bool:
    """Returns a value of a file that people write, if it is true or false.

    Args:
        value: as YAML or JSON gave it; also the `yes` and `no` of YAML 1.1.
        where: its key, for the sentence.
        error: what is raised.

    Raises:
        InputError: of the given class: it is neither.
    """
    flag = value if isinstance(value, bool) else _FLAGS.get(str(value).lower())
    if flag is None:
        raise error(f"{where} must be true or false, found {value!r}.")
    return flag


def found_number(value: Any) -> str:
    """Returns the part of a sentence that says what was found instead of a number."""
    # YAML 1.1 reads 1e-3, -.5 and "8" as texts, which look like numbers to an author.
    try:
        meant = float(value) if isinstance(value, str) else None
    except ValueError:
        meant = None
    if meant is None or not math.isfinite(meant):
        return f"found {value!r}"
    return f"found {value!r}, a text to YAML; write {meant:.15g} without quotes"


def is_digest(value: Any) -> bool:
    """Says whether a value is spelled as a digest: `sha256:` and 64 hex digits."""
    return isinstance(value, str) and bool(_DIGEST.fullmatch(value))


def digest_bytes(data: bytes | memoryview) -> str:
    """Returns `sha256:<hex>` of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Returns the digest of a JSON value's canonical spelling."""
    return digest_bytes(canonical_json(value))


def digest_stream(stream: BinaryIO) -> str:
    """Returns `sha256:<hex>` of a stream's bytes, read to the end in chunks."""
    sha = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        sha.update(chunk)
    return "sha256:" + sha.hexdigest()


def digest_file(path: Path, *, follow: bool = True) -> str:
    """Returns `sha256:<hex>` of a regular file.

    Raises:
        InputError: it is a pipe, a device or the like, or a link that `follow` does
            not allow.
    """
    with open_regular(path, follow=follow) as file:
        return digest_stream(file)


def json_file(value: Any) -> bytes:
    """Returns the bytes of a JSON file: canonical, one trailing newline."""
    return canonical_json(value) + b"\n"


def write_json(path: Path, value: Any) -> None:
    """Writes canonical JSON (see `json_file`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Bytes and not text: newlines must not depend on the platform.
    path.write_bytes(json_file(value))


def read_json(path: Path, most: int = LARGEST) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: the file is missing, is no regular file, is larger than `most`
            bytes or is not JSON.
    """
    try:
        return parse_json(read_regular(path, most), most)
    except JsonError as error:
        raise InputError(f"{path} is not JSON ({error}).") from None


def read_json_lines(path: Path) -> list[Any]:
    """Reads a log with one JSON text a line; the errors of `read_json`."""
    try:
        return parse_lines(read_regular(path, LONGEST))
    except JsonError as error:
        raise InputError(f"{path} holds a line that is not JSON ({error}).") from None
