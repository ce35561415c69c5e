"""A registered bundle as a folder of this machine: whole, checked, in one step."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from safescale_ammt.errors import InputError
from safescale_ammt.files.disk import PARTIAL, local_disk, private_folder
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.versions import Version


def place_bundle(
    registry: Registry, version: Version, place: Path, *, replace: bool
) -> bool:
    """Downloads a version's bundle beside `place`, checks it and moves it there.

    Args:
        registry: that the version stands in.
        version: whose bundle is meant.
        place: folder to make; an empty one may be there.
        replace: whether anything else that is there may go.

    Returns:
        Whether something was replaced.

    Raises:
        InputError: something is there, and `replace` is not set.
        IntegrityError: the bytes are not what was registered; nothing is placed.
        StorageError: the store or the disk fails; nothing is placed.
    """
    refuse_if_taken(place, replace)
    # Beside it: a rename is one step within one file system only.
    aside = beside(place, PARTIAL)
    with local_disk(f"writing {place}"):
        try:
            private_folder(aside)
            registry.get_bundle(version, aside)
            return move_in(aside, place, replace)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def move_in(folder: Path, place: Path, replace: bool) -> bool:
    """Moves a folder to a place beside it; what is there goes, or nothing changes.

    Returns:
        Whether something was replaced.

    Raises:
        InputError: something is there, and `replace` is not set.
        OSError: the disk refuses.
    """
    # Looked at again after the download: another command may have been faster.
    taken = refuse_if_taken(place, replace)
    old = beside(place, ".old")
    if taken:
        place.rename(old)
    try:
        folder.rename(place)
    except OSError:
        # Faster by a moment; what was moved out of the way is not lost then.
        refuse_if_taken(place, replace=False)
        if taken:
            old.rename(place)
        raise
    if old.is_dir() and not old.is_symlink():
        shutil.rmtree(old)
    else:
        old.unlink(missing_ok=True)
    return taken


def beside(place: Path, ending: str) -> Path:
    """Returns a name in the same folder that nobody else has."""
    place = place.absolute()
    return place.parent / f".{place.name}.{uuid.uuid4().hex[:8]}{ending}"


def refuse_if_taken(place: Path, replace: bool) -> bool:
    """Says whether something is at a place that has to go first.

    Raises:
        InputError: a file, a link or a folder that is not empty, without `replace`.
    """
    empty = place.is_dir() and not place.is_symlink() and not any(place.iterdir())
    taken = (place.exists() or place.is_symlink()) and not empty
    if taken and not replace:
        raise InputError(
            f"{place} exists and is left as it is; name another folder, or --replace "
            "it."
        )
    return taken
