"""What an API may do instead of answering."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from safescale_ammt.errors import InputError, SafescaleError
from safescale_ammt.files.json_text import parse_json

_INTERNAL, _UNAVAILABLE = 13, 14  # gRPC's codes of faults of the server's own
_QUOTED = 300  # characters that one sentence has room for
# What KFP answers as its own fault (500) though Kubernetes said no, and would again, or
# lacks what KFP's database knows. Not "invalid" alone: a database's "invalid
# connection" passes by itself.
_FINAL = re.compile(
    r"\bis forbidden\b|exceeded quota|too (?:large|long)|denied the request|"
    r"\bis invalid\b|\binvalid (?:input|value|spec|pipeline)|not found[. ]*\Z",
    re.IGNORECASE,
)


class Unreachable(SafescaleError):
    """The API is away, or answers as a server does that is not well."""


class LostAnswer(Unreachable):
    """A request was sent and not answered: whether it took effect is not known."""


class Rejection(InputError):
    """The API understood and says no; `status` is the HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class AnotherTry:
    """Swallows an error that another try may mend, and waits for that try.

    Attributes:
        wait: seconds, as `RetryPolicy.tries` gives them; 0 = this is the last try, and
            an API that is away is an error.
        statuses: of rejections that another try may mend.
    """

    wait: float
    statuses: Collection[int] = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        mends = isinstance(error, Unreachable) and self.wait > 0
        mends |= isinstance(error, Rejection) and error.status in self.statuses
        if mends:
            time.sleep(self.wait)
        return mends


def disconnection(host: str, action: str, error: Exception) -> SafescaleError:
    """Says why no answer came: a certificate, a dead address, a lost connection.

    Args:
        host: where to.
        action: what was done, as in "listing runs".
        error: urllib3's.
    """
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, SSLError

    # urllib3 wraps the cause in a MaxRetryError, even where no retry is allowed.
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, SSLError):
        return InputError(
            f"The certificate of {host} is not trusted; --ca-file says who signed."
        )
    if isinstance(reason, NewConnectionError | ConnectTimeoutError):
        return Unreachable(
            f"Nobody answers at {host} ({action}); check the address, the network "
            "and that Kubeflow Pipelines runs."
        )
    # There was a connection, so the request may have arrived.
    return LostAnswer(f"{host} broke off while {action}.")


def message(body: Any) -> str:
    """Returns the server's reason in one line, shortened, as ': ...'; "" = none.

    KFP strings together what each of its functions says of an error, the outermost
    first, so the cause stands at the end; a fault of the caller's is told once more in
    `details` (backend/src/common/util/error.go, 2.17.0).
    """
    text, cause = _said(body)
    line = " ".join((cause or text).split()).rstrip(". ")
    if len(line) > _QUOTED:
        line = f"... {line[-_QUOTED:].partition(': ')[2] or line[-_QUOTED:]}"
    return f": {line}" if line else ""


def is_final(body: Any) -> bool:
    """Says whether a server's fault (5xx) is a no that another try would meet again."""
    return bool(_FINAL.search(_said(body)[0]))


def _said(body: Any) -> tuple[str, str]:
    """Returns the whole of what a server says, and the caller's fault in it, or ""."""
    text = body if isinstance(body, str) else ""
    try:
        status = parse_json(body or "null")
        # gRPC's gateway writes `message`; the upload service is plain HTTP and writes
        # `error_message`, or plain text.
        text = str(status.get("message") or status.get("error_message") or "")
        told = status["details"][0]
        own = told.get("code") in (_INTERNAL, _UNAVAILABLE)
        return text, "" if own else str(told.get("message") or "")
    except (ValueError, AttributeError, TypeError, LookupError):
        # A page of a gateway before the API says nothing of it.
        return "" if text.lstrip().startswith("<") else text, ""
