"""Inputs that nobody's program wrote, and a clock that ends a test they block."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def pipe(path: Path) -> None:
    """Makes a pipe that nobody writes: whoever opens it waits."""
    os.mkfifo(path)


def listening(path: Path) -> None:
    """Makes a socket; its path stays when the server has gone."""
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        # The name of a socket has at most 108 bytes.
        os.chdir(path.parent)
        server.bind(path.name)
        os.chdir(here)


def folder(path: Path) -> None:
    """Makes a folder in the place of a file."""
    path.mkdir()


def ring(path: Path) -> None:
    """Makes a link that leads to itself."""
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    """Makes a link to nothing."""
    path.symlink_to("nothing-of-this-name")


def to_device(path: Path) -> None:
    """Makes a link to a file without an end."""
    path.symlink_to("/dev/zero")


def to_outside(path: Path) -> None:
    """Makes a link to a file of the machine."""
    path.symlink_to("/etc/hostname")


IRREGULAR: Mapping[str, Callable[[Path], None]] = {
    "pipe": pipe,
    "socket": listening,
    "folder": folder,
    "ring": ring,
    "dangling": dangling,
    "device": to_device,
    "outside": to_outside,
}
"""What is no regular file, by name -> makes one at a path."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Ends the body after so many seconds, also in the middle of a system call."""

    def stop(*_: Any) -> None:
        raise AssertionError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def nested(levels: int) -> str:
    """Returns JSON, which is YAML too, of so many levels."""
    return "[" * levels + "]" * levels


HOSTILE_JSON: Mapping[str, bytes] = {
    "deep": nested(100).encode(),
    "deep objects": b'{"a":' * 100 + b"1" + b"}" * 100,
    "long number": b"9" * 5000,
    "beyond 64 bits": b"[9223372036854775808]",
    "beyond doubles": b'{"a": 1e999}',
    "not a number": b'{"a": NaN}',
    "infinite": b"[-Infinity]",
    "key twice": b'{"kind": "bundle", "kind": "model"}',
    "half a character": b'{"a": "\\ud800"}',
    "other bytes": b'{"a": "\xff"}',
    "two bytes a character": '{"a": 1}'.encode("utf-16"),
    "nothing": b"",
    "no end": b'{"a": ',
    "two": b"{} {}",
    "null": b"null",
    "list": b"[]",
    "text": b'"manifest"',
    "number": b"1",
}
"""JSON, or nearly, that is none of ours."""


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path of every value inside a JSON value, the whole one first."""
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*at, key))
    elif isinstance(value, list) and value:
        # One of a list stands for all: its entries have one form.
        yield from places(value[0], (*at, 0))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """Returns a JSON value with another one in one place."""
    if not at:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = put(copy[at[0]], at[1:], new)
    return copy


OTHERS = (None, True, -1, 2**62, 0.5, "", "x", [], [[]], {}, {"x": {}})
"""Values of every type of JSON, to stand where another was."""
