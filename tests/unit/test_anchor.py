"""Anchors: a log that was cut off or written anew is found from outside of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from safescale_ammt.errors import IntegrityError, StorageError
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.anchor import (
    ANCHORS,
    check_ledger_heads,
    check_registry_head,
    keep_ledger_heads,
    keep_registry_head,
)
from safescale_ammt.releasing.sealed_uses import Use
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import EventLog
from safescale_ammt.store.folder import FileStore
from safescale_ammt.store.uri import open_store


def digest(word: str) -> str:
    return digest_bytes(word.encode())


@pytest.fixture
def registry(tmp_path: Path) -> Store:
    """A store that only the gate can write to."""
    return open_store((tmp_path / "registry").as_uri())


def use(store: Store, model: str) -> Use:
    """Reserves and opens a use of rows of the model's own."""
    made = ledger.reserve(
        store,
        rows=[hashlib.sha256(model.encode()).digest()[:16]],
        model=digest(model),
        holdout=digest("h"),
        planned=1,
        constitution=digest("c"),
    )
    return ledger.mark_opened(store, made, evidence=digest("e"), verdict=digest("v"))


def cut(store: Store, prefix: str, kept: int) -> None:
    """Deletes the newest events of a log."""
    for info in list(store.list(f"{prefix}/events/")):
        if int(info.key[-13:-5]) > kept:
            store.delete(info.key)


@pytest.mark.parametrize("kept", [3, 2, 1, 0])
def test_a_ledger_that_was_cut_off_is_found_by_the_next_gate(
    file_store: Store, registry: Store, kept: int
) -> None:
    use(file_store, "a")
    use(file_store, "b")
    keep_ledger_heads(registry, file_store)
    assert check_ledger_heads(registry, file_store) == 4
    head = EventLog(file_store, "ledger").read()[-1].digest
    cut(file_store, "ledger", kept)
    # The log itself shows nothing.
    assert len(EventLog(file_store, "ledger").read()) == kept
    for look in (check_ledger_heads, keep_ledger_heads):
        with pytest.raises(IntegrityError) as error:
            look(registry, file_store)
        assert error.value.exit_code == 3
        assert f"ends with event {kept}" in str(error.value)
        assert f"{4 - kept} were cut off" in str(error.value)
        assert head in str(error.value)


def test_uses_that_follow_a_cut_do_not_hide_it(
    file_store: Store, registry: Store
) -> None:
    use(file_store, "a")
    use(file_store, "b")
    keep_ledger_heads(registry, file_store)
    cut(file_store, "ledger", 2)
    for model in "cde":
        use(file_store, model)
    with pytest.raises(IntegrityError, match=r"Event 4 .*was written anew") as error:
        keep_ledger_heads(registry, file_store)
    kept = EventLog(registry, ANCHORS).read()[-1].body["heads"]["ledger"]["digest"]
    assert kept in str(error.value)
    assert EventLog(file_store, "ledger").read()[3].digest in str(error.value)


def test_a_fresh_ledger_in_another_store_does_not_serve_the_same_registry(
    file_store: Store, registry: Store, tmp_path: Path
) -> None:
    use(file_store, "a")
    keep_ledger_heads(registry, file_store)
    other = open_store((tmp_path / "other").as_uri())
    with pytest.raises(IntegrityError, match="or this is another log"):
        keep_ledger_heads(registry, other)
    use(other, "a")
    with pytest.raises(IntegrityError, match="or this is another log"):
        keep_ledger_heads(registry, other)


def test_a_ledger_that_was_moved_whole_is_the_same_ledger(
    file_store: Store, registry: Store, tmp_path: Path
) -> None:
    use(file_store, "a")
    keep_ledger_heads(registry, file_store)
    moved = open_store((tmp_path / "moved").as_uri())
    for info in file_store.list():
        moved.put(info.key, file_store.get(info.key))
    use(moved, "b")
    keep_ledger_heads(registry, moved)
    assert check_ledger_heads(registry, moved) == 4


def test_an_old_research_ledger_that_was_cut_off_is_found(
    file_store: Store, registry: Store
) -> None:
    EventLog(file_store, "research-ledger").append(lambda events: ("reserved", {}))
    keep_ledger_heads(registry, file_store)
    cut(file_store, "research-ledger", 0)
    with pytest.raises(IntegrityError, match="research-ledger ends with event 0"):
        keep_ledger_heads(registry, file_store)


