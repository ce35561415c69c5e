"""Names of objects on Kubernetes (DNS-1123)."""

from __future__ import annotations

import re

from safescale_ammt.errors import ConfigError

# RFC 1123: a label is one part of a host's name, a subdomain is several with dots.
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST_LABEL = 63
_LONGEST = 253


def is_label(text: str) -> bool:
    """Says whether a namespace or a queue may be called so."""
    return len(text) <= _LONGEST_LABEL and bool(re.fullmatch(_LABEL, text))


def is_object_name(text: str) -> bool:
    """Says whether most objects may be called so."""
    return len(text) <= _LONGEST and bool(_SUBDOMAIN.fullmatch(text))


def namespace(text: str) -> str:
    """Returns a namespace's name.

    Raises:
        ConfigError: Kubernetes takes no such name.
    """
    if not is_label(text):
        raise ConfigError(
            f"{text[:80]!r} is no namespace: 1-{_LONGEST_LABEL} lower-case letters, "
            "digits and '-' are expected, such as safescale."
        )
    return text


def account(text: str) -> str:
    """Returns a service account's name.

    Raises:
        ConfigError: Kubernetes takes no such name.
    """
    if not is_object_name(text):
        raise ConfigError(
            f"{text[:80]!r} is no service account: lower-case letters, digits, '-' and "
            "'.' are expected, such as safescale-pipeline."
        )
    return text
