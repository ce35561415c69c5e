"""What `safescale` keeps in `.safescale/` of the working folder.

    .safescale/store/                    the embedded object store
    .safescale/pipeline-root/<digest>/   artifacts and KFP's cache

The pipeline root's name is a digest of the library's code, the versions of what
it computes with, and the store: KFP's cache key sees neither, so a cached stage
must not outlive a change of them.
"""

from __future__ import annotations

import platform
import traceback
from importlib import metadata
from pathlib import Path

import safescale_ammt
from safescale_ammt.artifacts import digest_file, digest_json

HOME = Path(".safescale")
_COMPUTES_WITH = ("numpy", "pyarrow", "safetensors", "scipy", "torch")


def code_digest() -> str:
    """Digest of the library's source files and of what it computes with."""
    library = Path(safescale_ammt.__file__).parent
    files = {
        path.relative_to(library).as_posix(): digest_file(path)
        for path in library.rglob("*.py")
    }
    versions = {name: _version(name) for name in _COMPUTES_WITH}
    versions["python"] = platform.python_version()
    return digest_json({"files": files, "versions": versions})


def pipeline_root(store: str) -> Path:
    """Returns the folder that artifacts and cache stay in.

    Args:
        store: identity of the object store (its URI may hold a passing port).
    """
    digest = digest_json({"code": code_digest(), "store": store})
    return HOME.absolute() / "pipeline-root" / digest.removeprefix("sha256:")[:16]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def log_failure(error: BaseException, file: Path = HOME / "log.txt") -> Path:
    """Appends a traceback to a log file and returns where it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as log:
        log.writelines(traceback.format_exception(error))
    return file
