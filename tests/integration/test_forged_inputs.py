"""Whoever writes to the folder between two stages, and makes every digest fit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import preparing
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from children import Child
from safetensors.numpy import load_file, save_file
from trained_world import World, build

from pipelines.cli import run_command
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.artifacts import Draft, describe, read_manifest
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.judging.verdict import Verdict
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.sealed_uses import Use
from safescale_ammt.stages import evaluate_safety, register_model
from safescale_ammt.store.base import Store
from safescale_ammt.store.protected import set_apart
from safescale_ammt.store.uri import open_store

KEYS, PARTS, ROWS = "keys.parquet", "parts.parquet", "sealed.parquet"


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A copy of a trained model that keeps its promises, to forge at."""
    honest = build(tmp_path_factory.getbasetemp() / "world")
    return whole(honest, tmp_path / "world")


@pytest.fixture
def people(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same with two rows of each person."""
    honest = build(tmp_path_factory.getbasetemp() / "persons", each=2)
    return whole(honest, tmp_path / "people")


def whole(honest: World, folder: Path) -> World:
    """Copies a world, with the sealed rows in its holdout."""
    shutil.copytree(honest.folder, folder)
    with preparing.whole(folder / "holdout") as holdout:
        shutil.copytree(holdout, folder / "holdout", dirs_exist_ok=True)
    return World(folder, honest.constitution)


def environ(world: World) -> dict[str, str]:
    return {"SAFESCALE_STORE": (world.folder.parent / "store").as_uri()}


def store_of(world: World) -> Store:
    return open_store(environ(world)["SAFESCALE_STORE"])


def uses(world: World) -> list[Use]:
    return ledger.uses(store_of(world))


def statuses(world: World) -> list[str]:
    return [v.status for v in Registry(store_of(world), "loans").versions()]


def apart(world: World) -> tuple[Path, ...]:
    """Returns the inputs, the rows of the holdout put into the store as they are."""
    dataset, whole, architecture, model = world.inputs
    set_apart(store_of(world), whole, world.folder / "apart")
    return dataset, world.folder / "apart", architecture, model


def judge(world: World, name: str = "v", **safety: Any) -> dict[str, Any]:
    return evaluate_safety.run(
        *apart(world),
        world.constitution,
        safety,
        world.folder / name,
        environ=environ(world),
    )


def register(world: World, name: str = "v") -> dict[str, Any]:
    return register_model.run(
        world.folder / "model",
        world.folder / name,
        world.constitution,
        {"name": "loans"},
        world.folder / f"version-{name}",
        environ=environ(world),
    )


def reseal(folder: Path, outside: Collection[str] = (), **parents: str) -> str:
    """Writes a manifest anew; returns the identity that it gives."""
    old = read_json(folder / "manifest.json")
    left = {n for n, entry in old["files"].items() if not entry["identity"]}
    kept = {n: e for n, e in read_manifest(folder).files.items() if e.apart}
    draft = Draft(folder, old["parents"] | parents, left | {*outside}, kept)
    new = describe(folder, draft, old["kind"], old["stage"], old["config_digest"])
    write_json(folder / "manifest.json", new.to_dict())
    return read_manifest(folder).identity


def reseal_all(world: World) -> None:
    """Makes holdout, dataset, architecture and model name one another again."""
    dataset, holdout, architecture, model = world.inputs
    origin = read_json(dataset / "source.json")
    write_json(dataset / "source.json", origin | {"holdout": reseal(holdout)})
    about = {"dataset": reseal(dataset)}
    reseal(model, **about, architecture=reseal(architecture, **about))


def change(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def other_keys(table: pa.Table, name: str) -> pa.Table:
    keys = pa.array([os.urandom(16) for _ in range(len(table))], pa.binary(16))
    return table.set_column(table.column_names.index(name), name, keys)


def test_weights_that_no_digest_names_are_never_judged(world: World) -> None:
    """They could be exchanged between verdict and gate."""
    reseal(world.folder / "model", ["weights.safetensors"])
    with pytest.raises(IntegrityError, match=r"leaves weights\.safetensors out"):
        judge(world)
    assert uses(world) == []


@pytest.mark.parametrize("kind", ["dataset", "holdout", "architecture"])
def test_an_input_whose_digest_leaves_a_file_out_is_refused(
    world: World, kind: str
) -> None:
    names = {"dataset": "counts.json", "holdout": ROWS, "architecture": "genome.json"}
    reseal(world.folder / kind, [names[kind]])
    with pytest.raises(IntegrityError, match=f"of the {kind} leaves {names[kind]} out"):
        judge(world)
    assert run_command(["verify", str(world.folder / kind)]) == 3


def test_what_the_check_of_a_bundle_refuses_is_never_registered(world: World) -> None:
    """The event that names a champion comes after the last check, not before it."""
    judge(world)
    page = world.folder / "v" / "provenance.json"
    write_json(page, read_json(page) | {"sealed_rows": 1_000_000})
    reseal(world.folder / "v")
    with pytest.raises(IntegrityError, match="number of sealed rows"):
        register(world)
    assert statuses(world) == []


FORGED: dict[str, tuple[str, Callable[[pa.Table], pa.Table], str]] = {
    "no keys": (KEYS, lambda t: t.slice(0, 0), "no keys of kind 'file'"),
    "no files": (
        KEYS,
        lambda t: t.filter(pa.compute.not_equal(t["kind"], "file")),
        "no keys of kind 'file'",
    ),
    "keys of another form": (KEYS, lambda t: t.drop(["kind"]), "no keys of rows"),
    "keys with gaps": (
        KEYS,
        lambda t: t.set_column(1, "key", pa.nulls(len(t), pa.binary(16))),
        "no keys of rows",
    ),
    "keys that are numbers": (
        KEYS,
        lambda t: t.set_column(1, "key", pa.array(range(len(t)))),
        "no keys of rows",
    ),
    "a share that is no number": (
        PARTS,
        lambda t: t.replace_schema_metadata(t.schema.metadata | {b"twins": b"nan"}),
        "counts or shares that no rows have",
    ),
    "a count that is no number": (
        PARTS,
        lambda t: t.replace_schema_metadata(t.schema.metadata | {b"rows": b"inf"}),
        "no keys of parts",
    ),
    "fewer than none": (
        PARTS,
        lambda t: t.replace_schema_metadata(t.schema.metadata | {b"others": b"-5"}),
        "counts or shares that no rows have",
    ),
    "the lucky rows alone": (ROWS, lambda t: t.slice(0, 700), "holds 700 sealed rows"),
}


@pytest.mark.parametrize("forged", FORGED)
def test_sealed_rows_without_the_keys_of_such_rows_are_refused(
    world: World, forged: str
) -> None:
    name, made, sentence = FORGED[forged]
    change(world.folder / "holdout" / name, made)
    reseal_all(world)
    with pytest.raises(IntegrityError, match=sentence):
        judge(world)
    assert uses(world) == []


@pytest.mark.parametrize("kind", ["entity", "varying", "file"])
def test_rows_of_people_have_the_keys_of_these_people(people: World, kind: str) -> None:
    change(
        people.folder / "holdout" / KEYS,
        lambda t: t.filter(pa.compute.not_equal(t["kind"], kind)),
    )
    reseal_all(people)
    with pytest.raises(IntegrityError, match=f"no keys of kind '{kind}'"):
        judge(people)


@pytest.mark.parametrize("stated", [{"rows": 3}, {"rows": "9999"}, {}, [], None])
def test_a_sampling_that_no_draw_has_is_one_sentence(
    people: World, stated: object
) -> None:
    file = people.folder / "holdout" / "sampling.json"
    if stated is None:
        file.unlink()
    else:
        write_json(file, stated)
    reseal_all(people)
    with pytest.raises((InputError, IntegrityError), match=r"sampling\.json"):
        judge(people)


@pytest.mark.parametrize(
    ("safety", "says"),
    [
        ({"rehearse": True}, "binds nobody: it is a rehearsal"),
        ({"ledger": "research"}, "for a registry: its use was for research"),
        ({}, ""),
    ],
)
def test_a_decision_that_releases_nothing_is_told_as_such(
    world: World,
    safety: dict[str, Any],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    judge(world, **safety)
    store = environ(world)["SAFESCALE_STORE"]
    assert run_command(["verify", str(world.folder / "v"), "--store", store]) == 0
    told = capsys.readouterr().out
    assert ("not evidence  Its decision" in told) is bool(says)
    assert says in told


def test_either_keys_or_parts_or_hashes_alone_are_known_again(world: World) -> None:
    """Whatever two of three a forger exchanges, the third one tells."""
    assert judge(world)["guarantee"] == "holds"
    folder = world.folder / "holdout"
    for name in (KEYS, ROWS, PARTS):
        shutil.copy(folder / name, world.folder / name)
    forged: dict[str, Callable[[pa.Table], pa.Table]] = {
        ROWS: lambda t: other_keys(t, "_row"),
        KEYS: lambda t: other_keys(t, "key"),
        PARTS: lambda t: t.slice(0, 0),
    }
    for kept in forged:
        for name, made in forged.items():
            shutil.copy(world.folder / name, folder / name)
            if name != kept:
                change(folder / name, made)
        reseal_all(world)
        assert judge(world, f"v-{kept}")["guarantee"] == "spent"


def test_rows_and_keys_that_are_made_up_as_a_whole_are_not_known_again(
    world: World,
) -> None:
    """What no check here can find: the rows that were prepared anew tell it."""
    assert judge(world)["guarantee"] == "holds"
    honest = Verdict.load(world.folder / "v").holdout
    folder = world.folder / "holdout"
    change(folder / ROWS, lambda t: other_keys(t, "_row"))
    change(folder / KEYS, lambda t: other_keys(t, "key"))
    change(folder / PARTS, lambda t: t.slice(0, 0))
    reseal_all(world)
    assert judge(world, "again")["guarantee"] == "holds"
    assert register(world, "again")["status"] == "champion"
    assert Verdict.load(world.folder / "again").holdout != honest


def test_a_twin_that_training_made_poor_is_not_found(world: World) -> None:
    """The gate trains no twin: a promise about it is as good as who trained it."""
    file = world.folder / "model" / "twin" / "weights.safetensors"
    save_file({k: np.zeros_like(v) for k, v in load_file(file).items()}, file)
    reseal(world.folder / "model")
    judge(world)
    verdict = Verdict.load(world.folder / "v")
    assert verdict.twin_accuracy < verdict.accuracy
    assert verdict.decision == "pass"


BROKEN_OFF = """
import json, os, resource, signal, sys
from safescale_ammt.stages.evaluate_safety import run

def watch(event, arguments):
    # FileStore brings an object to its place by a link; the next thing is written.
    if event == "os.link" and str(arguments[1]).endswith("00000002.json"):
        watch.opened = True
    elif watch.opened and event == "open" and "partial" in str(arguments[0]):
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

watch.opened = False
how, (inputs, constitution, out, store) = sys.argv[1], json.loads(sys.argv[2])
sys.addaudithook(watch)
run(*inputs, constitution, {}, out, environ={"SAFESCALE_STORE": store})
"""


@pytest.mark.parametrize("how", ["kill", "full"])
def test_a_judgement_that_broke_off_once_its_rows_were_open_is_made_again_the_same(
    world: World, how: str
) -> None:
    """By a kill or a full disk, after the ledger has it and before a byte is there."""
    job = [
        [str(path) for path in apart(world)],
        world.constitution,
        str(world.folder / "v"),
        environ(world)["SAFESCALE_STORE"],
    ]
    broken = Child([sys.executable, "-c", BROKEN_OFF, how, json.dumps(job)])
    assert broken.wait() == (-signal.SIGKILL if how == "kill" else 1)
    assert not (world.folder / "v").exists()
    (use,) = uses(world)
    assert use.opened

    assert judge(world)["guarantee"] == "holds"
    assert uses(world) == [use]
    (opening,) = use.openings
    assert read_manifest(world.folder / "v").identity == opening.verdict
    assert register(world)["status"] == "champion"
