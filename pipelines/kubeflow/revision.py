"""Which code compiles: the commit, as git or the CI names it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safescale_ammt import __version__
from safescale_ammt.files.library import code_version

# GitHub's, GitLab's and Jenkins' variable: a job may run from an image without git.
_COMMIT = ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT")
_ROOT = Path(__file__).parents[2]
_SHORT = 12  # digits of a commit


@dataclass(frozen=True)
class Revision:
    """A commit.

    Attributes:
        commit: its digits; "" = not known.
        changed: whether the working tree holds what no commit does.
    """

    commit: str
    changed: bool = False

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> Revision:
        """Returns the commit of the code that is running."""
        commit = next((environ[name] for name in _COMMIT if environ.get(name)), "")
        changed = ""
        if not commit:
            commit = _git("rev-parse", "HEAD")
            # A file that git does not track is no part of what a commit names.
            changed = _git("status", "--porcelain", "--untracked-files=no")
        known = re.fullmatch(r"[0-9a-f]{7,64}", commit)
        return cls(commit if known else "", bool(changed))

    @property
    def version(self) -> str:
        """`<semver>-<commit>`; without a commit the release and a digest of the code.

        `-dirty` stands behind what no commit holds: no version is uploaded so.
        """
        if not self.commit:
            return code_version()
        return f"{__version__}-{self.commit[:_SHORT]}{'-dirty' * self.changed}"


def _git(*arguments: str) -> str:
    """Returns what git prints; "" without git, or where no repository is."""
    try:
        result = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()
