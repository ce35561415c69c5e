"""Fetches the wheels of each layer into `images/wheels/`, before anything is built.

A build then asks no index: pip's settings, certificates, proxies and folders of this
machine stay outside, and so cannot end in a layer. Without wheels there (as after a
plain `docker buildx bake`) a build asks PyPI itself, with the same hashes.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

from safescale_ammt.errors import InputError
from safescale_ammt.files.canonical import digest_file

FOLDER = Path(__file__).parent
LAYERS = ("core", "torch", "trees", "kubernetes")
TORCH_INDEX = "https://download.pytorch.org/whl/"
"""PyTorch's own index, by variant: PyPI has no CPU build."""
WHEELS_FOR = ((3, 11), "Linux", "x86_64")
"""What `images/requirements` holds the hashes of."""


def variants() -> list[str]:
    """Names the builds of torch that there are hashes for."""
    files = (FOLDER / "requirements").glob("torch-*.txt")
    return sorted(path.stem.removeprefix("torch-") for path in files)


def fetch(variant: str) -> None:
    """Makes every layer's folder hold the wheels of its requirements, and no other.

    Args:
        variant: the build of torch, see `variants`.

    Raises:
        InputError: pip can reach no index, lacks a build, or finds other bytes than
            are pinned.
    """
    here = (sys.version_info[:2], platform.system(), platform.machine())
    if here != WHEELS_FOR:
        return  # pip would fetch this machine's wheels; the build fetches its own
    for layer in LAYERS:
        name = f"torch-{variant}" if layer == "torch" else layer
        requirements = FOLDER / "requirements" / f"{name}.txt"
        wheels = FOLDER / "wheels" / layer
        if not complete(wheels, requirements):
            download(requirements, wheels, variant)


def complete(wheels: Path, requirements: Path) -> bool:
    """Removes wheels that no line asks for; says whether every line has one."""
    pinned = set(re.findall(r"sha256:[0-9a-f]{64}", requirements.read_text()))
    present = set()
    for wheel in wheels.glob("*.whl"):
        digest = digest_file(wheel)
        if digest in pinned:
            present.add(digest)
        else:
            # An older pin: with it in the folder, the layer would be built anew.
            wheel.unlink()
    return present == pinned


def download(requirements: Path, wheels: Path, variant: str) -> None:
    """Fetches the wheels of one layer by the pip of this machine.

    Raises:
        InputError: pip gave up.
    """
    wheels.mkdir(parents=True, exist_ok=True)
    print(f"wheels of {requirements.stem} ...", flush=True)
    complaint = ""
    # The machine's own settings first: they may name a mirror or a folder that has
    # torch's CPU build, where PyTorch's index cannot be reached.
    for index in ([], ["--extra-index-url", TORCH_INDEX + variant]):
        result = _pip(requirements, wheels, index)
        if result.returncode == 0:
            return
        complaint = result.stderr.strip() or complaint
    raise InputError(
        f"pip cannot fetch the wheels of {requirements.stem}: {reason(complaint)}. "
        f"{remedy(complaint, variant)}"
    )


def reason(complaint: str) -> str:
    """Returns the line of pip's that says why it gave up, without a full stop."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    # What it says on the way (versions for other Pythons, wheels passed over) is an
    # ERROR to pip too: the one that ended it comes last.
    errors = [line for line in lines if line.startswith("ERROR: ")]
    last = errors[-1].removeprefix("ERROR: ") if errors else "".join(lines[-1:])
    # A line that ends so only announces: bytes and digests, or a traceback, follow.
    if last.endswith(":") and errors and lines[-1] != errors[-1]:
        last = f"{last} {lines[-1]}"
    return last.rstrip(".") or "it gives no reason"


def remedy(complaint: str, variant: str) -> str:
    """Returns what would do, in a sentence."""
    again = "then `make images` again"
    if "DO NOT MATCH THE HASHES" in complaint:
        return (
            "The index holds other bytes than images/requirements pins; ask one that "
            f"holds the published ones (PIP_INDEX_URL=...), {again}."
        )
    wheel = re.search(r"No matching distribution found for (torch==\S+)", complaint)
    if wheel and "+" in wheel[1]:
        return (
            f"Only PyTorch's own index has that build: let this machine reach "
            f"{TORCH_INDEX}{variant}, name a mirror of it (PIP_EXTRA_INDEX_URL=...) or "
            f"a folder with the wheel (PIP_FIND_LINKS=...), {again}."
        )
    return (
        "Let this machine reach PyPI, or name a mirror (PIP_INDEX_URL=...) or a folder "
        f"with the wheels (PIP_FIND_LINKS=...), {again}."
    )


def _pip(
    requirements: Path, wheels: Path, index: list[str]
) -> subprocess.CompletedProcess[str]:
    # Wheels alone: a source distribution runs its own code, here and as this user.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--retries=2", *index]
    command += ["--dest", str(wheels), "--requirement", str(requirements)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
