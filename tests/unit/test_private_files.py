"""What is written belongs to who wrote it, whatever the umask and the modes before."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.local.runfile import RunFile
from safescale_ammt.files.artifacts import verify, writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.store.folder import FileStore

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077])
def umask(request) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(*tops: Path) -> set[int]:
    """Returns the modes of all that lies in and below some paths."""
    below = [path for top in tops for path in (top, *top.rglob("*"))]
    return {path.stat().st_mode & 0o7777 for path in below}


def make(path: Path) -> Path:
    """Writes an artifact with a file and a folder in it."""
    with writing(path, kind="holdout", stage="prepare_data") as draft:
        # Before it is whole, too.
        assert draft.folder.stat().st_mode & 0o007 == 0
        write_json(draft.folder / "sealed" / "rows.json", {"rows": 1})
        (draft.folder / "open").write_text("x")
        (draft.folder / "open").chmod(0o777)
    return path


def test_an_artifact_is_its_owners_alone(tmp_path, umask):
    artifact = make(tmp_path / "made" / "here" / "holdout")
    verify(artifact)
    assert modes(tmp_path / "made") == {0o700, 0o600}


def test_an_artifact_in_a_set_gid_folder_is_its_groups_too(tmp_path, umask):
    folder = tmp_path / "stage"
    folder.mkdir()
    # As for a container, which runs as somebody else: see `container_runner`.
    folder.chmod(0o2770)
    assert modes(make(folder / "holdout")) == {0o2770, 0o660}
    assert modes(make(folder / "deeper" / "holdout")) == {0o2770, 0o660}
    assert (folder / "deeper").stat().st_mode & 0o7777 == 0o2770


def test_an_artifact_that_replaces_an_open_one_is_closed(tmp_path, umask):
    artifact = make(tmp_path / "holdout")
    for path in (artifact, *artifact.rglob("*")):
        path.chmod(0o777)
    assert modes(make(artifact)) == {0o700, 0o600}


def test_objects_of_a_store_in_a_folder_are_their_writers_alone(tmp_path, umask):
    root = tmp_path / "store"
    store = FileStore(root)
    store.put("ledger/1", b"first", if_absent=True)
    store.put("runs/1/holdout/rows", b"sealed")
    store.upload_folder(make(tmp_path / "holdout"), "runs/1/holdout/whole")
    assert modes(root) == {0o700, 0o600}
    store.download_folder("runs/1", tmp_path / "new" / "copy")
    assert modes(tmp_path / "new") == {0o700, 0o600}


def test_in_an_open_folder_that_was_there_objects_are_closed_all_the_same(
    tmp_path, umask
):
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(0o755)
    FileStore(root).put("runs/1/holdout/rows", b"sealed")
    assert modes(*root.iterdir()) == {0o700, 0o600}
    assert root.stat().st_mode & 0o777 == 0o755  # its owner's to decide


def test_a_set_gid_bit_shares_a_store_with_its_group_and_nobody_else(tmp_path, umask):
    root = tmp_path / "store"
    root.mkdir()
    root.chmod(0o2770)
    store = FileStore(root)
    store.put("ledger/a/1", b"first", if_absent=True)
    store.put("runs/1/holdout/rows", b"sealed")
    assert modes(root) == {0o2770, 0o660}


def test_a_path_through_a_file_is_still_an_error(tmp_path, umask):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="file"):
        make(tmp_path / "file" / "holdout")


def test_a_runs_folder_is_its_owners_alone(tmp_path, umask):
    run = RunFile.create(tmp_path / "runs", [])
    assert (tmp_path / "runs").stat().st_mode & 0o777 == 0o700
    assert run.folder.stat().st_mode & 0o777 == 0o700


def test_what_the_command_line_writes_is_its_owners_alone(tmp_path, umask):
    for name in ("dir", "dir/sub"):
        (tmp_path / name).mkdir(mode=0o700)
    code = "from pipelines.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "compile", "-o", "dir/new/train.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )
    assert modes(tmp_path / "dir" / "new") == {0o700, 0o600}
    shutil.rmtree(tmp_path / "dir")
