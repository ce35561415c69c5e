"""Removing any one file of a verdict, or of a bundle: nobody reads a pass out of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from trained_world import World, build

from pipelines.cli import run_command
from safescale_ammt.errors import SafescaleError
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.stages import evaluate_safety, register_model
from safescale_ammt.store.uri import STORE, open_store


@dataclass(frozen=True)
class Judged:
    """A verdict that passes, the store behind it, and what the gate made of it."""

    world: World
    folder: Path

    def register(self, folder: Path) -> Registry:
        """Asks the gate about the copy of the verdict in a folder."""
        environ = {STORE: (folder / "store").as_uri()}
        inputs = (self.world.folder / "model", folder / "verdict")
        register_model.run(
            *(*inputs, self.world.constitution, {"name": "loans"}, folder / "version"),
            environ=environ,
        )
        return Registry(open_store(environ[STORE]), "loans")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    world = build(tmp_path_factory.getbasetemp() / "world")
    folder = tmp_path_factory.mktemp("judged")
    environ = {STORE: (folder / "store").as_uri()}
    world.kept_in(open_store(environ[STORE]))
    evaluate_safety.run(
        *(*world.inputs, world.constitution, {}, folder / "verdict"), environ=environ
    )
    return Judged(world, folder)


def files_of(*folders: Path) -> list[Path]:
    """Lists the files below folders, relative to the first one's parent."""
    top = folders[0].parent
    found = (p for folder in folders for p in folder.rglob("*") if p.is_file())
    return sorted(p.relative_to(top) for p in found)


def test_the_gate_passes_none_of_a_verdict_with_one_file_less(
    judged: Judged, tmp_path: Path
) -> None:
    # The verdict's own files, its evidence in the store, and the ledger's events. The
    # ledger's sets of row hashes are no evidence: `registry verify` misses them.
    stored = judged.folder / "store"
    events = stored / "ledger" / "events"
    names = files_of(judged.folder / "verdict", stored / "sealed/verdict", events)
    kinds = {name.name for name in names}
    assert {"verdict.json", "evidence.parquet", "00000001.json"} <= kinds
    assert any("findings" in name.parts for name in names)
    for number, name in enumerate([*names, None]):
        folder = tmp_path / str(number)
        shutil.copytree(judged.folder, folder)
        if name is None:
            champion = judged.register(folder).champion()
            assert champion is not None
            continue
        (folder / name).unlink()
        with pytest.raises(SafescaleError):
            judged.register(folder)
        registry = Registry(open_store((folder / "store").as_uri()), "loans")
        assert registry.versions() == [], name


def test_no_bundle_with_one_file_less_is_whole(
    judged: Judged, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(judged.folder, tmp_path / "work")
    registry = judged.register(tmp_path / "work")
    bundle = tmp_path / "bundle"
    registry.get_bundle(registry.show("champion"), bundle)
    assert run_command(["verify", str(bundle)]) == 0
    for name in files_of(bundle):
        file = bundle.parent / name
        data = file.read_bytes()
        file.unlink()
        # Without its manifest a folder is no bundle at all: that is bad input.
        expected = 2 if name == Path("bundle/manifest.json") else 3
        assert run_command(["verify", str(bundle)]) == expected, name
        file.write_bytes(data)
    assert run_command(["verify", str(bundle)]) == 0
