"""Which model, verdict or run a person means by a word on the command line.

    DIR              a bundle, an artifact or the folder of a run (`runs/latest`)
    s3://, file://   the address of a bundle or an artifact
    3, champion      a version in the registry
    20261129-1504    a run, by the start of its id, in the folder of runs

A folder of that name wins; then what the word looks like decides, never what happens
to be there: a version is a number or one of its states, a run begins with its day.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.local.runfile import RUN, read_record, read_run
from pipelines.local.store import opened_store
from safescale_ammt.errors import InputError, IntegrityError, one_of
from safescale_ammt.files.artifacts import MANIFEST, read_manifest
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.versions import Version
from safescale_ammt.store.base import Store
from safescale_ammt.store.environment import registry_environ, registry_variable
from safescale_ammt.store.protected import made_whole
from safescale_ammt.store.shards import check_shards
from safescale_ammt.store.uri import STORE, open_store, split_uri

PREFIX = "registry/"
"""The keys below which `releasing.registry` keeps each name."""
EMBEDDED = "s3://safescale"
"""The embedded store's URI: its addresses need it, and those of other buckets not."""
VERSION = re.compile(
    r"v?\d{1,7}|champion|pending|latest|superseded|lost_race|rejected|revoked"
)
"""What looks like a version in the registry."""
_RUN = re.compile(r"\d{8}[-\da-f]*")


@dataclass(frozen=True)
class Places:
    """Where words are looked up.

    Attributes:
        store: URI of the object store; None = the environment's, or the embedded one.
        name: registered model; None = the only one there is.
        runs: folder of runs.
    """

    store: str | None = None
    name: str | None = None
    runs: Path = Path("runs")


@dataclass(frozen=True)
class Found:
    """What a word came to.

    Attributes:
        folder: on this disk: a bundle, or an artifact. Not verified.
        title: what it is, for people.
        digest: what was recorded of the bundle elsewhere; "" = nothing was asked.
        version: that the word names in a registry, None if it names none.
        registered: what a run's record tells of its version; `status_now` asks the
            registry what became of it.
        anchor: who vouches for the digest, for people; "" = nobody does: a run's own
            record lies with whoever made the bundle.
        store: URI of the store that it was looked for in; None = nobody named one.
    """

    folder: Path
    title: str
    digest: str = ""
    version: Version | None = None
    anchor: str = ""
    registered: Mapping[str, Any] = field(default_factory=dict)
    store: str | None = None


@contextmanager
def found(word: str, places: Places) -> Iterator[Found]:
    """Finds what a word means; what lies elsewhere is here while the context lasts.

    Raises:
        InputError: it names nothing, or more than one thing.
        StorageError: the store fails.
    """
    path = Path(word)
    run = path.parent if path.name == RUN else path
    with ExitStack() as stack:
        if word and (run / RUN).is_file():
            record = read_record(run / RUN)
            yield stack.enter_context(of_run(record, places))
        elif word and path.is_dir():
            folder = stack.enter_context(with_rows(path, places.store))
            yield Found(folder, str(path), store=places.store)
        elif "://" in word:
            folder = stack.enter_context(fetched(word, places.store))
            folder = stack.enter_context(with_rows(folder, places.store))
            yield Found(folder, word, store=places.store)
        elif VERSION.fullmatch(word):
            yield stack.enter_context(of_version(word, places))
        elif _RUN.fullmatch(word):
            record = read_run(places.runs, word)
            yield stack.enter_context(of_run(record, places))
        else:
            raise InputError(
                f"{word!r} is no folder and names no model, verdict or run: expected a "
                "folder, an s3:// address, a version (3, champion, pending, latest) "
                "or the id of a run (runs/latest, 20261129-150405-a1b2c3)."
            )


@contextmanager
def of_version(word: str, places: Places) -> Iterator[Found]:
    """Downloads the bundle of a registered version, checked by its digest.

    Raises:
        InputError: there is no such version.
        IntegrityError: the bundle is not what was registered.
    """
    with opened_store(places.store, reads_only=True) as store:
        registry = chosen_registry(store, places.name)
        version = registry.show(word)
        with tempfile.TemporaryDirectory() as folder:
            registry.get_bundle(version, folder)
            yield Found(
                Path(folder),
                f"{registry.name} version {version.number}",
                version.entry.bundle_digest,
                version,
                f"event {version.event} of {store.uri}/{PREFIX}{registry.name}",
                store=places.store,
            )


@contextmanager
def of_run(record: Mapping[str, Any], places: Places) -> Iterator[Found]:
    """Finds the bundle of a run, or its verdict if it registered nothing.

    A verdict is read where the run has left it on this disk, else from its store.

    Raises:
        InputError: the run has made no verdict.
    """
    version, artifacts = record["version"] or {}, record["artifacts"]
    bundle = version.get("bundle", "")
    if not bundle and "verdict" not in artifacts:
        how = str(record["sentence"]).rstrip(".") or "it goes on, or was killed"
        raise InputError(
            f"Run {record['run']} has made no verdict ({how}), so there is nothing of "
            "it to look at."
        )
    store = places.store or os.environ.get(STORE) or record.get("store")
    with ExitStack() as stack:
        if bundle:
            folder = stack.enter_context(fetched(bundle, store))
        else:
            folder = Path(artifacts["verdict"]["path"])
            if not folder.is_dir():
                folder = stack.enter_context(
                    fetched(artifacts["verdict"]["uri"], store)
                )
            folder = stack.enter_context(with_rows(folder, store))
        yield Found(
            folder,
            f"run {record['run']}",
            version.get("bundle_digest", ""),
            registered=version if bundle else {},
            store=store,
        )


