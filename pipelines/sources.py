"""Where the rows lie: names and paths of a workload become URIs, with a digest.

Stages only ever see URIs. A built-in name is resolved here: fetched, checked and
put into the object store. So is the digest of the raw bytes: KFP's cache key
sees a URI but not what lies behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.local.state import HOME
from pipelines.local.store import Place
from pipelines.workload import Workload
from safescale_ammt.config.window import Window
from safescale_ammt.data.catalogue import CATALOGUE
from safescale_ammt.data.fetching import fetch_to_store
from safescale_ammt.data.sources import chosen_days, content_digest
from safescale_ammt.errors import ConfigError, one_of


def fetched(name: str, place: Place) -> Mapping[str, str]:
    """Brings a built-in data set into the store; returns a URI for each role.

    Raises:
        InputError: no such data set.
        IntegrityError: other bytes than those the catalogue names.
        StorageError: it cannot be downloaded or stored.
    """
    return fetch_to_store(name, place.open(), HOME.absolute() / "data")


def resolved(workload: Workload, place: Place, folder: Path) -> Workload:
    """Returns the workload with URIs for its sources and the digest of their bytes.

    The newest days become the days that they are now, so that the run's record
    and KFP's cache key name them.

    Args:
        workload: sources may be URIs, built-in names, or paths from the working
            folder or from `folder`.
        place: the store that built-in data sets go to.
        folder: the folder of the workload file.

    Raises:
        ConfigError: no source, or one that is none of these.
        DataError: nothing lies behind a URI.
    """
    data = workload.data
    if not data.source:
        raise ConfigError(
            "data.source is empty; name a URI, a file or a built-in data set, "
            f"{one_of(CATALOGUE)}."
        )
    found: dict[str, Any] = {
        role: _uri(role, getattr(data, role), place, folder)
        for role in ("source", "sealed_source")
        if getattr(data, role)
    }
    window = Window.parse(data.window)
    if days := chosen_days(found["source"], window):
        window = days.window
    if not data.source_digest:
        found["source_digest"] = content_digest(**found, window=window)
    return workload.replace("data", **found, window=str(window))


def _uri(role: str, name: str, place: Place, folder: Path) -> str:
    if "://" in name:
        return name
    if name in CATALOGUE:
        return fetched(name, place)[role]
    for path in (Path(name), folder / name):
        if path.exists():
            return path.resolve().as_uri() + ("/" if path.is_dir() else "")
    raise ConfigError(
        f"data.{role} is {name!r}: no URI, no file in {Path.cwd()} or {folder}, and no "
        f"built-in data set, {one_of(CATALOGUE)}."
    )
