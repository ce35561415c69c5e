"""Which code computes: a digest of the library and of what it computes with."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from safescale_ammt.files.canonical import digest_file, digest_json

# Another version of one of these may give other bits or files; a client library
# (minio, kubernetes) cannot.
_COMPUTES_WITH = ("numpy", "pyarrow", "safetensors", "scipy", "torch")


def code_digest() -> str:
    """Digest of the library's source files and of what it computes with."""
    versions = {"python": platform.python_version()}
    for name in _COMPUTES_WITH:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # Slim images have no torch.
            versions[name] = ""
    return digest_json({"files": _source_files(), "versions": versions})


def library_digest() -> str:
    """Digest of the library's source files alone; images are labelled with it."""
    # Without versions: the host that builds an image may have others than the image.
    return digest_json(_source_files())


def _source_files() -> dict[str, str]:
    library = Path(__file__).parent
    return {
        path.relative_to(library).as_posix(): digest_file(path)
        for path in library.rglob("*.py")
    }
