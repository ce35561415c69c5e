"""What tells of sealed rows one by one: apart from its artifact, in the store of data.

Every pod of a run can read the artifacts of KFP, training and search among them. So
the sealed rows, their keys and the evidence lie below `sealed/` of the store of data
(`files.artifacts.PROTECTED`), which only the keys of prepare, judge and gate open. An
artifact has their digests, sizes and places in its manifest:

    whole artifact, in a private folder  --set_apart-->  artifact of the run + store
    artifact of the run + store          --made_whole->  whole artifact, for a while

Both have one identity. A place follows from it (`Manifest.place`), so that equal work
writes equal bytes to equal keys: a repeat after a kill sends what is missing, and
an artifact appears only after all that it names is there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from safescale_ammt.errors import InputError, IntegrityError, StoreInputError
from safescale_ammt.files.artifacts import (
    APART,
    MANIFEST,
    PROTECTED,
    Manifest,
    read_manifest,
    verify,
    writing,
)
from safescale_ammt.files.canonical import is_digest, write_json
from safescale_ammt.files.disk import CHUNK, keep_private, local_disk, private_folder
from safescale_ammt.store.base import ObjectInfo, Store
from safescale_ammt.store.environment import DATASET_STORE

_ANEW = {
    "holdout": "prepare the data anew, not from a cache (--no-cache)",
    "verdict": "judge the model anew, not from a cache (--no-cache)",
    "dataset": f"name the store in which it was prepared by {DATASET_STORE}, or "
    "prepare the data anew, not from a cache (--no-cache)",
}
"""Kind of artifact -> what writes its rows again."""
_NEED = (
    f"what tells of sealed rows lies below {PROTECTED}, which the key of prepare, "
    "judge and gate has to read, list and write"
)


@contextmanager
def private_scratch(beside: Path | None = None) -> Iterator[Path]:
    """Gives a folder that is nobody else's and goes afterwards.

    Args:
        beside: what a stage writes; None = in the folder for temporary files, which may
            be memory or small.
    """
    folder = None
    with local_disk("making a private folder"):
        if beside is not None:
            folder = beside.parent
            private_folder(folder)
        temporary = TemporaryDirectory(prefix=".safescale-", dir=folder)
    with temporary as scratch:
        keep_private(Path(scratch))
        yield Path(scratch)


def set_apart(store: Store, whole: Path, path: Path) -> Manifest:
    """Puts the rows of an artifact into the store, and writes the artifact of the run.

    Args:
        store: of data.
        whole: the whole artifact, in a private folder.
        path: folder to write, once the store has all that it names.

    Returns:
        The manifest of what was written.

    Raises:
        StoreInputError: the store's key does not open `PROTECTED`.
        StorageError: the store fails, or there is no room.
    """
    manifest = read_manifest(whole)
    inside = manifest.files.keys() - APART[manifest.kind]
    with told_what_for(), local_disk(f"reading {whole}"):
        for name in sorted(manifest.files.keys() - inside):
            key = manifest.place(name)
            info = store.stat(key)
            if info is None or not store.holds(info, whole / name):
                store.put(key, whole / name)
    with writing(
        path,
        kind=manifest.kind,
        stage=manifest.stage,
        config_digest=manifest.config_digest,
        parents=manifest.parents,
    ) as draft:
        # As it was made: of the two no byte differs but where the rows lie.
        draft.code_version = manifest.code_version
        for name, entry in manifest.files.items():
            if name not in inside:
                draft.apart[name] = replace(entry, apart=True)
                continue
            (draft.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(whole / name, draft.folder / name)
            if not entry.identity:
                draft.outside_identity.add(name)
    return read_manifest(path)


@contextmanager
def made_whole(
    store: Store, path: Path, kind: str, beside: Path | None = None
) -> Iterator[Path]:
    """Gives an artifact with its rows, every byte checked, while the context lasts.

    Args:
        store: of data.
        path: the artifact of a run.
        kind: `holdout` or `verdict`.
        beside: as in `private_scratch`.

    Raises:
        InputError: it is of another kind or of an earlier form, or its rows are not in
            the store.
        IntegrityError: a byte of artifact or rows was changed.
        StorageError: the store fails, or its key does not open `PROTECTED`.
    """
    manifest = verify(path, kind)
    check_apart(path, manifest)
    with private_scratch(beside) as scratch:
        folder, whole = scratch / kind, {}
        for name, entry in manifest.files.items():
            whole[name] = replace(entry, apart=False)
            with local_disk(f"copying {path / name}"):
                private_folder((folder / name).parent)
                if not entry.apart:
                    shutil.copyfile(path / name, folder / name)
                    keep_private(folder / name)
            if entry.apart:
                target = folder / name
                fetching = local_disk(f"fetching {manifest.place(name)}")
                with fetching, target.open("xb") as file, told_what_for():
                    keep_private(target)
                    copy_checked(store, manifest, name, file)
        with local_disk(f"writing {folder / MANIFEST}"):
            write_json(folder / MANIFEST, replace(manifest, files=whole).to_dict())
        yield folder


def check_apart(path: Path, manifest: Manifest) -> None:
    """Refuses an artifact that holds what has to lie apart.

    Raises:
        InputError: an earlier version wrote it.
    """
    for name in sorted(APART[manifest.kind] & manifest.files.keys()):
        if not manifest.files[name].apart:
            raise InputError(
                f"{path} is a {manifest.kind} artifact of an earlier form, with {name} "
                "in it, where every stage of a run can read it; "
                f"{_ANEW[manifest.kind]}."
            )


def copy_checked(
    store: Store, manifest: Manifest, name: str, file: BinaryIO | None = None
) -> None:
    """Copies a file that lies apart, and checks it while it streams.

    Args:
        store: of data.
        manifest: of the artifact.
        name: of the file.
        file: takes the bytes; None = they are only checked.

    Raises:
        InputError: it is not there.
        IntegrityError: it has other bytes than the manifest recorded.
        StorageError: the store fails.
        OSError: the disk has no room.
    """
    entry, kind, key = manifest.files[name], manifest.kind, manifest.place(name)
    info = store.stat(key)
    if info is None:
        raise InputError(
            f"{store.uri}/{key} is not there, though a {kind} artifact names it: it "
            f"was removed, or this is another store; {_ANEW[kind]}."
        )
    sha, found = hashlib.sha256(), f"{info.size:,} bytes"
    # By its size first: nobody waits for, or has the room for, an object put there.
    if info.size == entry.size:
        with store.open(key) as source:
            while chunk := source.read(CHUNK):
                sha.update(chunk)
                if file:
                    file.write(chunk)
        found = f"sha256:{sha.hexdigest()}"
    if found != entry.sha256:
        raise IntegrityError(
            f"{store.uri}/{key} was changed: the {kind} artifact recorded "
            f"{entry.sha256}, {entry.size:,} bytes, found {found}; {_ANEW[kind]}."
        )


@contextmanager
def told_what_for(need: str = _NEED) -> Iterator[None]:
    """Adds to what a store refuses who has to have that right.

    Raises:
        StoreInputError: the store refused something.
    """
    try:
        yield
    except StoreInputError as error:
        raise StoreInputError(f"{str(error).rstrip('.')}; {need}.") from None


@dataclass(frozen=True)
class Kept:
    """The rows of one artifact in the store, or all of a verdict behind an answer.

    Attributes:
        kind: of the artifact, `holdout` or `verdict`; `answer` of one bit.
        digest: its identity.
        size: bytes of all its files.
        written: when the last of them was, UTC.
        keys: of the files.
    """

    kind: str
    digest: str
    size: int
    written: datetime
    keys: tuple[str, ...]

    @classmethod
    def of(cls, kind: str, digest: str, infos: Sequence[ObjectInfo]) -> Kept:
        """Adds up what an artifact has in the store."""
        return cls(
            kind,
            digest,
            sum(info.size for info in infos),
            max(info.modified for info in infos),
            tuple(sorted(info.key for info in infos)),
        )


def all_kept(store: Store) -> list[Kept]:
    """Lists what lies below `PROTECTED`, the oldest first; other objects are left out.

    Raises:
        StorageError: the store fails, or its key does not open `PROTECTED`.
    """
    found: dict[tuple[str, str], list[ObjectInfo]] = {}
    with told_what_for():
        for info in store.list(PROTECTED):
            kind, _, rest = info.key.removeprefix(PROTECTED).partition("/")
            hexdigits, _, name = rest.partition("/")
            if name in APART.get(kind, ()) and is_digest(f"sha256:{hexdigits}"):
                found.setdefault((kind, f"sha256:{hexdigits}"), []).append(info)
    every = [Kept.of(kind, digest, infos) for (kind, digest), infos in found.items()]
    return sorted(every, key=lambda kept: (kept.written, kept.keys))
