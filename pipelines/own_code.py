"""A user's own code: found on this machine, packed, and pinned in the workload.

Stages never look for a package: they are handed its text and digest in the training
section, or find it in their image by the digest alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.workload import Workload
from safescale_ammt.errors import ConfigError
from safescale_ammt.files.code_package import (
    MOST_PACKED,
    CodePackage,
    Entry,
    find_package,
)


def with_code(workload: Workload, folder: Path) -> Workload:
    """Returns the workload with the code that `training.model` names, and its digest.

    A section that names a digest says that the code is in the image: it stays as it is.

    Args:
        workload: what a run is to do.
        folder: the folder of the workload file.

    Raises:
        ConfigError: no such package, or one that is too large to be carried.
    """
    training = workload.training
    if not training.model or training.model_digest:
        return workload
    entry = Entry.parse(training.model)
    places = [folder.resolve(), Path.cwd(), *map(Path, filter(None, sys.path))]
    root = find_package(entry.module, places)
    package = CodePackage.read(root, entry.top, training.model_files)
    packed = package.pack()
    if len(packed) > MOST_PACKED:
        raise ConfigError(
            f"The package {entry.top!r} in {root} has {len(packed)} characters once it "
            f"is packed, at most {MOST_PACKED} travel with a config; build an image "
            f"that has it and set training.model_digest: {package.digest}."
        )
    return workload.replace(
        "training", model_digest=package.digest, model_package=packed
    )
