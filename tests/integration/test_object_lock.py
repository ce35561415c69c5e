"""Object lock: a record that its store keeps against everybody, on a real SeaweedFS."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from minio.error import S3Error
from trained_world import World, build

from safescale_ammt.errors import (
    ConfigError,
    IntegrityError,
    StorageError,
    StoreInputError,
)
from safescale_ammt.files.canonical import read_json
from safescale_ammt.releasing.ledger import verify as verify_ledger
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.retention import lock_objects
from safescale_ammt.stages import evaluate_safety, register_model
from safescale_ammt.store.auditor import place_of
from safescale_ammt.store.base import Store
from safescale_ammt.store.embedded.server import EmbeddedStore
from safescale_ammt.store.environment import registry_variable
from safescale_ammt.store.s3 import S3Store
from safescale_ammt.store.uri import STORE, open_store

NOW = datetime.now(UTC)


@pytest.fixture
def locking(s3_server: EmbeddedStore) -> S3Store:
    """A bucket that was made with object lock."""
    bucket = f"locked-{uuid.uuid4().hex[:12]}"
    store = open_store(f"s3://{bucket}/here", environ=s3_server.environ)
    assert isinstance(store, S3Store)
    store._clients.plain.make_bucket(bucket, object_lock=True)
    return store


def destroy(store: S3Store, key: str, version: str) -> None:
    """Removes a version for good, as who has every right of the account can."""
    store._clients.plain.remove_object(store._bucket, f"here/{key}", version)


def test_a_locked_version_is_destroyed_by_nobody_and_comes_back(
    locking: S3Store,
) -> None:
    locking.put("a/b", b"as decided")
    kept = lock_objects(locking, "a/", 3, NOW)
    assert kept == lock_objects(locking, "a/", 3, NOW)
    assert list(kept) == ["a/b"]
    with pytest.raises(S3Error, match="AccessDenied"):
        destroy(locking, "a/b", kept["a/b"])
    # What covers it hides it alone.
    locking.put("a/b", b"as somebody would have it")
    locking.delete("a/b")
    assert not locking.exists("a/b")
    answer = locking._clients.plain.get_object(
        locking._bucket, "here/a/b", version_id=kept["a/b"]
    )
    assert answer.read() == b"as decided"
    answer.close()


def test_a_lock_grows_and_never_shrinks(locking: S3Store) -> None:
    locking.put("a", b"x")
    version = locking.lock("a", NOW + timedelta(days=9))
    for days in (2, 30):
        assert locking.lock("a", NOW + timedelta(days=days)) == version
    held = locking._clients.plain.get_object_retention(
        locking._bucket, "here/a", version
    )
    assert held is not None
    assert held.mode == "COMPLIANCE"
    assert (held.retain_until_date - NOW).days >= 29


def test_a_store_without_locks_is_one_sentence(store: Store) -> None:
    store.put("a", b"x")
    with pytest.raises(
        StoreInputError, match=r"/a cannot be locked until .* no object"
    ):
        lock_objects(store, "a", 3, NOW)
    assert lock_objects(store, "a", 0, NOW) == {}


@pytest.mark.parametrize("days", [-1, 36_501])
def test_days_that_are_none_are_one_sentence(days: int) -> None:
    from safescale_ammt.config.sections import RegistryConfig

    with pytest.raises(ConfigError, match="record_retention_days"):
        RegistryConfig(record_retention_days=days)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.getbasetemp() / "world")


def released(
    world: World,
    folder: Path,
    environ: dict[str, str],
    days: int,
    trained: Path | None = None,
) -> dict[str, Any]:
    """Judges a model and registers it, its record kept for some days."""
    world.kept_in(open_store(environ[STORE], environ=environ))
    model, verdict = trained or world.folder / "model", folder / "verdict"
    inputs = (*world.inputs[:3], model)
    evaluate_safety.run(*inputs, world.constitution, {}, verdict, environ=environ)
    section = {"name": "loans", "record_retention_days": days}
    return register_model.run(
        model, verdict, world.constitution, section, folder / "version", environ=environ
    )


def test_the_gate_locks_bundle_and_events_and_keeps_the_ids_of_versions(
    world: World, tmp_path: Path, s3_server: EmbeddedStore, locking: S3Store
) -> None:
    environ = {**s3_server.environ, STORE: locking.uri}
    told = released(world, tmp_path, environ, 2)
    locked = read_json(tmp_path / "version" / "version.json")["locked"]
    assert locked == told["locked"]
    bundle = told["bundle"].removeprefix(f"{locking.uri}/")
    files = {info.key for info in locking.list(f"{bundle}/")}
    events = {
        f"{log}/events/00000001.json" for log in ("registry/loans", "registry/_ledger")
    }
    assert set(locked) == files | events
    # One use of the rows: reserved, opened, and the registry's head.
    ledger = told["locked_data"]
    assert set(ledger) == {f"ledger/events/0000000{n}.json" for n in (1, 2, 3)}
    for key, version in (locked | ledger).items():
        with pytest.raises(S3Error, match="AccessDenied"):
            destroy(locking, key, version)
    assert [v.status for v in Registry(locking, "loans").verify()] == ["champion"]
    # Hashes of people's rows may have to go: without them the count stops.
    for info in list(locking.list("ledger/rows/")):
        stat = locking._clients.plain.stat_object(locking._bucket, f"here/{info.key}")
        assert stat.version_id
        destroy(locking, info.key, stat.version_id)
    with pytest.raises(IntegrityError, match=r"ledger/rows/.* is missing"):
        verify_ledger(locking)


def test_logs_that_are_locked_go_on(
    world: World, tmp_path: Path, s3_server: EmbeddedStore, locking: S3Store
) -> None:
    environ = {**s3_server.environ, STORE: locking.uri}
    first = released(world, tmp_path / "a", environ, 2)
    model = world.train("another", 7)
    again = released(world, tmp_path / "b", environ, 3, model)
    assert (first["version"], again["version"]) == (1, 2)
    # Of events that were locked before the same version stays, for longer.
    for name in ("locked_data",):
        both = first[name].keys() & again[name].keys()
        assert {key: first[name][key] for key in both} == {
            key: again[name][key] for key in both
        }
        assert again[name].keys() > first[name].keys()
    held = locking._clients.plain.get_object_retention(
        locking._bucket,
        "here/ledger/events/00000001.json",
        again["locked_data"]["ledger/events/00000001.json"],
    )
    assert held is not None
    assert (held.retain_until_date - NOW).total_seconds() > 2.9 * 86_400


def test_a_ledger_elsewhere_without_locks_is_said_and_refuses_nothing(
    world: World,
    tmp_path: Path,
    s3_server: EmbeddedStore,
    locking: S3Store,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environ = {STORE: (tmp_path / "store").as_uri()} | {
        registry_variable(key): value
        for key, value in {**s3_server.environ, STORE: locking.uri}.items()
    }
    told = released(world, tmp_path, environ, 2)
    assert told["status"] == "champion"
    assert "locked_data" not in told
    assert "ledger/events/00000001.json cannot be locked" in told["not_locked"]
    assert "The ledger is not locked:" in capsys.readouterr().err
    assert "registry/_ledger/events/00000001.json" in told["locked"]


def test_the_verdict_behind_a_bit_is_locked_with_its_bundle(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    s3_server: EmbeddedStore,
    locking: S3Store,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "one-bit"
    told = released(
        build(folder, planned=4, feedback="bit"),
        tmp_path,
        {**s3_server.environ, STORE: locking.uri},
        2,
    )
    kept = {info.key for info in locking.list("auditor/")}
    assert f"{place_of(told['verdict'])}/evidence.parquet" in kept
    assert kept < told["locked_data"].keys()
    with pytest.raises(S3Error, match="AccessDenied"):
        destroy(locking, "auditor/key", told["locked_data"]["auditor/key"])


def test_nothing_is_registered_where_the_record_cannot_be_locked(
    world: World, tmp_path: Path
) -> None:
    environ = {STORE: (tmp_path / "store").as_uri()}
    with pytest.raises(StorageError, match=r"registry\.record_retention_days to 0"):
        released(world, tmp_path, environ, 2)
    assert Registry(open_store(environ[STORE]), "loans").versions() == []
