"""A run on this machine reads the files that its owner names, in a notebook too."""

from __future__ import annotations

from pathlib import Path

import pytest
from laptop import Laptop


def test_a_run_in_a_notebook_reads_its_owners_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    laptop = Laptop(tmp_path / "laptop")
    code, lines = laptop.run("--store", (tmp_path / "kept").as_uri())
    assert code == 0, lines[-5:]
