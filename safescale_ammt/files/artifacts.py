"""Artifacts: folders with a manifest, written aside and verified before use.

A folder is an artifact once it holds `manifest.json`; the folder is written
under a temporary name beside its final path and moved there in one rename, so that
a kill at any moment leaves either no artifact or a whole one.

There are digests of two kinds. Every file has its sha256. The *identity* digest
covers only what the work produced (weights, schema, evidence, parents), never
times, hosts or event logs: the same work twice has the same identity.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safescale_ammt.errors import InputError, IntegrityError, StorageError
from safescale_ammt.files.canonical import (
    digest_bytes,
    digest_file,
    digest_json,
    json_file,
    write_json,
)
from safescale_ammt.files.disk import NO_ROOM, keep_private, private_folder
from safescale_ammt.files.json_text import LARGEST, JsonError, parse_json
from safescale_ammt.files.library import code_version
from safescale_ammt.files.regular import read_regular, walk
from safescale_ammt.files.shards import DATASETS, is_shard
from safescale_ammt.files.typed_json import build

MANIFEST = "manifest.json"
EXECUTION = "execution.json"
SCHEMA_VERSION = 1
PROTECTED = "sealed/"
"""Beginning of the keys that prepare, judge and gate alone open: what tells of sealed
rows one by one lies there (`store.protected`)."""
APART = {
    "holdout": frozenset(
        ("sealed.parquet", "sampling.json", "keys.parquet", "parts.parquet")
    ),
    "verdict": frozenset(("evidence.parquet",)),
}
"""Kind of artifact -> its files that lie there, and in no artifact of a run.

Shards of a dataset may lie apart too, elsewhere (`files.shards`)."""


@dataclass(frozen=True)
class FileEntry:
    """What a manifest says of one file.

    Attributes:
        sha256: digest of its bytes.
        size: bytes.
        identity: whether it is part of the artifact's identity.
        apart: whether it lies in the store of data (`Manifest.place`), and not in the
            folder.
    """

    sha256: str
    size: int
    identity: bool = True
    apart: bool = False


@dataclass(frozen=True)
class Manifest:
    """What an artifact holds, who made it and from what.

    Attributes:
        kind: what the artifact is, such as `dataset` or `model`.
        stage: the stage that wrote it.
        files: entries by name, relative to the folder.
        parents: role -> identity digest of an artifact that was read.
        config_digest: digest of the stage's config section.
        code_version: version of the library.
        schema: of the manifest's own form.
    """

    kind: str
    stage: str
    files: Mapping[str, FileEntry]
    parents: Mapping[str, str]
    config_digest: str
    code_version: str
    schema: int = SCHEMA_VERSION

    @property
    def identity(self) -> str:
        """Digest of kind, identity files and parents; equal for equal work."""
        # Stage, config and code version stay out: they say how the work was done.
        files = {n: e.sha256 for n, e in self.files.items() if e.identity}
        return digest_json(
            {
                "schema": self.schema,
                "kind": self.kind,
                "files": files,
                "parents": dict(self.parents),
            }
        )

    def place(self, name: str) -> str:
        """Returns where a file that lies apart is in the store; equal for equal work.

        Other bytes have another digest, so that no object there is ever replaced by
        another one. Of a dataset it is the digest of the file alone: who writes a shard
        knows neither the other files nor the identity that they will have.
        """
        if self.kind == "dataset":
            return DATASETS + self.files[name].sha256.partition(":")[2]
        _, _, hexdigits = self.identity.partition(":")
        return f"{PROTECTED}{self.kind}/{hexdigits}/{name}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form, with its identity and the digest of all the rest."""
        files = {
            name: {"sha256": e.sha256, "size": e.size, "identity": e.identity}
            | ({"place": self.place(name)} if e.apart else {})
            for name, e in self.files.items()
        }
        whole = {
            "schema": self.schema,
            "kind": self.kind,
            "stage": self.stage,
            "files": files,
            "parents": dict(self.parents),
            "config_digest": self.config_digest,
            "code_version": self.code_version,
            "identity": self.identity,
        }
        return {**whole, "digest": digest_json(whole)}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Manifest:
        """Parses the JSON form.

        Raises:
            KeyError, TypeError: the form is not that of a manifest.
        """
        # All three follow from the rest, and are compared with it.
        stated = {k: v for k, v in raw.items() if k not in ("identity", "digest")}
        files = {}
        for name, entry in stated["files"].items():
            files[name] = {k: v for k, v in entry.items() if k != "place"}
            if "place" in entry:
                shard = stated["kind"] == "dataset" and is_shard(name)
                if not (shard or name in APART.get(stated["kind"], ())):
                    raise TypeError(f"{name} lies apart")
                files[name]["apart"] = True
        return build(cls, {**stated, "files": files})


@dataclass
class Draft:
    """An artifact being written: put files under `folder`, then leave.

    `outside_identity` names files that are hashed but are no part of the
    identity (event logs, times); `parents` maps a role to the identity digest
    of the artifact that was read; `apart` holds what lies in the store instead;
    `code_version` says which code made it.
    """

    folder: Path
    parents: dict[str, str] = field(default_factory=dict)
    outside_identity: set[str] = field(default_factory=lambda: {EXECUTION})
    apart: dict[str, FileEntry] = field(default_factory=dict)
    code_version: str = field(default_factory=code_version)


