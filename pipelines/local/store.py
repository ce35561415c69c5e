"""The object store of a command: the one that was named, or the embedded one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from pipelines.local.state import HOME
from safescale_ammt.errors import PreconditionFailed
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import STORE, open_store

IDENTITY = "safescale-store-id"
"""Object that tells one store from another, and from itself after a wipe."""


@contextmanager
def opened_store(uri: str | None, *, reads_only: bool = False) -> Iterator[Store]:
    """Opens `uri`, else the store of the environment, else the embedded store.

    While it is open, this process' environment holds its place and keys, as a
    stage finds them on Kubernetes.

    Args:
        uri: of the store; None or "" = look further.
        reads_only: nothing will be written; an embedded store then ends without a
            wait, and one that nobody has made is an empty folder.
    """
    uri = uri or os.environ.get(STORE)
    if uri:
        with _environment({STORE: uri}):
            yield open_store(uri)
        return
    home = HOME.absolute() / "store"
    # To be told that nothing is there, nobody needs a server, and no folder of one.
    if reads_only and not (home / "data").is_dir():
        yield open_store((home / "data").as_uri())
        return
    from safescale_ammt.store.embedded.server import EmbeddedStore

    # Its address and keys are its own: nobody has to set a variable for them.
    with (
        EmbeddedStore(home, reads_only=reads_only) as embedded,
        _environment(embedded.environ),
    ):
        yield open_store(embedded.uri)


def store_identity(store: Store) -> str:
    """Returns who a store is, whatever its address; written on first use."""
    # Of two first runs at once, one writes it and both read the same.
    with suppress(PreconditionFailed):
        store.put(IDENTITY, uuid.uuid4().hex.encode(), if_absent=True)
    return store.get(IDENTITY).decode()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
