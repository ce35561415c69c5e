"""Outcome: how a process of a distributed training tells what ended it.

A launcher sees exit codes at best, and `torchrun` turns them all into 1. So each
process that fails leaves `rank-<r>.json` in a place that the request names; the
first that is no consequence of another's end is what the stage passes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safescale_ammt.errors import Interrupted, PeerLost
from safescale_ammt.execution import describe
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.store.base import Store
from safescale_ammt.store.uri import open_store

CONSEQUENCES = (PeerLost.__name__, Interrupted.__name__)
"""Classes of errors by which a process notices that another went away."""


def place(where: str, environ: Mapping[str, str] = os.environ) -> Store:
    """Opens a place: a folder's path, or a store's URI."""
    uri = where if "://" in where else Path(where).absolute().as_uri()
    return open_store(uri, environ=environ)


def report_failure(store: Store, rank: int, error: BaseException) -> None:
    """Leaves word of what ended a process."""
    name, code, sentence = describe("train_agents", error)
    said = {"rank": rank, "class": name, "code": code, "sentence": sentence}
    store.put(f"rank-{rank}.json", canonical_json({**said, "time": time.time()}))


def first_failure(
    where: str, environ: Mapping[str, str] = os.environ
) -> dict[str, Any] | None:
    """Returns the report of the process that failed first, None without any.

    Returns:
        rank, class, code, sentence, time. A process that was stopped because
        another went away counts only if no other has left word.
    """
    store = place(where, environ)
    found = [json.loads(store.get(info.key)) for info in store.list("rank-")]
    found.sort(key=lambda f: (f["class"] in CONSEQUENCES, f["time"]))
    return found[0] if found else None


def forget(where: str, environ: Mapping[str, str] = os.environ) -> None:
    """Deletes the reports of an earlier attempt."""
    store = place(where, environ)
    for info in list(store.list("rank-")):
        store.delete(info.key)
