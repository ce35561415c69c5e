"""Names that Kubeflow takes, and whether one is there already.

KFP's database takes names for equal that differ in case, in a blank at the end, or in
accents, so names are compared here. A KFP that keeps pipelines and versions as objects
of Kubernetes takes DNS names alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pipelines.kubeflow.api import Kubeflow
from safescale_ammt.errors import InputError

# No blank at the end: the database takes "a" and "a " for one name.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]*[A-Za-z0-9._-])?")
# RFC 1123, as Kubernetes reads it: labels with dots between them.
_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def check_name(name: str, option: str = "--name", longest: int = 128) -> str:
    """Returns a name that Kubeflow takes.

    Raises:
        InputError: it is empty, too long, or holds other characters.
    """
    if len(name) > longest or not _NAME.fullmatch(name):
        raise InputError(
            f"{option} {name[:140]!r} is no name: 1-{longest} letters, digits, blanks, "
            "dots, underscores and hyphens are expected, a letter or digit first, no "
            "blank at the end."
        )
    return name


def check_dns_name(kubeflow: Kubeflow, name: str, option: str) -> None:
    """Refuses a name that KFP cannot give to an object of Kubernetes, if it has to.

    Such a KFP makes a pipeline before it refuses the version
    (pipeline_store_kubernetes.go, 2.17.0): half of an upload would stay.

    Raises:
        InputError: it is no DNS name.
    """
    native = kubeflow.health.get("pipeline_store") == "kubernetes"
    if native and not _SUBDOMAIN.fullmatch(name):
        raise InputError(
            f"{option} {name!r} is no DNS name, and {kubeflow.session.host} keeps "
            "pipelines as Kubernetes' objects: lower-case letters, digits, hyphens and "
            "dots are expected, a letter or digit at both ends."
        )


def exactly(
    items: Iterable[Any], name: str, what: str, key: str = "name"
) -> Any | None:
    """Returns the object of exactly this name; None if none is there.

    KFP filters by what its database takes for equal: case is no difference there, and
    accents may be none either.

    Args:
        items: as the API lists them.
        name: which.
        what: the kind of object.
        key: the field that holds its name.

    Raises:
        InputError: one is there that the database takes for it, so none can be made.
    """
    found = list(items)
    for item in found:
        if getattr(item, key) == name:
            return item
    if found:
        raise InputError(
            f"{what} {name!r} is there as {getattr(found[0], key)!r}; give that name, "
            "or one that differs in more than case."
        )
    return None