@contextmanager
def writing(
    path: Path | str,
    *,
    kind: str,
    stage: str,
    config_digest: str = "",
    parents: Mapping[str, str] | None = None,
) -> Iterator[Draft]:
    """Writes an artifact aside, then moves it to `path` in one rename.

    Nothing appears at `path` if the body raises or the process dies. Something
    that is already there is replaced. It is its owner's alone (`disk.keep_private`).

    Raises:
        InputError: `path` is a file.
        StorageError: the disk is full.

    Example:
        with writing(out, kind="dataset", stage="prepare_data") as draft:
            write_json(draft.folder / "schema.json", schema)
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; an artifact is written as a folder.")
    private_folder(path.parent)
    # Beside `path`, since a rename is atomic on one file system only.
    aside, old = _beside(path, "partial"), _beside(path, "old")
    # Whatever is in it is private from its first byte on, whatever its own mode.
    aside.mkdir(mode=0o700)
    try:
        draft = Draft(aside, dict(parents or {}))
        yield draft
        manifest = describe(aside, draft, kind, stage, config_digest)
        write_json(aside / MANIFEST, manifest.to_dict())
        keep_private(aside, *aside.rglob("*"))
        if path.exists():
            # Out of the way whole: a kill while it is deleted leaves no half of it.
            path.replace(old)
        aside.replace(path)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StorageError(
            f"{path} could not be written, the disk has no room left; free some and "
            "run again."
        ) from None
    finally:
        # Well done, `aside` is gone already and `old` is what it has replaced.
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, ending: str) -> Path:
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.{ending}"


def describe(
    folder: Path, draft: Draft, kind: str, stage: str, config_digest: str
) -> Manifest:
    """Hashes every file below `folder` into a manifest."""
    files = {
        name: FileEntry(
            digest_file(folder / name, follow=False),
            (folder / name).stat().st_size,
            name not in draft.outside_identity,
        )
        for name in file_names(folder)
    }
    files |= draft.apart
    return Manifest(
        kind, stage, files, draft.parents, config_digest, draft.code_version
    )


def describe_contents(
    contents: Mapping[str, bytes], draft: Draft, kind: str, stage: str, config: str
) -> Manifest:
    """Hashes files that are not written yet into the manifest that they will have."""
    files = {
        name: FileEntry(
            digest_bytes(data), len(data), name not in draft.outside_identity
        )
        for name, data in sorted(contents.items())
    }
    return Manifest(kind, stage, files, draft.parents, config, draft.code_version)


def file_names(folder: Path) -> list[str]:
    """Lists what is no folder below a folder, relative, sorted, manifest left out."""
    return sorted(name for name in walk(folder) if name != MANIFEST)


def read_manifest(path: Path | str, kind: str | None = None) -> Manifest:
    """Reads a manifest and checks its own identity digest and spelling.

    Raises:
        InputError: no manifest, or one of another kind or schema.
        IntegrityError: the manifest was changed after it was written.
    """
    file = Path(path) / MANIFEST
    data = read_regular(file, LARGEST, follow=False)
    try:
        raw = parse_json(data)
        manifest = Manifest.from_dict(raw)
        expected = manifest.to_dict()
        canonical = json_file(raw)
    except JsonError as error:
        raise InputError(f"{file} is not JSON ({error}).") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{file} is not the manifest of an artifact.") from None
    if manifest.schema != SCHEMA_VERSION:
        raise InputError(
            f"{file} has schema {manifest.schema}, this version reads {SCHEMA_VERSION}."
        )
    # Bytes too: by values a repeated key would pass, and readers see two manifests.
    if raw != expected or data != canonical:
        raise IntegrityError(
            f"{file} was changed after it was written: it states digest "
            f"{raw.get('digest')}, its contents have {expected['digest']}."
        )
    if kind is not None and manifest.kind != kind:
        raise InputError(
            f"{file.parent} is a {manifest.kind} artifact, expected a {kind} artifact."
        )
    return manifest


def digest_of(file: Path, entry: FileEntry) -> str:
    """Returns the digest of a file of an artifact.

    Raises:
        IntegrityError: it is a link, a pipe or the like, or far larger than recorded.
    """
    try:
        size = file.lstat().st_size
        if size > max(entry.size, LARGEST):
            # Not hashed: a file with a hole may take days.
            raise IntegrityError(
                f"{file} was changed: the manifest recorded {entry.size:,} bytes, "
                f"found {size:,}."
            )
        # What a link leads to may change after this check, or lie outside the folder.
        return digest_file(file, follow=False)
    except InputError as error:
        raise IntegrityError(str(error)) from None


def verify(path: Path | str, kind: str | None = None) -> Manifest:
    """Checks every byte of an artifact against its manifest; links are refused.

    What lies apart is not in the folder: who reads it checks it (`store.protected`,
    `store.shards`).

    Raises:
        InputError: this is no artifact, or one of another kind.
        IntegrityError: a file is missing, added or changed; the sentence holds
            the recorded and the actual digest.
    """
    path = Path(path)
    manifest = read_manifest(path, kind)
    present = set(file_names(path))
    inside = {name: e for name, e in manifest.files.items() if not e.apart}
    for name in sorted(present ^ inside.keys()):
        state = "was added to" if name in present else "is missing from"
        raise IntegrityError(f"{name} {state} the {manifest.kind} artifact {path}.")
    for name, entry in inside.items():
        digest = digest_of(path / name, entry)
        if digest != entry.sha256:
            raise IntegrityError(
                f"{path / name} was changed: the manifest recorded "
                f"{entry.sha256}, found {digest}."
            )
    return manifest
