"""The stages of a run, each as a process of its own that the system measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

# Run in the process of a stage, whose folder is the first argument.
PREPARE = """
from pathlib import Path
from safescale_ammt.stages.prepare_data import run
imported()
folder = Path(sys.argv[1])
section = json.loads((folder / "data.json").read_text())
# An earlier revision sealed rows without a store.
os.environ["SAFESCALE_STORE"] = (folder / "store").as_uri()
run(section, folder / "dataset", folder / "holdout")
"""
SEARCH = """
from pathlib import Path
from safescale_ammt.stages.search_architecture import run
imported()
folder = Path(sys.argv[1])
names = ("rules", "search", "training")
sections = [json.loads((folder / f"{name}.json").read_text()) for name in names]
run(folder / "dataset", *sections, folder / "architecture")
"""
TRAIN = """
from pathlib import Path
from safescale_ammt.stages.train_agents import run
imported()
folder = Path(sys.argv[1])
names = ("rules", "training")
sections = [json.loads((folder / f"{name}.json").read_text()) for name in names]
run(folder / "dataset", folder / "architecture", *sections, folder / "model")
"""
EVALUATE = """
from pathlib import Path
from safescale_ammt.stages.evaluate_safety import run
imported()
folder = Path(sys.argv[1])
inputs = [folder / n for n in ("dataset", "holdout", "architecture", "model")]
rules = json.loads((folder / "rules.json").read_text())
environ = {"SAFESCALE_STORE": (folder / "store").as_uri()}
run(*inputs, rules, {}, folder / "verdict", environ=environ)
"""
REGISTER = """
from pathlib import Path
from safescale_ammt.stages.register_model import run
imported()
folder = Path(sys.argv[1])
rules = json.loads((folder / "rules.json").read_text())
environ = {
    "SAFESCALE_STORE": (folder / "store").as_uri(),
    "SAFESCALE_REGISTRY_STORE": (folder / "registry").as_uri(),
}
inputs = (folder / "model", folder / "verdict", rules, {"name": "scale"})
run(*inputs, folder / "version", environ=environ)
"""
STAGES = {
    "prepare_data": PREPARE,
    "search_architecture": SEARCH,
    "train_agents": TRAIN,
    "evaluate_safety": EVALUATE,
    "register_model": REGISTER,
}
"""Code of each stage by name, in the order in which they run; artifacts stay there."""
HEAD = """
import json, os, resource, sys, time
times = {"start_cpu_s": 0.0}
def imported():
    times["start_cpu_s"] = time.process_time()
"""
TAIL = """
used = resource.getrusage(resource.RUSAGE_SELF)
times["cpu_s"] = used.ru_utime + used.ru_stime
# Of this program alone: `ru_maxrss` begins at what the process had that started it.
[peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
times["peak_mib"] = int(peak.split()[1]) / 1024
print("\\n" + json.dumps(times))
"""
# In the same folder, but not on a pod's disk: the raw rows and the stores.
OUTSIDE = ("rows.csv", "store", "registry")
_EVERY = 0.5
"""Seconds between two looks at the disk."""


def called(code: str, folder: Path, *paths: Path) -> dict[str, float]:
    """Runs code in a process of its own; returns what it took.

    Args:
        code: of a stage, or of another library.
        folder: its argument.
        paths: on which it looks for modules.

    Returns:
        CPU seconds, those of the imports, and peak resident memory and disk in MiB;
        the disk's is what was seen, twice a second, of artifacts and of files without
        a name.

    Raises:
        SystemExit: it failed; its last words.
    """
    path = os.pathsep.join(map(str, paths))
    before, most = laid_out(folder), 0
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", HEAD + code + TAIL, str(folder)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=out,
            stderr=err,
        )
        while process.poll() is None:
            most = max(most, laid_out(folder) - before + nameless(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(_EVERY)
        for file in (out, err):
            file.seek(0)
        if process.returncode:
            raise SystemExit(err.read() or f"killed: {process.returncode}")
        found: dict[str, float] = json.loads(out.read().splitlines()[-1])
    most = max(most, laid_out(folder) - before)
    return {**found, "disk_peak_mib": most / 2**20}


def laid_out(folder: Path) -> int:
    """Returns the bytes of disk that files with a name take below a folder."""
    taken = 0
    for start in folder.iterdir():
        inside = start.rglob("*") if start.is_dir() else ()
        for file in (start, *inside) if start.name not in OUTSIDE else ():
            # It may be gone by now.
            with suppress(OSError):
                taken += file.stat().st_blocks * 512
    return taken


def nameless(process: int) -> int:
    """Returns the bytes of disk that files without a name take in a process."""
    taken, seen = 0, set()
    with suppress(OSError):
        for file in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                facts = file.stat()
                if not facts.st_nlink and facts.st_ino not in seen:
                    seen.add(facts.st_ino)
                    taken += facts.st_blocks * 512
    return taken
