"""A whole run, by a person whose umask hides nothing: nobody else reads its rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from laptop import Laptop

from safescale_ammt.files.canonical import read_json


@pytest.fixture
def laptop(tmp_path) -> Iterator[Laptop]:
    before = os.umask(0)
    try:
        laptop = Laptop(tmp_path / "laptop")
        laptop.folder.chmod(0o755)
        # As an earlier version has left it.
        (laptop.folder / ".safescale").mkdir(mode=0o755)
        yield laptop
    finally:
        os.umask(before)


def _open_to_others(folder: Path) -> list[tuple[str, str]]:
    """Lists what somebody else's account can reach below a folder and may read."""
    found = []
    for path in folder.iterdir():
        mode = path.stat().st_mode
        if mode & 0o077 and not path.is_symlink():
            found.append((str(path), oct(mode)))
        if path.is_dir() and not path.is_symlink() and mode & 0o011:
            found += _open_to_others(path)
    return found


@pytest.mark.parametrize("store", ["embedded", "folder"])
def test_others_of_the_machine_read_nothing_of_a_run(laptop, store):
    ours = {"people.csv", "sealed.csv", "constitution.yaml", "loans.yaml"}
    place = ()
    if store == "folder":
        place = ("--store", (laptop.folder / "kept").as_uri())
    assert laptop.run(*place)[0] == 0
    lines = laptop.call("predict", "runs/latest", "--data", "people.csv", "-o", "a.csv")
    assert lines[0] == 0, lines
    assert laptop.call("report", "runs/latest", "-o", "again/report.html")[0] == 0
    assert laptop.call("registry", "download", "loans", "got", *place)[0] == 0
    written = {p.name for p in laptop.folder.iterdir()} - ours
    assert {".safescale", "runs", "a.csv", "again", "got"} <= written
    found = [f for f in _open_to_others(laptop.folder) if Path(f[0]).name not in ours]
    assert found == []
    # The rows themselves, whoever might open the folders above.
    record = read_json(laptop.folder / "runs" / "latest" / "run.json")
    tops = [Path(record["artifacts"][name]["path"]) for name in ("holdout", "verdict")]
    if store == "folder":
        tops.append(laptop.folder / "kept")
    for path in (path for top in tops for path in (top, *top.rglob("*"))):
        wanted = 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o777 == wanted, path
