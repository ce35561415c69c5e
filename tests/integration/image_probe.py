"""Runs inside a stage's image and prints what it finds there, as JSON.

Its arguments are the stages that run in it. It uses nothing but what the image has.
"""

import ctypes
import importlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

PACKAGES = Path("/opt/safescale/lib/python3.11/site-packages")
TOOLS = ("cc", "gcc", "g++", "clang", "ld", "as", "make", "pip", "pip3", "apt-get")


def writable(folder):
    try:
        Path(folder, "touched").write_text("x")
    except OSError:
        return False
    return True


PACKAGES_ASKED = ("torch", "lightgbm", "matplotlib", "kubernetes")


def boosts():
    """Says whether LightGBM boosts where it is; True where there is none."""
    if not importable("lightgbm"):
        return True
    import numpy as np

    from safescale_ammt.trees.library import lightgbm

    x = np.arange(200.0)[:, None]
    data = lightgbm().Dataset(x, x[:, 0] > 99)
    return lightgbm().train({"verbose": -1}, data, 3).num_trees() == 3


def status():
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def importable(name):
    return importlib.util.find_spec(name) is not None


def stages_load(names):
    os.environ["_KFP_RUNTIME"] = "true"
    importlib.import_module("kfp.dsl.executor_main")
    modules = [importlib.import_module(f"safescale_ammt.stages.{n}") for n in names]
    return all(callable(module.run) for module in modules)


def broken_libraries():
    """Loads every shared library that slimming left; says which do not load."""
    broken = []
    if importable("torch"):
        # It brings OpenMP's library, which LightGBM's asks for.
        importlib.import_module("torch")
    for path in sorted(PACKAGES.rglob("*.so*")):
        try:
            ctypes.CDLL(str(path))
        except OSError as error:
            broken.append(str(error))
    return broken


def stale_bytecode():
    """Names modules without bytecode that is valid by itself (PEP 552, flag 1)."""
    stale = []
    for path in PACKAGES.rglob("*.py"):
        cached = Path(importlib.util.cache_from_source(str(path)))
        if not cached.is_file() or cached.read_bytes()[4:8] != b"\x01\0\0\0":
            stale.append(str(path))
    return stale


def main():
    import safescale_ammt
    from safescale_ammt.files.library import library_digest

    facts = {
        "stages_load": stages_load(sys.argv[1:]),
        "version": safescale_ammt.__version__,
        "code": library_digest(),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "writable": [d for d in ("/", "/opt/safescale", "/etc", "/tmp") if writable(d)],
        "status": status(),
        "tools": [tool for tool in TOOLS if shutil.which(tool)],
        "installers": [n for n in ("pip", "ensurepip") if importable(n)],
        "environ": dict(os.environ),
        "packages": {n: importable(n) for n in PACKAGES_ASKED},
        "boosts": boosts(),
        "broken": broken_libraries(),
        "stale": stale_bytecode(),
    }
    print(json.dumps(facts), flush=True)
    os._exit(0)  # extension modules that were loaded without being imported


if __name__ == "__main__":
    main()
