"""What an API can do instead of what was asked, and how long it is waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safescale_ammt.errors import InputError, SafescaleError

SICK = (429, 500, 502, 503, 504)
"""Statuses of a server, or of a gateway before it, that is not well."""
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


@dataclass(frozen=True)
class Patience:
    """How long an API that is away is waited for; times in seconds."""

    total: float = 60.0
    """Until the API is given up."""
    first: float = 0.5
    """First wait; each further one doubles."""
    longest: float = 8.0
    """Longest single wait."""

    def tries(self) -> Iterator[float]:
        """Yields for each try the seconds to wait should it fail; 0 = no further one.

        Lazy: the clock runs while the caller tries.
        """
        wait, end = self.first, time.monotonic() + self.total
        while (left := end - time.monotonic()) > 0:
            yield min(wait, self.longest, left)
            wait *= 2
        yield 0.0


def message(body: Any) -> str:
    """Returns the first line of what the server said, shortened, as ': ...'."""
    try:
        said = json.loads(body or "null")
        text = str(said.get("message") or said.get("error_message") or "")
    except (ValueError, AttributeError, TypeError):
        return ""
    line = " ".join(text.split())
    return f": {line[:_QUOTED].rstrip('. ')}" if line else ""
