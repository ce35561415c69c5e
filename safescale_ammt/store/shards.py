"""Rows of a dataset that lie apart: shards in the store of data, one at a time here.

    whoever prepares  --put_shard-->   datasets/<hex of the file's sha256>
    the manifest      its digest and size; its identity is as with the file inside
    a reader          --Shards-->      a file without a name, gone once it is read

A key is read from the bytes alone (`files.shards`), so a worker that is killed, tried
again or asked twice writes equal bytes to an equal key. No pod needs room for more than
one shard, and nobody who reads a dataset with its rows inside needs a store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import BinaryIO

from safescale_ammt.errors import InputError, StoreInputError
from safescale_ammt.files.artifacts import FileEntry, Manifest
from safescale_ammt.files.canonical import digest_file
from safescale_ammt.files.disk import local_disk, nameless
from safescale_ammt.files.regular import Readable
from safescale_ammt.files.shards import DATASETS, shards_of
from safescale_ammt.store.base import Store
from safescale_ammt.store.environment import DATASET_STORE, dataset_store
from safescale_ammt.store.protected import copy_checked, told_what_for
from safescale_ammt.store.uri import STORE

_NEED = (
    f"rows of a dataset that lie apart are below {DATASETS}, which the key of "
    f"{DATASET_STORE}, else of {STORE}, has to read"
)


def put_shard(store: Store, path: Path) -> FileEntry:
    """Puts a whole shard into the store, unless it is there.

    Args:
        store: of data.
        path: the file, written to its end.

    Returns:
        What the dataset's manifest says of it: `draft.apart[name] = put_shard(...)`.

    Raises:
        StoreInputError: the store's key may not write below `DATASETS`.
        StorageError: the store or this disk fails, or there is no room.
    """
    need = f"who prepares data has to read, list and write {DATASETS}"
    with local_disk(f"reading {path}"), told_what_for(need):
        digest = digest_file(path, follow=False)
        key = DATASETS + digest.partition(":")[2]
        info = store.stat(key)
        if info is None or not store.holds(info, path):
            store.put(key, path)
        return FileEntry(digest, path.stat().st_size, apart=True)


@dataclass(frozen=True)
class Shards:
    """The files of a dataset's splits, wherever each lies.

    Attributes:
        folder: the artifact, verified.
        manifest: of it.
        environ: names the store of what lies apart; opened only if something does.
        beside: what the reader writes: fetched shards lie on the disk that takes it;
            None = where temporary files lie.
    """

    folder: Path
    manifest: Manifest
    environ: Mapping[str, str]
    beside: Path | None = None

    def of(self, split: str) -> list[Readable]:
        """Returns the files of a split, in the order of its rows.

        Opened, one that lies apart is fetched and checked, and gone when it is closed:
        a reader takes one after the other, each once.
        """
        files = []
        for name in shards_of(split, self.manifest.files):
            if self.apart(name):
                place = f"{self.store.uri}/{self.manifest.place(name)}"
                files.append(Readable(place, partial(self.fetched, name)))
            else:
                files.append(Readable.of(self.folder / name))
        return files

    def apart(self, name: str) -> bool:
        """Says whether a file is not in the folder, but in the store."""
        return name in self.manifest.files and self.manifest.files[name].apart

    @cached_property
    def store(self) -> Store:
        """The store of what lies apart.

        Raises:
            InputError: the environment names none.
        """
        try:
            return dataset_store(self.environ)
        except StoreInputError:
            raise
        except InputError:
            raise InputError(
                f"{self.folder} has its rows apart, in the store in which they were "
                f"prepared, and neither {DATASET_STORE} nor {STORE} names a store; set "
                "one to s3://BUCKET or file:///PATH."
            ) from None

    @contextmanager
    def fetched(self, name: str) -> Iterator[BinaryIO]:
        """Gives the bytes of a shard that lies apart, every one checked.

        Raises:
            InputError: it is not in the store.
            IntegrityError: it has other bytes than the manifest recorded.
            StorageError: the store or this disk fails, or there is no room.
        """
        with nameless(self.beside) as file:
            fetching = local_disk(f"fetching {self.manifest.place(name)}")
            with fetching, told_what_for(_NEED):
                copy_checked(self.store, self.manifest, name, file)
                file.flush()
            file.seek(0)
            yield file


def check_shards(store: Store, manifest: Manifest) -> None:
    """Reads every byte of a dataset that lies apart, and keeps none.

    Raises:
        InputError, IntegrityError, StorageError: as `Shards.fetched`.
    """
    for name, entry in sorted(manifest.files.items()):
        if entry.apart:
            with told_what_for(_NEED):
                copy_checked(store, manifest, name)
