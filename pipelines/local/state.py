"""What `safescale` keeps in `.safescale/` of the working folder.

    .safescale/store/                    the embedded object store
    .safescale/data/                     files of built-in data sets
    .safescale/pipeline-root/<digest>/   artifacts and KFP's cache
    .safescale/compiled/<digest>.yaml    the pipeline as this code compiles it
    .safescale/containers/<run>.lock     held while a run in containers lives

The pipeline root's name is a digest of the library's code, the versions of what
it computes with, and the store: KFP's cache key sees neither, so a cached stage
must not outlive a change of them. (The key does see the image of a stage that runs
in a container, by its id.)
"""

from __future__ import annotations

from pathlib import Path

from safescale_ammt.code_version import code_digest
from safescale_ammt.execution import traceback_lines
from safescale_ammt.files.canonical import digest_json

HOME = Path(".safescale")
DOWNLOADS = HOME / "data"
"""Files of built-in data sets, checked when they are used."""


def pipeline_root(store: str) -> Path:
    """Returns the folder that artifacts and cache stay in.

    Args:
        store: identity of the object store (its URI may hold a passing port).
    """
    # The whole digest would make paths too long to read; 64 bits tell folders apart.
    digest = digest_json({"code": code_digest(), "store": store})
    return HOME.absolute() / "pipeline-root" / digest.removeprefix("sha256:")[:16]


def log_failure(error: BaseException, file: Path = HOME / "log.txt") -> Path:
    """Appends a traceback, which quotes no row, to a log; returns where it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as log:
        log.writelines(traceback_lines(error))
    return file
