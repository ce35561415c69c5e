"""Which code computes: a digest of the library and of what it computes with."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

from safescale_ammt.files.canonical import digest_file, digest_json

_COMPUTES_WITH = ("numpy", "pyarrow", "safetensors", "scipy", "torch")


def code_digest() -> str:
    """Digest of the library's source files and of what it computes with."""
    versions = {name: _version(name) for name in _COMPUTES_WITH}
    versions["python"] = platform.python_version()
    return digest_json({"files": _source_files(), "versions": versions})


def library_digest() -> str:
    """Digest of the library's source files alone; images are labelled with it."""
    return digest_json(_source_files())


def _source_files() -> dict[str, str]:
    library = Path(__file__).parent
    return {
        path.relative_to(library).as_posix(): digest_file(path)
        for path in library.rglob("*.py")
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
