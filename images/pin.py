"""Writes `images/requirements/*.txt`: what each layer installs, pinned by hash.

    python -m images.pin

Versions are those of `requirements.txt`; pip itself resolves what a layer needs and
says each wheel's sha256, with the indexes and folders that it is configured with.
Nothing is installed. A layer's file leaves out what a layer below it has.

The hashes are those of CPython 3.11 on x86-64 Linux: nothing else is tested.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FOLDER = Path(__file__).resolve().parent / "requirements"
HASHES_OF = ((3, 11), "Linux", "x86_64")
LEFT_OUT = {"setuptools"}
"""torch names it for building extensions, which takes a compiler: there is none."""


@dataclass(frozen=True)
class Layer:
    """The packages of one layer of the images.

    Attributes:
        roots: what the library imports in the stages that have this layer.
        alone: installed without what they require themselves: KFP's executor imports
            nothing but `kfp` when `_KFP_RUNTIME` is set.
        below: layers whose packages are there already.
        exact: version that replaces the one of `requirements.txt`.
    """

    roots: tuple[str, ...]
    alone: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    exact: tuple[tuple[str, str], ...] = ()


LAYERS = {
    "core": Layer(
        (
            *("certifi", "cryptography", "minio", "numpy", "pyarrow", "PyYAML"),
            *("safetensors", "scipy", "urllib3"),
        ),
        ("kfp",),
    ),
    # `===` compares the text: PyPI's own build, never one with a local version.
    "torch-cpu": Layer(("torch",), below=("core",), exact=(("torch", "==2.13.0+cpu"),)),
    "torch-cu130": Layer(("torch",), below=("core",), exact=(("torch", "===2.13.0"),)),
    # Its OpenMP library is torch's own, which is loaded first (`trees.library`).
    "trees": Layer(("lightgbm",), below=("core",)),
    "kubernetes": Layer(("kubernetes",), below=("core",)),
    # What PySpark's client and workers import; itself, without a wheel, in pyspark.txt.
    "spark": Layer(
        ("grpcio", "grpcio-status", "pandas", "py4j", "zstandard"), below=("core",)
    ),
}
VERSIONS = ("requirements.txt", "requirements-spark.txt")
"""Files with the versions of all layers: what the tests run with."""


def pinned(path: Path) -> dict[str, str]:
    """Reads `name==version` lines; names as PEP 503 spells them.

    Args:
        path: a requirements file; comments and hashes are passed over.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    matches = (re.match(r"([A-Za-z0-9._-]+)===?([^\s;\\]+)", line) for line in lines)
    return {canonical(match[1]): match[2] for match in matches if match}


def canonical(name: str) -> str:
    """Returns a package's name as PEP 503 spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Writes every layer's file and says what it holds."""
    here = (sys.version_info[:2], platform.system(), platform.machine())
    if here != HASHES_OF:
        print(f"This is {here}; the hashes are those of {HASHES_OF}.", file=sys.stderr)
        return 2
    FOLDER.mkdir(exist_ok=True)
    written: dict[str, set[str]] = {}
    for name, layer in LAYERS.items():
        below = set().union(*(written[lower] for lower in layer.below))
        wheels = {k: v for k, v in _resolved(layer).items() if k not in below}
        written[name] = set(wheels)
        path = FOLDER / f"{name}.txt"
        path.write_text(_text(name, wheels, dict(layer.exact)), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(wheels)} packages")
    return 0


def _resolved(layer: Layer) -> dict[str, tuple[str, str]]:
    """Returns name -> (version, sha256) of a layer and all that it requires."""
    versions = {k: v for name in VERSIONS for k, v in pinned(ROOT / name).items()}
    exact = dict(layer.exact)

    def requirements(names: Sequence[str]) -> list[str]:
        return [n + exact.get(n, f"=={versions[canonical(n)]}") for n in names]

    # What is required by others is held to the same versions, or the images would run
    # what no test has seen.
    limits = {k: v for k, v in versions.items() if k not in exact}
    wheels = _report(requirements(layer.roots), limits)
    if layer.alone:
        wheels |= _report([*requirements(layer.alone), "--no-deps"], {})
    return {name: wheels[name] for name in sorted(wheels.keys() - LEFT_OUT)}


def _report(
    arguments: Sequence[str], constraints: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Asks pip what it would install."""
    with tempfile.TemporaryDirectory() as folder:
        limits, report = Path(folder, "limits.txt"), Path(folder, "report.json")
        lines = (f"{name}=={version}\n" for name, version in constraints.items())
        limits.write_text("".join(lines), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        # Installed packages count as nothing: the report has to name every wheel.
        command += ["--ignore-installed", "--report", str(report), "-c", str(limits)]
        command += ["--only-binary=:all:", *arguments]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        items: list[dict[str, Any]] = json.loads(report.read_text())["install"]
    return {
        canonical(item["metadata"]["name"]): (
            item["metadata"]["version"],
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
        for item in items
    }


def _text(
    name: str, wheels: Mapping[str, tuple[str, str]], exact: Mapping[str, str]
) -> str:
    head = (
        f"# Layer {name} of the images, by `python -m images.pin`; versions are\n"
        "# those of requirements.txt. Wheels for CPython 3.11 on x86-64 Linux.\n"
    )
    lines = []
    for package, (version, digest) in wheels.items():
        lines += [f"{package}{exact.get(package, f'=={version}')} \\\n"]
        lines += [f"    --hash=sha256:{digest}\n"]
    return head + "".join(lines)


if __name__ == "__main__":
    sys.exit(main())
