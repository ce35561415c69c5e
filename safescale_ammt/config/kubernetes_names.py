"""Names of objects on Kubernetes (DNS-1123)."""

from __future__ import annotations

import re

from safescale_ammt.errors import ConfigError

ACCOUNT = "safescale-pipeline"
"""Service account of a run's pods."""
# Of each secret its name in the namespace; what it holds is in no file of ours.
STORE_SECRET = "safescale-store"  # noqa: S105
REGISTRY_SECRET = "safescale-registry"  # noqa: S105
TRAINING_SECRET = "safescale-training"  # noqa: S105
DATASETS_SECRET = "safescale-datasets"  # noqa: S105
NOTIFY_SECRET = "safescale-notify"  # noqa: S105
SPARK = "safescale-spark"
"""The SparkConnect, and the ConfigMap that says where it listens."""
SPARK_ADDRESS = "SAFESCALE_SPARK"
"""Key of that ConfigMap and variable of prepare_data: sc://host:15002."""
SPARK_VERSION = "4.3.0"
"""Of Spark and PySpark in the image `spark`, on both ends of a connection."""
# RFC 1123: a label is one part of a host's name, a subdomain is several with dots.
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
# The grammar of image names (distribution/reference): a host, with a port if need be,
# and parts of a path. Without a host the first part is one of the path.
_HOST = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?"
_PART = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
_REGISTRY_PATH = re.compile(rf"({_HOST}|{_PART})(/{_PART})*")
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


def registry_path(text: str, name: str) -> str:
    """Returns what stands before the images' names in a registry.

    Args:
        text: a host and a path below it, each alone or both.
        name: what it is the value of, for the error.

    Raises:
        ConfigError: no image can be called so.
    """
    if not _REGISTRY_PATH.fullmatch(text):
        raise ConfigError(
            f"{name} {text[:200]!r} is no registry path; give one such as "
            "registry.example.org:5000/team: lower-case letters, digits and single "
            "'.', '_' and '-' between them, a port behind the host alone, no scheme, "
            "no tag, no address of IPv6 and no slash at its end."
        )
    return text
