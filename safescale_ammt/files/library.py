"""The code that writes files: its release, and a digest of its sources."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from safescale_ammt import __version__
from safescale_ammt.files.canonical import digest_file, digest_json

_SHORT = 12


@lru_cache(maxsize=1)
def source_files() -> Mapping[str, str]:
    """Digests of the library's source files, by their names below it."""
    library = Path(__file__).parent.parent
    return {
        path.relative_to(library).as_posix(): digest_file(path)
        for path in library.rglob("*.py")
    }


def library_digest() -> str:
    """Digest of the library's source files alone; images are labelled with it."""
    # Without versions: the host that builds an image may have others than the image.
    return digest_json(dict(source_files()))


@lru_cache(maxsize=1)
def code_version() -> str:
    """The release and the start of the sources' digest, such as `0.1.0+3fd1a2cc9e07`.

    Between two releases words change too, and whoever writes them again must know
    whether it is the same code that does.
    """
    return f"{__version__}+{library_digest().removeprefix('sha256:')[:_SHORT]}"
