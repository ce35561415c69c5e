"""Finds the base image, or makes one where no registry can be reached.

In this order: what BASE_IMAGE names; `python:3.11-slim-bookworm` of the engine's own
store, then of its registry; else Debian's Python in an image made by `base.sh` from
Debian's packages, which is made once and found again by the digest of that recipe.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from images.engine import Engine
from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import digest_file

OFFICIAL = "python:3.11-slim-bookworm"
RECIPE = Path(__file__).with_name("base.sh")
_PULL_SECONDS = 300.0  # a registry that accepts and never answers is given up then


def base_image(engine: Engine) -> str:
    """Returns the name of a base image that the engine has.

    Raises:
        InputError: there is none, and none can be made here.
    """
    named = os.environ.get("BASE_IMAGE", "")
    if named:
        _require(engine, named)
        return named
    # By the recipe's digest: the same recipe's image is found again, another is made.
    debian = f"safescale-ammt/base:debian-{digest_file(RECIPE)[7:19]}"
    # The engine's own store comes first: a pull asks a registry even for what is here.
    for name in (OFFICIAL, debian):
        if engine.inspect(name):
            return name
    print(f"base image {OFFICIAL} ...", flush=True)
    if engine.output("pull", "--quiet", OFFICIAL, timeout=_PULL_SECONDS) is not None:
        return OFFICIAL
    _make(engine, debian)
    return debian


def _require(engine: Engine, name: str) -> None:
    if engine.inspect(name) is None:
        pulled = engine.output("pull", "--quiet", name, timeout=_PULL_SECONDS)
        if pulled is None:
            raise InputError(
                f"BASE_IMAGE {name} is neither in this engine nor can it be pulled."
            )


def _make(engine: Engine, name: str) -> None:
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        raise InputError(
            f"{OFFICIAL} cannot be pulled, and making a base image from Debian's "
            "packages takes root and mmdebstrap (`make engines` installs it); or name "
            "one that this engine has: make images BASE_IMAGE=..."
        )
    print("no registry answers; base image from Debian's packages ...", flush=True)
    result = subprocess.run(
        ["sh", str(RECIPE), name, *engine.command],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode or engine.inspect(name) is None:
        last = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"No base image could be made from Debian's packages: {last}")
