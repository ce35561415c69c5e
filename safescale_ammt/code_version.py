"""Which code computes: a digest of the library and of what it computes with."""

from __future__ import annotations

import platform
from importlib import metadata

from safescale_ammt.files.canonical import digest_json
from safescale_ammt.files.library import source_files

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
    return digest_json({"files": dict(source_files()), "versions": versions})
