"""What a light command never imports: libraries that take longer than its answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from registered_world import ended_run, registered, write_parts

from safescale_ammt.store.uri import open_store

ROOT = Path(__file__).parents[2]
UNASKED = {"pandas", "cffi", "Crypto", "unittest", "numpy.f2py.f2py2e"}
"""What our libraries would import; as `main` does, the code below spares it."""
NUMBERS = {"numpy", "pyarrow", "scipy", "sklearn"}
MACHINES = {"torch", "kfp", "kubernetes", "cryptography", "matplotlib", "docker"}
CLIENTS = {"minio", "urllib3", "requests", "kfp_server_api", "google"}
CODE = """
import sys
from pipelines.cli import run_command
from safescale_ammt.library_imports import spare_imports
spare_imports()
code = run_command(sys.argv[1:])
print("code", code)
print("loaded", *sorted(sys.modules))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A working folder with a run, whose version is registered in a folder."""
    place = tmp_path_factory.mktemp("work")
    store = open_store((place / "store").as_uri())
    bundle = write_parts(place / "parts")
    ended_run(place / "runs", place / "parts", store, registered(store, bundle))
    return place


def loaded(folder: Path, *words: str) -> set[str]:
    """Runs a command in a process of its own; returns the modules that it loaded."""
    store = {"SAFESCALE_STORE": (folder / "store").as_uri()}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words],
        cwd=folder,
        env={**os.environ, **store, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    *_, code, modules = done.stdout.splitlines()
    assert code == "code 0", done.stderr
    return set(modules.split()[1:])


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], {*NUMBERS, *MACHINES, *CLIENTS, "yaml"}),
        (["run", "--help"], {*NUMBERS, *MACHINES, *CLIENTS, "yaml"}),
        (["runs", "list"], {*NUMBERS, *MACHINES, *CLIENTS, "yaml"}),
        (["runs", "show", "latest"], {*NUMBERS, *MACHINES, *CLIENTS}),
        (["registry", "list"], {"scipy", *MACHINES, *CLIENTS}),
        (["registry", "show", "--name", "loans"], {"scipy", *MACHINES, *CLIENTS}),
        (
            ["verify", "latest"],
            {"scipy.optimize", "scipy.stats", "scipy.sparse", *MACHINES, *CLIENTS},
        ),
        (
            ["report", "latest", "-o", "again.html"],
            {"scipy.optimize", "scipy.stats", "scipy.sparse", *MACHINES, *CLIENTS},
        ),
    ],
    # A set has another order in every process, and so would the test's name.
    ids=lambda names: " ".join(names) if isinstance(names, list) else "none",
)
def test_a_light_command_loads_no_heavy_library(folder, words, absent):
    assert not loaded(folder, *words) & {*absent, *UNASKED}


def test_the_end_of_a_run_is_told_without_statistics(folder):
    code = (
        "import sys, pipelines.local.launch, safescale_ammt.reporting.provenance\n"
        "import safescale_ammt.reporting.shortfalls, safescale_ammt.judging.verdict\n"
        "import safescale_ammt.releasing.outcome_page\n"
        "sys.exit('scipy' in sys.modules)"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, check=False)
    assert done.returncode == 0
