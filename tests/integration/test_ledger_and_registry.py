"""Ledger and registry under several writers, on a folder and on SeaweedFS."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from children import Child

from safescale_ammt.files.artifacts import writing
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.releasing import ledger
from safescale_ammt.releasing.anchor import (
    ANCHORS,
    check_ledger_heads,
    keep_ledger_heads,
)
from safescale_ammt.releasing.registry import Registry
from safescale_ammt.releasing.sealed_uses import Use
from safescale_ammt.releasing.versions import Version, VersionEntry
from safescale_ammt.store.base import Store
from safescale_ammt.store.event_log import EventLog
from safescale_ammt.store.uri import open_store

RACE = """
import sys, threading
from safescale_ammt.releasing import ledger
from safescale_ammt.files.canonical import digest_bytes
from safescale_ammt.store.uri import open_store
store = open_store(sys.argv[1])
d = lambda word: digest_bytes(word.encode())
sys.stdin.readline()
use = ledger.reserve(store, rows=[b"0" * 16, sys.argv[2].encode() * 16], planned=2,
                     model=d(sys.argv[2]), holdout=d("h"), constitution=d("c"))
print(use.number, use.guarantee)
"""


def digest(word: str) -> str:
    return digest_bytes(word.encode())


def test_racing_processes_get_different_uses(
    store: Store, s3_environ: dict[str, str]
) -> None:
    runs = [
        Child(
            [sys.executable, "-c", RACE, store.uri, mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **s3_environ},
        )
        for mark in "abc"
    ]
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("go\n")
        run.stdin.flush()
    said = sorted(run.communicate()[0].strip() for run in runs)
    assert said == ["1 holds", "2 holds", "3 spent"]
    assert sorted(use.number for use in ledger.verify(store)) == [1, 2, 3]


def test_the_same_model_reserved_by_two_runs_at_once_has_one_use(
    store: Store,
) -> None:
    found: list[Use] = []
    start = threading.Barrier(3)

    def reserve() -> None:
        start.wait()
        found.append(
            ledger.reserve(
                store,
                rows=np.frombuffer(hashlib.sha256(b"x").digest(), "V16"),
                model=digest("m"),
                holdout=digest("h"),
                planned=1,
                constitution=digest("c"),
            )
        )

    _at_once([threading.Thread(target=reserve) for _ in range(3)])
    assert len(found) == 3
    assert len(set(found)) == 1
    ledger.mark_opened(store, found[0], evidence=digest("e"), verdict=digest("v"))
    (use,) = ledger.uses(store)
    assert use.opened


def test_of_racing_registrations_one_is_champion_and_none_is_lost(
    store: Store, tmp_path: Path
) -> None:
    registry = Registry(store, "race")
    entries = [_entry(registry, tmp_path, word) for word in ("a", "b", "c")]
    made: list[Version] = []
    start = threading.Barrier(3)

    def register(entry: VersionEntry) -> None:
        start.wait()
        made.append(registry.register(entry, expected=0))

    _at_once([threading.Thread(target=register, args=(e,)) for e in entries])
    assert Counter(v.status for v in made) == {"champion": 1, "lost_race": 2}
    assert sorted(v.number for v in made) == [1, 2, 3]
    assert sorted(registry.verify(), key=lambda v: v.number) == sorted(
        made, key=lambda v: v.number
    )
    champion = registry.champion()
    assert champion is not None
    registry.get_bundle(champion, tmp_path / "back")


def test_gates_that_anchor_at_once_agree_and_none_goes_back(
    store: Store, tmp_path: Path
) -> None:
    """Uses come in between: a gate that read less must not take the rest for cut."""
    registry = open_store((tmp_path / "registry").as_uri())
    faults: list[BaseException] = []
    start = threading.Barrier(5)

    def use(word: str) -> None:
        start.wait()
        for turn in range(3):
            made = ledger.reserve(
                store,
                rows=[hashlib.sha256(f"{word} {turn}".encode()).digest()[:16]],
                model=digest(f"{word} {turn}"),
                holdout=digest("h"),
                planned=1,
                constitution=digest("c"),
            )
            ledger.mark_opened(store, made, evidence=digest("e"), verdict=digest("v"))

    def gate() -> None:
        start.wait()
        try:
            for _ in range(4):
                keep_ledger_heads(registry, store)
        except BaseException as error:
            faults.append(error)
            raise

    works: list[tuple[Any, tuple[str, ...]]] = [(use, ("a",)), (use, ("b",))]
    works += [(gate, ())] * 3
    _at_once([threading.Thread(target=work, args=about) for work, about in works])
    assert faults == []
    keep_ledger_heads(registry, store)
    assert check_ledger_heads(registry, store) == 12
    anchors = [e.body["heads"]["ledger"] for e in EventLog(registry, ANCHORS).read()]
    numbers = [anchor["sequence"] for anchor in anchors]
    assert numbers == sorted(set(numbers))
    events = EventLog(store, "ledger").read()
    assert [events[n - 1].digest for n in numbers] == [a["digest"] for a in anchors]


def _entry(registry: Registry, folder: Path, word: str) -> VersionEntry:
    with writing(folder / word, kind="bundle", stage="register_model") as draft:
        draft.outside_identity = set()
        (draft.folder / "card.md").write_text(word)
    stored = registry.put_bundle(folder / word)
    return VersionEntry(
        model=digest(f"model {word}"),
        verdict=digest(f"verdict {word}"),
        constitution=digest("c"),
        dataset=digest("d"),
        holdout=digest("h"),
        architecture=digest("a"),
        decision="pass",
        bundle=stored.prefix,
        bundle_digest=stored.digest,
        code_version="0.1.0",
    )


def _at_once(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
