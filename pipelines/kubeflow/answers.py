"""What an API can do instead of what was asked."""

from __future__ import annotations

import json
from typing import Any

from safescale_ammt.errors import InputError, SafescaleError

_QUOTED = 200


class Unreachable(SafescaleError):
    """The API is away, or answers as a sick server does."""


class Unanswered(Unreachable):
    """An order was sent and not answered: nobody knows whether it was carried out."""


class Answered(InputError):
    """The API understood and says no; `status` is the HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def message(body: Any) -> str:
    """Returns the first line of what the server said, shortened, as ': ...'."""
    try:
        said = json.loads(body or "null")
        text = str(said.get("message") or said.get("error_message") or "")
    except (ValueError, AttributeError, TypeError):
        return ""
    line = " ".join(text.split())
    return f": {line[:_QUOTED].rstrip('. ')}" if line else ""
