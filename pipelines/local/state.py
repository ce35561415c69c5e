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

import os
from importlib import metadata
from pathlib import Path

import components
from safescale_ammt.code_version import code_digest
from safescale_ammt.execution import traceback_lines
from safescale_ammt.files.canonical import digest_file, digest_json

HOME = Path(".safescale")
_COMPILES = ("kfp", "kfp-kubernetes", "kfp-pipeline-spec")
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


def compiled_pipeline() -> str:
    """Returns the compiled training pipeline; the same code compiles it once.

    KFP's compiler and the Kubernetes client that it describes pods by take .6 CPU
    seconds, and their result is the same to the byte.
    """
    folders = [Path(components.__file__).parent, Path(__file__).parents[1]]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    made_of = {
        "code": code_digest(),
        "graph": {f"{f.parent.name}/{f.name}": digest_file(f) for f in files},
        "kfp": [metadata.version(name) for name in _COMPILES],
    }
    digest = digest_json(made_of).removeprefix("sha256:")
    file = HOME.absolute() / "compiled" / f"{digest[:16]}.yaml"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    from pipelines.compile import compile_train

    text = compile_train()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Two runs at once may both write it, each a file of its own.
    aside = file.with_suffix(f".{os.getpid()}.partial")
    aside.write_text(text, encoding="utf-8")
    aside.replace(file)
    return text


def log_failure(error: BaseException, file: Path = HOME / "log.txt") -> Path:
    """Appends a traceback, which quotes no row, to a log; returns where it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as log:
        log.writelines(traceback_lines(error))
    return file
