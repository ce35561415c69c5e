"""Fetches what Spark's image is made of, where a build could not do so itself.

Wheels by hash as for the other layers; a wheel of PySpark, which PyPI has as an archive
alone (pip checks its hash and makes the wheel); and for a base image that was made from
Debian's packages the packages of Java, which the apt of this machine checks.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from images.engine import Engine
from images.fetch import FOLDER, complete, download, reason
from safescale_ammt.errors import InputError

JAVA = ("openjdk-17-jre-headless", "tini")


def fetch_spark(engine: Engine, base: str) -> None:
    """Fills images/wheels/spark, pyspark and debian.

    Args:
        engine: has the base image.
        base: its name.

    Raises:
        InputError: pip or apt cannot fetch something.
    """
    wheels, requirements = FOLDER / "wheels", FOLDER / "requirements"
    for name in ("spark", "pyspark", "debian"):
        (wheels / name).mkdir(exist_ok=True)
    if not complete(wheels / "spark", requirements / "spark.txt"):
        download(requirements / "spark.txt", wheels / "spark", "cpu")
    if not any((wheels / "pyspark").glob("*.whl")):
        print("wheel of pyspark ...", flush=True)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--no-binary=pyspark", "--wheel-dir"]
        command += [str(wheels / "pyspark"), "-r", str(requirements / "pyspark.txt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"pip cannot make a wheel: {reason(done.stderr)}.")
    # A base from a registry has an apt of its own, with a network in its build.
    if "base:debian-" in base and not any((wheels / "debian").glob("*.deb")):
        print("Java's packages ...", flush=True)
        fetch_java(engine, base, wheels / "debian")


def fetch_java(engine: Engine, base: str, folder: Path) -> None:
    """Downloads the Debian packages that Java needs beside those of the base image.

    Raises:
        InputError: apt gave up.
    """
    status = engine.output("run", "--rm", base, "cat", "/var/lib/dpkg/status")
    (folder / "partial").mkdir(exist_ok=True)
    known = folder / "status"
    known.write_text((status or "") + "\n", encoding="utf-8")
    options = {"Dir::State::status": known, "Dir::Cache::archives": folder}
    command = ["apt-get", "--yes", "-qq", "--no-install-recommends", "--download-only"]
    for name, path in options.items():
        command += ["-o", f"{name}={path.resolve()}"]
    command += ["-o", "APT::Sandbox::User=root", "install", *JAVA]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    known.unlink()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"apt-get cannot fetch Java's packages: {last}")
