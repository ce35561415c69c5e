"""A user's package of code, where a test wants it, and sections that name it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training_world import BRIEF

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.files.code_package import CodePackage

_NUMBER = itertools.count()
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = nn.Linear(inputs, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(8, outputs)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.norm(self.first(x)))))

def build(rows):
    return Net(rows.inputs, rows.outputs)
"""


def package(folder: Path, net: str = NET, **others: str) -> tuple[str, CodePackage]:
    """Writes a package of a name of its own; returns the name and what it is packed to.

    Args:
        folder: that the package is put into.
        net: text of its module `net`.
        others: text of its other modules, by name.
    """
    # Python keeps what it has imported by name.
    name = f"of_a_user_{next(_NUMBER)}"
    files = {"__init__": "", "net": net, **others}
    (folder / name).mkdir(parents=True)
    for stem, text in files.items():
        (folder / name / f"{stem}.py").write_text(text)
    return name, CodePackage.read(folder, name)


def section(
    name: str, code: CodePackage, function: str = "build", **changes: Any
) -> Mapping[str, Any]:
    """Returns a training section that carries a package."""
    return {
        **BRIEF,
        "model": f"{name}.net:{function}",
        "model_digest": code.digest,
        "model_package": code.pack(),
        **changes,
    }


def of(folder: Path, net: str = NET, **changes: Any) -> TrainingConfig:
    """Writes a package; returns the section that carries it."""
    return TrainingConfig.from_params(section(*package(folder, net), **changes))
