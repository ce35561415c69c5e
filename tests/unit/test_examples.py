"""The examples run."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("basic_training", "20"),
        ("advanced_config", "60"),
        ("custom_models", "150"),
        ("several_architectures", "60"),
    ],
)
def test_an_example_runs(
    name: str, length: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "argv", [name, length])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert "accuracy" in capsys.readouterr().out or name == "custom_models"
