"""Names in a KFP that keeps pipelines and versions as objects of Kubernetes."""

from __future__ import annotations

import re

from pipelines.kubeflow.api import Kubeflow
from safescale_ammt.errors import InputError

# RFC 1123, as Kubernetes reads it: labels with dots between them.
_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


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