@contextmanager
def with_rows(folder: Path, store: str | None) -> Iterator[Path]:
    """Gives an artifact whole: what lies apart is fetched, and goes afterwards.

    Args:
        folder: an artifact, or anything else, which is given as it is.
        store: URI of the store of data; None = the environment's, or the embedded one.

    Raises:
        InputError: its rows are not there.
        IntegrityError: artifact or rows were changed.
    """
    manifest = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    with ExitStack() as stack:
        if manifest and any(entry.apart for entry in manifest.files.values()):
            chosen = None if store == EMBEDDED else store
            opened = stack.enter_context(opened_store(chosen, reads_only=True))
            if manifest.kind == "dataset":
                # Read where they lie: they may be more than this disk has room for.
                check_shards(opened, manifest)
            else:
                whole = made_whole(opened, folder, manifest.kind)
                folder = stack.enter_context(whole)
        yield folder


def status_now(meant: Found, store: str | None) -> str:
    """Returns the status of a version, or of a run's, in its registry by now.

    Args:
        meant: what a word came to.
        store: as for `fetched`.

    Returns:
        "" for what is no version of a registry.

    Raises:
        InputError: the registry has no such version.
        IntegrityError: its log was tampered with, or the run's record names a version
            with another bundle than what was found.
    """
    if not meant.registered:
        return meant.version.status if meant.version else ""
    name = meant.registered["registry"]
    root, _, _ = meant.registered["bundle"].rpartition(f"/{PREFIX}{name}/")
    with opened_home(f"{root}/{PREFIX}", store) as (home, _):
        version = Registry(home, name).show(meant.registered["version"])
    # By the registry's word, not by that of a record or a store that others write to:
    # neither another number nor another bundle in its place lends a status.
    identity = read_manifest(meant.folder).identity
    if identity != version.entry.bundle_digest:
        raise IntegrityError(
            f"{meant.title} names {name} version {version.number}, whose registered "
            f"bundle is {version.entry.bundle_digest}; found {identity}."
        )
    return version.status


@contextmanager
def fetched(uri: str, store: str | None) -> Iterator[Path]:
    """Downloads what lies below an address into a folder that goes afterwards.

    Args:
        uri: of a bundle or an artifact.
        store: the store whose keys are needed; None = that of the environment, or of
            the address itself.

    Raises:
        StoreInputError: nothing is there, or it needs keys.
    """
    with (
        opened_home(uri, store) as (home, key),
        tempfile.TemporaryDirectory() as folder,
    ):
        home.download_folder(key, folder)
        # Said of the address: the folder is ours, and a moment old.
        if not Path(folder, MANIFEST).is_file():
            raise InputError(
                f"{uri} is the address of no bundle and no artifact: it has no "
                f"{MANIFEST}."
            )
        yield Path(folder)


@contextmanager
def opened_home(uri: str, store: str | None) -> Iterator[tuple[Store, str]]:
    """Gives the store that an address lies in, and its key there; see `fetched`."""
    home, key = split_uri(uri)
    with ExitStack() as stack:
        # A folder's URI needs no store and no key, as its path needs none.
        if not home.startswith("file:"):
            own = store or os.environ.get(STORE) or home
            chosen = None if own == EMBEDDED else own
            opened = stack.enter_context(opened_store(chosen, reads_only=True))
            if chosen is None and opened.uri != home:
                raise InputError(f"{uri} does not exist: nothing is stored here yet.")
        # A registry with keys of its own is read with these.
        environ: Mapping[str, str] = os.environ
        registry = environ.get(registry_variable(STORE), "").rstrip("/")
        if registry and uri.startswith(f"{registry}/"):
            environ = registry_environ(environ)
        yield open_store(home, environ=environ), key


def registered_names(store: Store) -> list[str]:
    """Returns the names under which something is registered, sorted."""
    keys = (info.key.removeprefix(PREFIX) for info in store.list(PREFIX))
    # The gate keeps the ledger's anchor there too: no model's name begins so.
    return sorted({key.split("/")[0] for key in keys if not key.startswith("_")})


def chosen_registry(store: Store, name: str | None) -> Registry:
    """Opens the registry of a name, or of the only name there is.

    Raises:
        InputError: nothing has that name, or there are several and none is given.
    """
    names = registered_names(store)
    if not names:
        raise InputError(f"Nothing is registered in {store.uri}.")
    # Nobody with one model has to name it; with two, a guess could be the wrong one.
    if name is None and len(names) == 1:
        name = names[0]
    if name is None:
        raise InputError(
            f"{len(names)} models are registered in {store.uri}, so --name has to say "
            f"which is meant, {one_of(names)}."
        )
    if name not in names:
        raise InputError(
            f"--name is {name!r}, but {store.uri} has no such registered model, "
            f"{one_of(names, name)}."
        )
    return Registry(store, name)
