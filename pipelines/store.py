"""The object store of a command: the one that was named, or the embedded one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.state import HOME
from safescale_ammt.storage import Store, open_store

VARIABLE = "SAFESCALE_STORE"


@dataclass(frozen=True)
class Place:
    """An object store that is up.

    Attributes:
        uri: `s3://bucket[/prefix]` or `file:///folder`.
        identity: the same store has the same identity in every run.
    """

    uri: str
    identity: str

    def open(self) -> Store:
        """Opens the store with the environment's credentials."""
        return open_store(self.uri)


@contextmanager
def opened(uri: str | None) -> Iterator[Place]:
    """Opens `uri`, else the store of the environment, else the embedded store.

    While it is open, this process' environment holds its place and keys, as a
    stage finds them on Kubernetes.
    """
    uri = uri or os.environ.get(VARIABLE)
    if uri:
        endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        identity = f"{uri} {endpoint if uri.startswith('s3://') else ''}"
        with _environment({VARIABLE: uri}):
            yield Place(uri, identity)
        return
    from safescale_ammt.embedded import EmbeddedStore

    folder = HOME.absolute() / "store"
    with EmbeddedStore(folder) as embedded:
        with _environment({VARIABLE: embedded.uri, **embedded.environ}):
            yield Place(embedded.uri, f"embedded {folder}")


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
