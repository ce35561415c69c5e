"""The append-only log: chained, complete, and honest about its store."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from safescale_ammt.errors import InputError, IntegrityError, StorageError
from safescale_ammt.files.canonical import canonical_json, digest_json
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import Draft, Event, EventLog, check_digests
from safescale_ammt.store.folder import FileStore


def _adds(word: str) -> Callable[[Sequence[Event]], Draft]:
    return lambda events: ("said", {"word": word, "after": len(events)})


def _filled(store: Store) -> EventLog:
    log = EventLog(store, "log", lambda: datetime(2030, 1, 2, tzinfo=UTC))
    for word in ("one", "two", "three"):
        log.append(_adds(word))
    return log


def _rewrite(store: Store, sequence: int, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    key = f"log/events/{sequence:08d}.json"
    raw = json.loads(store.get(key))
    change(raw)
    store.put(key, canonical_json(raw) + b"\n")


def test_events_come_back_in_order_each_linked_to_the_one_before(
    file_store: Store,
) -> None:
    one, two, three = _filled(file_store).read()
    assert [e.body["word"] for e in (one, two, three)] == ["one", "two", "three"]
    assert (one.previous, two.previous, three.previous) == ("", one.digest, two.digest)
    assert (three.sequence, three.at) == (3, "2030-01-02T00:00:00+00:00")


def test_nothing_is_added_when_there_is_nothing_to_add(file_store: Store) -> None:
    log = _filled(file_store)
    assert log.append(lambda events: None) is None
    assert len(log.read()) == 3


def test_a_writer_that_was_overtaken_decides_anew(file_store: Store) -> None:
    log = _filled(file_store)
    seen: list[int] = []

    def slow(events: Sequence[Event]) -> Draft:
        seen.append(len(events))
        if len(seen) == 1:
            log.append(_adds("faster"))
        return "said", {"word": "slow", "after": len(events)}

    event = log.append(slow)
    assert event is not None
    assert seen == [3, 4]
    assert [e.body["after"] for e in log.read()] == [0, 1, 2, 3, 4]


def test_a_changed_event_is_found(file_store: Store) -> None:
    log = _filled(file_store)
    _rewrite(file_store, 3, lambda raw: raw["body"].update(word="lie"))
    with pytest.raises(
        IntegrityError, match=r"00000003\.json was changed .*sha256:.*sha256:"
    ):
        log.read()


def test_a_forged_event_breaks_the_chain(file_store: Store) -> None:
    log = _filled(file_store)

    def forge(raw: dict) -> None:  # type: ignore[type-arg]
        raw["body"]["word"] = "lie"
        del raw["digest"]
        raw["digest"] = digest_json(raw)

    _rewrite(file_store, 2, forge)
    with pytest.raises(IntegrityError, match="does not follow the event before it"):
        log.read()


def test_a_removed_event_is_found(file_store: Store) -> None:
    log = _filled(file_store)
    file_store.delete("log/events/00000002.json")
    with pytest.raises(IntegrityError, match=r"00000002\.json is missing"):
        log.read()


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"schema":1}'])
def test_a_damaged_event_is_found(file_store: Store, data: bytes) -> None:
    log = _filled(file_store)
    file_store.put("log/events/00000001.json", data)
    with pytest.raises(IntegrityError, match="is damaged: it is no event"):
        log.read()


def test_an_event_of_a_later_schema_is_not_guessed_at(file_store: Store) -> None:
    log = _filled(file_store)
    _rewrite(file_store, 1, lambda raw: raw.update(schema=2))
    with pytest.raises(InputError, match="has schema 2, this version reads 1"):
        log.read()


class Careless(FileStore):
    """A store like older ones: it takes the condition and ignores it."""

    def put(
        self, key: str, data: bytes | BinaryIO | Path, *, if_absent: bool = False
    ) -> None:
        super().put(key, data)


def test_a_store_that_ignores_conditions_is_refused_at_once(tmp_path: Path) -> None:
    log = EventLog(Careless(tmp_path), "log")
    with pytest.raises(StorageError, match="ignores 'If-None-Match"):
        log.append(_adds("one"))
    assert log.read() == []


def test_a_write_that_does_not_stay_is_noticed(tmp_path: Path) -> None:
    class Forgetful(FileStore):
        def get(self, key: str) -> bytes:
            return b"somebody else's"

    with pytest.raises(StorageError, match="overwrite each other's events"):
        EventLog(Forgetful(tmp_path), "log").append(_adds("one"))


@pytest.mark.parametrize("value", ["", "sha256:12", "A" * 71, "sha256:" + "G" * 64])
def test_a_malformed_digest_is_named(value: str) -> None:
    with pytest.raises(InputError, match="the model is"):
        check_digests(model=value)
