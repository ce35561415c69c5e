"""Sealed rows over a store that refuses, falters or breaks off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sick_store import SickStore, sick_store

from safescale_ammt.errors import StorageError, StoreInputError
from safescale_ammt.files.artifacts import read_manifest, writing
from safescale_ammt.store.protected import made_whole, set_apart

ROWS = b"PAR1 a person's row PAR1" * 1000


@pytest.fixture
def sick() -> Iterator[SickStore]:
    """A store that is well until its script says otherwise."""
    with sick_store() as server:
        yield server


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A whole holdout of one file."""
    folder = tmp_path / "whole"
    with writing(folder, kind="holdout", stage="test") as draft:
        (draft.folder / "sealed.parquet").write_bytes(ROWS)
    return folder


@pytest.fixture
def artifact(sick: SickStore, whole: Path, tmp_path: Path) -> Path:
    """The same as a run has it; its rows are in the store."""
    set_apart(sick.store(), whole, tmp_path / "holdout")
    return tmp_path / "holdout"


def fetch(sick: SickStore, artifact: Path, beside: Path) -> None:
    with made_whole(sick.store(), artifact, "holdout", beside):
        pass


def test_a_key_that_does_not_open_the_prefix_is_one_sentence(
    sick: SickStore, whole: Path, artifact: Path, tmp_path: Path
) -> None:
    """Whoever reads and whoever writes."""
    sick.script = ["403"]
    with pytest.raises(StoreInputError) as reads:
        fetch(sick, artifact, tmp_path / "v")
    sick.objects.clear()
    sick.script = ["404", "403"]
    with pytest.raises(StoreInputError) as writes:
        set_apart(sick.store(), whole, tmp_path / "second")
    for error in (reads, writes):
        sentence = str(error.value)
        assert "the credentials do not permit this action" in sentence
        assert "sealed/, which the key of prepare, judge and gate has to" in sentence
        assert "\n" not in sentence
        assert error.value.exit_code == 2
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    "script", [["503"], ["500", "503"], ["well", "503", "500"], ["well", "half"]]
)
def test_a_store_that_falters_is_tried_again(
    sick: SickStore, artifact: Path, script: list[str]
) -> None:
    sick.script = script
    with made_whole(sick.store(), artifact, "holdout") as folder:
        assert (folder / "sealed.parquet").read_bytes() == ROWS
    assert sick.script == []


def test_a_store_that_stays_away_ends_it_and_leaves_no_rows_behind(
    sick: SickStore, artifact: Path, tmp_path: Path
) -> None:
    sick.script = ["well", *["503"] * 20]
    with pytest.raises(StorageError, match="answered only with server errors"):
        fetch(sick, artifact, tmp_path / "out" / "v")
    assert list((tmp_path / "out").iterdir()) == []
    assert read_manifest(artifact).files["sealed.parquet"].apart
