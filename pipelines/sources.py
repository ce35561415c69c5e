"""The one answer to "where do the rows lie".

A workload names its sources as URIs, as built-in data sets, or as paths on this
machine; stages only ever see URIs. Who runs them decides what a name becomes:

    resolve_locally         this machine: built-in data are fetched and stored,
                            paths become file:// URIs
    resolve_for_cluster     a Kubeflow: s3:// URIs, or built-in data that
                            `safescale data fetch` has stored before
    default_parameters      a compiled file: the same, and what lies on this machine
                            alone is left out

With the URIs goes a digest of the bytes behind them: KFP's cache key sees a URI,
but not what lies there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.workload import Workload
from safescale_ammt.config.sections import DataConfig
from safescale_ammt.config.window import Window
from safescale_ammt.errors import ConfigError, StoreInputError, one_of
from safescale_ammt.files.canonical import digest_json
from safescale_ammt.reading.catalogue import CATALOGUE
from safescale_ammt.reading.fetching import fetch, fetch_to_store, stored_uris
from safescale_ammt.reading.images import ImageLayout
from safescale_ammt.reading.sources import chosen_days, content_digest
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import split_uri

ROLES = ("source", "sealed_source")
"""Keys of `data` that name rows; the second may be empty."""
DEFAULT_STORE = "s3://safescale"
"""Where a built-in data set is looked for unless a store is known."""


def resolve_locally(
    workload: Workload, store: Store | None, folder: Path, downloads: Path
) -> Workload:
    """Returns the workload with URIs for its sources and the digest of their bytes.

    The newest days become the days that they are now, so that the run's record
    and KFP's cache key name them.

    Args:
        workload: sources may be URIs, built-in names, or paths from the working
            folder or from `folder`.
        store: where built-in data sets go; None = they are read from `downloads`.
        folder: the folder of the workload file.
        downloads: local cache of built-in data sets.

    Raises:
        ConfigError: no source, or one that is none of these.
        DataError: nothing lies behind a URI.
        IntegrityError: other bytes than those the catalogue names.
        StorageError: a data set cannot be downloaded or stored.
    """
    data = workload.data
    if not data.source:
        raise ConfigError(
            "data.source is empty; name a URI, a file or a built-in data set, "
            f"{one_of(CATALOGUE)}."
        )

    # Both roles of one data set are brought, and every byte is checked, once.
    @cache
    def brought(name: str) -> Mapping[str, str]:
        if store is not None:
            return fetch_to_store(name, store, downloads)
        files = fetch(name, downloads)
        return {role: file.resolve().as_uri() for role, file in files.items()}

    def uri(role: str, name: str) -> str:
        if "://" in name:
            return name
        if _is_builtin(role, name):
            return brought(name)[role]
        for path in (Path(name), folder / name):
            if path.exists():
                # The slash at its end tells a folder from a file of that name.
                return path.resolve().as_uri() + ("/" if path.is_dir() else "")
        raise ConfigError(
            f"data.{role} is {name!r}: no URI, no file in {Path.cwd()} or {folder}, "
            f"and no built-in data set, {one_of(CATALOGUE, name)}."
        )

    # An empty `sealed_source` stays empty: the sealed rows are then split off.
    names = {r: getattr(data, r) for r in ROLES if getattr(data, r)}
    uris = {role: uri(role, name) for role, name in names.items()}
    if data.window or any(name not in CATALOGUE for name in names.values()):
        return workload.replace("data", **uris, **_digest_of_now(data, uris))
    # Every byte of them was compared with the catalogue's digests a moment ago.
    digest = data.source_digest or builtin_digest(names)
    return workload.replace("data", **uris, source_digest=digest)


def resolve_for_cluster(
    workload: Workload, store: str, *, recurring: bool = False
) -> Workload:
    """Returns the workload with sources that a cluster can read, and their digest.

    Where the bytes are looked at, the newest days become the days that they are now:
    a file that comes later must not change what was digested.

    Args:
        workload: sources may be s3:// URIs or built-in names.
        store: URI of the store that built-in data sets lie in; "" = none.
        recurring: the bytes will be others each time, so that no digest is given.

    Raises:
        ConfigError: a source that lies on this machine alone, or days of one file.
        StoreInputError: no digest was given, and none can be made from here.
    """
    data = workload.data

    def uri(role: str, name: str) -> str:
        if name.startswith("s3://"):
            return name
        if _is_builtin(role, name):
            if store.startswith("s3://"):
                return stored_uris(name, store)[role]
            raise ConfigError(
                f"data.{role} is {name!r}, which no cluster knows: bring it into the "
                f"cluster's object store with `safescale data fetch {name} --store "
                "s3://BUCKET` and give that --store here too."
            )
        what = f"is {name!r}, which lies on this machine alone" if name else "is empty"
        raise ConfigError(
            f"data.{role} {what}: a cluster reads s3://BUCKET/KEY; copy it there, or "
            "fetch a built-in data set with `safescale data fetch adult --store "
            "s3://BUCKET`."
        )

    names = {r: getattr(data, r) for r in ROLES if getattr(data, r) or r == "source"}
    uris = {role: uri(role, name) for role, name in names.items()}
    # With a digest the second run of a schedule would fail: its rows are new ones.
    if recurring:
        return workload.replace("data", **uris, source_digest="")
    if data.source_digest:
        return workload.replace("data", **uris)
    if all(name in CATALOGUE for name in names.values()):
        # The catalogue knows these bytes: nothing has to be read from here.
        digest = builtin_digest(names)
        return workload.replace("data", **uris, source_digest=digest)
    try:
        now = _digest_of_now(data, uris)
    except StoreInputError as error:
        raise StoreInputError(
            f"{str(error).rstrip('.')}; or give the digest of the bytes behind "
            f"{uris['source']}: --set data.source_digest=sha256:..."
        ) from None
    return workload.replace("data", **uris, **now)


def builtin_digest(names: Mapping[str, str]) -> str:
    """Returns what `content_digest` finds in built-in data sets.

    Args:
        names: of the data set, by role.
    """
    parts = {"source": "source", "sealed_source": "sealed"}
    return digest_json(
        {parts[role]: CATALOGUE[name].digests(role) for role, name in names.items()}
    )


def default_parameters(workload: Workload, store: str) -> dict[str, Any]:
    """Returns a workload's values for the parameters of a compiled pipeline.

    A built-in data set is read from where `data fetch NAME --store` puts it. A
    source that lies on this machine means nothing elsewhere and is left out.

    Args:
        workload: whose values.
        store: URI of the store that built-in data sets lie in.

    Raises:
        StoreInputError: `store` is no place of a store.
    """
    split_uri(store)  # checked here, where the error names the option's value
    values = workload.arguments()
    for role in ROLES:
        name = values[role]
        if _is_builtin(role, name):
            values[role] = stored_uris(name, store)[role]
        elif name and not name.startswith("s3://"):
            del values[role]
    return values


def default_store(session_store: str) -> str:
    """Returns the store that a cluster reads a built-in data set from.

    Args:
        session_store: URI of this session's store; a folder means nothing to a
            cluster.
    """
    return session_store if session_store.startswith("s3://") else DEFAULT_STORE


def _is_builtin(role: str, name: str) -> bool:
    """Says whether a source is a built-in data set.

    Raises:
        ConfigError: it is one, but has no rows for this role.
    """
    if name not in CATALOGUE:
        return False
    if role not in CATALOGUE[name].members:
        having = [n for n, dataset in CATALOGUE.items() if role in dataset.members]
        raise ConfigError(
            f"data.{role} is {name!r}, a built-in data set without such rows, "
            f"{one_of(having)}."
        )
    return True


def _digest_of_now(data: DataConfig, uris: Mapping[str, str]) -> dict[str, str]:
    """Returns the days that a window comes to now, and the digest of their bytes.

    Raises:
        DataError: nothing lies behind a URI, or nothing in the window.
        StoreInputError: the bytes cannot be read from here.
    """
    window = Window.parse(data.window)
    if days := chosen_days(uris["source"], window):
        window = days.window
    digest = data.source_digest or content_digest(
        **uris, window=window, images=ImageLayout.of(data)
    )
    return {"window": str(window), "source_digest": digest}
