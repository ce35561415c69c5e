"""Signed heads: what a person keeps of the logs, and what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from approval_world import ALICE, BOB, START, World

from pipelines.cli import run_command
from safescale_ammt.errors import InputError, IntegrityError
from safescale_ammt.files.canonical import read_json, write_json
from safescale_ammt.releasing.envelope import opened, public_key_of, seal
from safescale_ammt.releasing.key_files import new_key
from safescale_ammt.releasing.signed_heads import (
    LogHead,
    check_heads,
    heads_of,
    read_heads,
    sign_heads,
)
from safescale_ammt.store.base import Store


@pytest.fixture
def world(file_store: Store, tmp_path: Path) -> World:
    """A registry of two versions and an approval; there is no ledger."""
    world = World(file_store, tmp_path)
    world.register()
    world.register(gap=0.0)
    world.act("approve", ALICE)
    return world


def signed(world: World) -> dict[str, object]:
    heads = heads_of(world.store, world.store, ["loans"])
    return sign_heads(heads, BOB, START)


def cut_off(world: World) -> None:
    """Removes the newest event, as who holds every key of the store can."""
    newest = max(i.key for i in world.store.list("registry/loans/events/"))
    world.store.delete(newest)


def test_a_signed_head_holds_while_logs_grow_and_misses_what_is_cut_off(
    world: World,
) -> None:
    heads = read_heads(signed(world))
    assert heads.key == public_key_of(BOB)
    (head,) = heads.heads
    assert (head.place, head.prefix, head.sequence) == ("registry", "registry/loans", 3)
    world.act("approve", BOB)
    check_heads(heads, world.store, world.store)
    for _ in range(2):
        cut_off(world)
    # Without the head nothing is amiss.
    assert len(world.registry().verify()) == 2
    with pytest.raises(IntegrityError, match=r"ends with event 2, but the head that"):
        check_heads(heads, world.store, world.store)


def test_an_event_that_was_written_anew_is_another(world: World) -> None:
    heads = read_heads(signed(world))
    cut_off(world)
    world.act("approve", ALICE)
    with pytest.raises(IntegrityError, match="the log was written anew"):
        check_heads(heads, world.store, world.store)


def test_a_head_that_was_changed_or_says_more_is_none(world: World) -> None:
    envelope = signed(world)
    with pytest.raises(IntegrityError, match="is not of what stands in the envelope"):
        read_heads({**envelope, "signatures": signed_by_another(envelope)})
    for statement in ({}, {"predicate": {"heads": [], "issued": "now", "key": ""}}):
        with pytest.raises(IntegrityError, match="no heads of ours"):
            read_heads(seal(statement, BOB))


@pytest.mark.parametrize(
    "heads",
    [
        (),
        (LogHead("elsewhere", "registry/loans", 1, "sha256:0"),),
        (LogHead("registry", "registry/loans", 0, "sha256:0"),),
        (LogHead("data", "ledger", -5, "sha256:0"),),
    ],
)
def test_a_signed_head_is_of_an_event_of_ours(heads: tuple[LogHead, ...]) -> None:
    envelope = sign_heads(heads, BOB, START) if heads else signed_nothing()
    with pytest.raises(IntegrityError, match="no heads of ours"):
        read_heads(envelope)


def signed_nothing() -> dict[str, object]:
    envelope = sign_heads([LogHead("data", "ledger", 1, "")], BOB, START)
    statement = dict(opened(envelope).statement)
    predicate = {**statement["predicate"], "heads": []}
    statement = {**statement, "subject": [], "predicate": predicate}
    return seal(statement, BOB)


def signed_by_another(envelope: dict[str, object]) -> list[dict[str, str]]:
    (signature,) = envelope["signatures"]  # type: ignore[misc]
    return [{**signature, "keyid": public_key_of(ALICE)}]


def test_there_is_no_head_of_nothing(file_store: Store) -> None:
    with pytest.raises(InputError, match="no event in registry and ledger"):
        sign_heads(heads_of(file_store, file_store, []), BOB, START)


def test_the_commands_sign_heads_and_verify_them(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, head = tmp_path / "auditor.key", tmp_path / "kept" / "head.json"
    public, store = new_key(key), ("--store", world.store.uri)
    words = ["registry", "head", "--key", str(key), "-o", str(head), *store]
    assert run_command(words) == 0
    assert "Wrote the heads of 1 logs to" in capsys.readouterr().out
    verify = ["registry", "verify", "--head", str(head), *store]
    assert run_command(verify) == 0
    assert f"1 logs hold it, signed by {public}" in capsys.readouterr().out
    assert run_command([*verify, "--signer", public]) == 0
    assert run_command([*verify, "--signer", public_key_of(ALICE)]) == 3
    assert "--signer is" in capsys.readouterr().err
    cut_off(world)
    assert run_command(["registry", "verify", *store]) == 0
    assert run_command(verify) == 3
    assert "The signed head does not hold." in capsys.readouterr().err
    write_json(head, {**read_json(head), "payloadType": "text"})
    assert run_command(verify) == 3
    assert run_command(["registry", "verify", "--signer", public, *store]) == 2


def test_no_head_is_signed_of_what_does_not_verify(
    world: World, tmp_path: Path
) -> None:
    key = tmp_path / "auditor.key"
    new_key(key)
    (report,) = (
        i.key
        for i in world.store.list(world.registry().show(1).entry.bundle)
        if i.key.endswith("card.md")
    )
    world.store.put(report, b"approved")
    head = tmp_path / "head.json"
    words = ["registry", "head", "--key", str(key), "-o", str(head)]
    assert run_command([*words, "--store", world.store.uri]) == 3
    assert not head.exists()
