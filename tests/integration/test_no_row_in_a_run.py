"""Runs that fail on their data leave no row of it: on screen, in logs, in records."""

from __future__ import annotations

import gzip

import pytest
from laptop import Laptop

MARK = "jane-doe"
PERSON = ",".join(f"{MARK}-{i}" for i in range(5)) + "\n"


@pytest.mark.parametrize("kind", ["headerless", "ragged", "torn"])
def test_a_run_that_fails_on_its_data_leaves_no_row_anywhere(tmp_path, kind):
    laptop = Laptop(tmp_path / "laptop")
    file = laptop.folder / "people.csv"
    head, rest = file.read_text(encoding="utf-8").split("\n", 1)
    text = {
        "headerless": PERSON * 3 + rest,
        "ragged": head + "\n" + PERSON + MARK + "\n" + rest,
        "torn": head + "\n" + PERSON * 9 + rest,
    }[kind]
    data = text.encode()
    file.write_bytes(gzip.compress(data)[:-20] if kind == "torn" else data)
    with laptop.store():
        code, lines = laptop.call("run", "--config", "loans.yaml")
        assert code == 2, lines[-1]
        assert MARK not in "\n".join(lines)
        assert laptop.record["exit_code"] == 2
    told = [
        path
        for path in laptop.folder.rglob("*")
        if path.suffix in {".json", ".txt", ".log", ".yaml", ".html"} and path.is_file()
    ]
    assert any(path.name == "run.json" for path in told)
    assert not [p for p in told if MARK in p.read_text("utf-8", errors="replace")]
