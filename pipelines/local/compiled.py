"""The pipeline as this code compiles it, kept once it was compiled."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path

import components
from pipelines.local.state import HOME
from safescale_ammt.code_version import code_digest
from safescale_ammt.files.canonical import digest_file, digest_json

_COMPILES = ("kfp", "kfp-kubernetes", "kfp-pipeline-spec")


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