def test_a_gate_that_is_repeated_adds_no_anchor(
    file_store: Store, registry: Store
) -> None:
    keep_ledger_heads(registry, file_store)
    assert EventLog(registry, ANCHORS).read() == []
    use(file_store, "a")
    for _ in range(3):
        keep_ledger_heads(registry, file_store)
    assert len(EventLog(registry, ANCHORS).read()) == 1
    use(file_store, "b")
    keep_ledger_heads(registry, file_store)
    heads = [e.body["heads"]["ledger"] for e in EventLog(registry, ANCHORS).read()]
    assert [head["sequence"] for head in heads] == [2, 4]


def test_uses_since_the_last_gate_are_beyond_an_anchor(
    file_store: Store, registry: Store
) -> None:
    """As the documentation says: for these, the objects have to be locked."""
    use(file_store, "a")
    keep_ledger_heads(registry, file_store)
    use(file_store, "b")
    cut(file_store, "ledger", 2)
    keep_ledger_heads(registry, file_store)
    assert check_ledger_heads(registry, file_store) == 2


def test_the_ledger_and_its_anchor_may_lie_in_one_store(file_store: Store) -> None:
    use(file_store, "a")
    keep_ledger_heads(file_store, file_store)
    cut(file_store, "ledger", 1)
    with pytest.raises(IntegrityError, match="1 were cut off"):
        keep_ledger_heads(file_store, file_store)


def test_a_changed_anchor_is_found(file_store: Store, registry: Store) -> None:
    use(file_store, "a")
    keep_ledger_heads(registry, file_store)
    key = f"{ANCHORS}/events/00000001.json"
    registry.put(key, registry.get(key).replace(b'"sequence":2', b'"sequence":1'))
    with pytest.raises(IntegrityError, match="was changed after it was written"):
        keep_ledger_heads(registry, file_store)


class Unconditional(FileStore):
    """A store that overlooks the condition of a write, as some S3 servers do."""

    def put(self, key, data, *, if_absent=False):  # type: ignore[no-untyped-def]
        super().put(key, data)


def test_a_store_without_conditional_writes_keeps_no_anchor(
    file_store: Store, tmp_path: Path
) -> None:
    use(file_store, "a")
    with pytest.raises(StorageError, match="ignores 'If-None-Match"):
        keep_ledger_heads(Unconditional(tmp_path / "weak"), file_store)


def log_of(store: Store, *words: str, name: str = "loans") -> None:
    for word in words:
        EventLog(store, f"registry/{name}").append(
            lambda events, word=word: (word, {})  # type: ignore[misc]
        )


def test_a_registry_that_was_cut_off_is_found_by_the_ledger(
    file_store: Store, registry: Store
) -> None:
    use(file_store, "a")
    log_of(registry, "one", "two")
    check_registry_head(registry, file_store, "loans")
    keep_registry_head(registry, file_store, "loans")
    check_registry_head(registry, file_store, "loans")
    head = EventLog(registry, "registry/loans").read()[-1].digest
    cut(registry, "registry/loans", 1)
    with pytest.raises(IntegrityError, match="registry/loans ends with event 1") as e:
        check_registry_head(registry, file_store, "loans")
    assert head in str(e.value)
    log_of(registry, "three")
    with pytest.raises(IntegrityError, match=r"Event 2 of .*registry/loans"):
        check_registry_head(registry, file_store, "loans")
    # Its events are no uses, and the count goes on.
    assert len(ledger.verify(file_store)) == 1
    assert use(file_store, "b").number == 1


def test_an_anchor_of_a_registry_never_goes_back(
    file_store: Store, registry: Store
) -> None:
    log_of(registry, "one", "two")
    for _ in range(2):
        keep_registry_head(registry, file_store, "loans")
    log_of(registry, "one", name="homes")
    keep_registry_head(registry, file_store, "homes")
    bodies = [event.body for event in EventLog(file_store, "ledger").read()]
    assert [(b["name"], b["sequence"]) for b in bodies] == [("loans", 2), ("homes", 1)]
    cut(registry, "registry/loans", 1)
    check_registry_head(registry, file_store, "homes")


def test_registries_of_one_name_in_two_stores_are_apart(
    file_store: Store, registry: Store, tmp_path: Path
) -> None:
    log_of(registry, "one", "two")
    keep_registry_head(registry, file_store, "loans")
    other = open_store((tmp_path / "other").as_uri())
    log_of(other, "one")
    check_registry_head(other, file_store, "loans")
