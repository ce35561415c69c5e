"""What people read: lines on a terminal, files at a place that may not take them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from safescale_ammt.errors import InputError
from safescale_ammt.printable import printable_lines


def say(text: str, *, err: bool = False) -> None:
    """Prints lines for a person; what nobody sees in a name of theirs is spelled."""
    click.echo(printable_lines(text), err=err)


def say_json(value: Any) -> None:
    """Prints JSON, in ASCII alone if a text of it holds what nobody sees."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    plain = text == printable_lines(text)
    click.echo(text if plain else json.dumps(value, indent=2))


def write_text(path: Path, text: str) -> Path:
    """Writes a file, and the folders above it; returns its path.

    Raises:
        InputError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}).") from None
    return path


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns one line per row, its columns under those of the row above."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
