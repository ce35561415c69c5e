"""No line of a stage uses an accelerator, and whatever reserves one says so.

When training learns to use devices the first test here fails: then the sentences that
the others ask for are to go as well.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pipelines.kubeflow.preparation import IDLE, KubeflowRequest

ROOT = Path(__file__).parents[2]
DEVICES = re.compile(r"\b(cuda|xla|mps|xpu)\b")
SAYS = "this version trains on CPUs"


# What trains modules of a user uses devices: no stage and no image begins there.
OF_MODULES = ("modules", "device.py", "adam.py", "sections.py", "unapplied.py")


def test_no_line_that_a_stage_runs_puts_a_tensor_on_a_device() -> None:
    for file in (ROOT / "safescale_ammt").rglob("*.py"):
        if set(OF_MODULES) & {file.name, file.parent.name}:
            continue
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"cuda", "to_device", "get_device"}, file
            if isinstance(node, ast.keyword):
                assert node.arg != "device", file
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not DEVICES.search(node.value), file


@pytest.mark.parametrize(
    "file",
    [
        "docs/kubeflow.md",
        "manifests/components/gpu/kustomization.yaml",
        "images/build.py",
        "pipelines/kubeflow/preparation.py",
    ],
)
def test_what_reserves_or_describes_hardware_says_that_it_stays_idle(file: str) -> None:
    text = " ".join((ROOT / file).read_text("utf-8").split())
    assert SAYS.lower() in text.lower()


@pytest.mark.parametrize(
    ("parameters", "idle"),
    [
        (None, False),
        ({}, False),
        ({"accelerators": "0"}, False),
        ({"accelerators": "two"}, False),  # refused elsewhere, by its own sentence
        ({"accelerator_type": "amd.com/gpu"}, False),
        ({"accelerators": "1"}, True),
        ({"accelerators": "16", "accelerator_type": "amd.com/gpu"}, True),
    ],
)
def test_a_request_says_what_it_reserves_in_vain(
    parameters: dict[str, str] | None, idle: bool
) -> None:
    request = KubeflowRequest(Path("w.yaml"), parameters=parameters)
    assert (IDLE in request.idle_accelerators) is idle
    assert bool(request.idle_accelerators) is idle
