"""Files for people, at a place that may not take them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safescale_ammt.errors import InputError


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
