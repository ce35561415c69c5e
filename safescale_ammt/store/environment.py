"""Which store an environment names: of data and ledger, of datasets, or the registry.

    SAFESCALE_STORE, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...     data and ledger
    SAFESCALE_DATASETS_STORE, SAFESCALE_DATASETS_AWS_..., ...     rows that lie apart
    SAFESCALE_REGISTRY_STORE, SAFESCALE_REGISTRY_AWS_..., ...     the registry

On Kubeflow they come from three secrets: only the gate has the last, and only who
learns has the second, which names the first's place and opens `files.shards.DATASETS`
alone, for reading. Where these are not named, as on a laptop, one store serves as all.
Below `files.artifacts.PROTECTED` of the first lies what tells of sealed rows one by
one: no key but that of `safescale-store` opens it.
"""

from __future__ import annotations

from collections.abc import Mapping

from safescale_ammt.errors import InputError
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import STORE, open_store

REGISTRY = "SAFESCALE_REGISTRY_"
"""Prefix of the registry's own variables."""
DATASETS = "SAFESCALE_DATASETS_"
"""Prefix of the variables of a store that is read for rows of datasets alone."""
DATASET_STORE = f"{DATASETS}STORE"
SECRET_KEYS = (
    STORE,
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
)
"""Keys of a store's secret, each the name of its environment variable too."""
# The session token belongs to the keys, and AWS_ENDPOINT_URL_S3 outranks the endpoint:
# one of them left over would mix the two stores.
_STATIC = (*SECRET_KEYS, "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3")


def registry_variable(key: str) -> str:
    """Returns the registry's variable for a key of `SECRET_KEYS`."""
    return own_variable(REGISTRY, key)


def own_variable(prefix: str, key: str) -> str:
    """Returns the variable, of a store with a prefix, for a key of `SECRET_KEYS`."""
    return prefix + key.removeprefix("SAFESCALE_")


def data_store(environ: Mapping[str, str]) -> Store:
    """Opens the store of data, ledger and outcomes.

    Raises:
        InputError: none is named, or its URI or keys are malformed.
    """
    if not environ.get(STORE):
        raise InputError(
            f"{STORE} is not set, so there is no place for sealed rows and evidence, "
            "no ledger, no registry and no outcome to read; set it to s3://BUCKET or "
            "file:///PATH."
        )
    return open_store(environ[STORE], environ=environ)


def registry_store(environ: Mapping[str, str]) -> Store:
    """Opens the registry's store.

    Its variables replace the other store's, all of them: the key of one store is
    never tried at the other. What the pod itself has (a role) holds for both.

    Raises:
        InputError: none is named, or its URI or keys are malformed.
    """
    return data_store(registry_environ(environ))


def dataset_store(environ: Mapping[str, str]) -> Store:
    """Opens the store that rows of datasets are read from; keys as `registry_store`.

    Raises:
        InputError: none is named, or its URI or keys are malformed.
    """
    return data_store(own_environ(DATASETS, environ))


def registry_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment in which the registry's store is the one named."""
    return own_environ(REGISTRY, environ)


def own_environ(prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment in which the store with a prefix is the one named."""
    if not environ.get(own_variable(prefix, STORE)):
        return dict(environ)
    own = {key: environ.get(own_variable(prefix, key), "") for key in _STATIC}
    others = {name: value for name, value in environ.items() if name not in _STATIC}
    # An empty variable is left out: as unset, it lets the pod's own role hold.
    return {**others, **{key: value for key, value in own.items() if value}}
