"""A pod's own way to the Kubernetes API, without the `kubernetes` package.

The exit task reads pods and does nothing else there; its image has no room for a
client of 20 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import urllib3

from safescale_ammt.cluster.api import ACCOUNT, Api
from safescale_ammt.cluster.timeouts import API_RETRY, Timeouts
from safescale_ammt.errors import ClusterInputError


class OwnAccount:
    """What `Api` needs of a client: address, connections and this pod's token."""

    def __init__(self, environ: Mapping[str, str], account: Path) -> None:
        host, port = (environ[f"KUBERNETES_SERVICE_{k}"] for k in ("HOST", "PORT"))
        address = f"[{host}]" if ":" in host else host
        pool = urllib3.PoolManager(ca_certs=str(account / "ca.crt"))
        self.configuration = SimpleNamespace(host=f"https://{address}:{port}")
        self.rest_client = SimpleNamespace(pool_manager=pool)
        self.default_headers: dict[str, str] = {}
        self._token = account / "token"

    def update_params_for_auth(self, headers: dict[str, str], *_: Any) -> None:
        """Adds the token as it is now: the kubelet replaces it."""
        token = self._token.read_text(encoding="ascii").strip()
        headers["authorization"] = f"Bearer {token}"

    def close(self) -> None:
        """Leaves nothing open: connections end with `pool_manager`."""


def own_api(
    environ: Mapping[str, str], patience: float, account: Path = ACCOUNT
) -> Api:
    """Returns the API as this pod's own account sees it.

    Args:
        environ: as the kubelet fills it in.
        patience: seconds that an API that is away is waited for.
        account: folder with token, namespace and certificates.

    Raises:
        ClusterInputError: this is no pod, or it has no token.
    """
    retry = replace(API_RETRY, total=patience, longest=2.0, read=15.0)
    try:
        namespace = (account / "namespace").read_text(encoding="utf-8").strip()
        client = OwnAccount(environ, account)
    except (KeyError, OSError):
        raise ClusterInputError(
            "This is no pod with a service account, so no Kubernetes API is asked."
        ) from None
    return Api(client, namespace, Timeouts(retry), say=lambda _: None)
