"""What the images' labels say: version, commit, its time, digest of the code.

`python -m images.labels` prints it as NAME=value, for `docker buildx bake`:

    env $(python -m images.labels) docker buildx bake -f images/docker-bake.hcl
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from safescale_ammt import __version__
from safescale_ammt.files.library import library_digest

_ROOT = Path(__file__).resolve().parents[1]
_INSIDE = ("safescale_ammt", "images")
"""What of the repository can change an image."""


@dataclass(frozen=True)
class Labels:
    """Values of the labels.

    Attributes:
        version: the library's.
        revision: commit, with `-dirty` behind it if files were changed since.
        created: time of that commit (or SOURCE_DATE_EPOCH), not of the build, so that
            the same commit gives the same image again.
        code: digest of the library's source files.
    """

    version: str
    revision: str
    created: str
    code: str


@cache
def labels() -> Labels:
    """Returns the labels of images that are built from this tree now."""
    commit = _git("rev-parse", "HEAD") or "unknown"
    # Edits outside of these folders cannot change an image: it stays a clean one.
    changed = _git("status", "--porcelain", "--", *_INSIDE)
    seconds = os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct")
    return Labels(
        version=__version__,
        revision=f"{commit}-dirty" if changed else commit,
        created=datetime.fromtimestamp(int(seconds or 0), UTC).isoformat(),
        code=library_digest(),
    )


def for_images() -> dict[str, str]:
    """Returns the labels under the names that images bear (OCI image-spec)."""
    values = labels()
    oci = "org.opencontainers.image."
    return {
        f"{oci}version": values.version,
        f"{oci}revision": values.revision,
        f"{oci}created": values.created,
        # By it a local run refuses an image of other code than its own.
        "safescale-ammt.code": values.code,
    }


def _git(*arguments: str) -> str:
    """Returns what git says; nothing where this is no repository."""
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


if __name__ == "__main__":
    for key, value in asdict(labels()).items():
        print(f"{key.upper()}={value}")
