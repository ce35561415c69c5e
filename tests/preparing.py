"""The first stage with a store of its own, and the whole holdout behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.holdout import Holdout
from safescale_ammt.data.local_table import HELD, Held
from safescale_ammt.files.artifacts import Manifest, read_manifest, writing
from safescale_ammt.files.shards import is_shard
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.slice_forms import Slices
from safescale_ammt.judging.slices import confirmed
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.stages import prepare_data
from safescale_ammt.store.base import Store
from safescale_ammt.store.protected import made_whole, set_apart
from safescale_ammt.store.shards import put_shard
from safescale_ammt.store.uri import STORE, open_store


def run(
    section: Mapping[str, Any], dataset: Path, holdout: Path, held: Held = HELD
) -> dict[str, Any]:
    """Prepares the two artifacts; the sealed rows go to a store beside them."""
    environ = environ_of(holdout)
    return prepare_data.run(section, dataset, holdout, environ=environ, held=held)


def confirmed_again(
    known: Evidence, stated: Verdict, rule: Constitution
) -> tuple[Evidence, Slices]:
    """Confirms a verdict's slices on other evidence, as a forger with our code does."""
    assert stated.slices is not None
    given = [found.proposal for found in stated.slices.confirmed]
    least = rule.groups.min_n
    slices, kept = confirmed(known, known.slices, stated.slices, given, least)
    return replace(known, slices=kept), slices


def lay_apart(dataset: Path, to: Path, store: Store | None = None) -> Manifest:
    """Writes a dataset again, its rows in a store, that beside it if none is given."""
    manifest = read_manifest(dataset, "dataset")
    with writing(
        to,
        kind=manifest.kind,
        stage=manifest.stage,
        config_digest=manifest.config_digest,
        parents=manifest.parents,
    ) as draft:
        for name, entry in manifest.files.items():
            if is_shard(name):
                draft.apart[name] = put_shard(store or store_of(to), dataset / name)
                continue
            copyfile(dataset / name, draft.folder / name)
            if not entry.identity:
                draft.outside_identity.add(name)
    return read_manifest(to)


def environ_of(artifact: Path) -> dict[str, str]:
    """Names the store beside an artifact."""
    return {STORE: (artifact.parent / "store").as_uri()}


def store_of(artifact: Path) -> Store:
    """Opens the store beside an artifact."""
    return open_store(environ_of(artifact)[STORE])


@contextmanager
def whole(artifact: Path, kind: str = "holdout") -> Iterator[Path]:
    """Gives an artifact with its rows, from the store beside it."""
    with made_whole(store_of(artifact), artifact, kind) as folder:
        yield folder


@contextmanager
def opened(artifact: Path, kind: str) -> Iterator[Path]:
    """Gives an artifact with its rows to change; what it is then goes apart again."""
    store = store_of(artifact)
    with made_whole(store, artifact, kind) as folder:
        yield folder
        set_apart(store, folder, artifact)


def sealed(holdout: Path) -> Holdout:
    """Reads the sealed rows that a holdout names."""
    with whole(holdout) as folder:
        rows = Holdout.load(folder)
        # Read while they are there.
        assert len(rows.split) == len(rows.stored)
        return rows


def rows_of(artifact: Path) -> Path:
    """Returns the folder of the store beside an artifact in which its rows lie."""
    manifest = read_manifest(artifact)
    key = manifest.place("rows")
    return (artifact.parent / "store" / key).parent
