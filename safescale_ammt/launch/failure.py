"""Failure reports: which process of a distributed training failed first, and why.

A launcher sees exit codes at best, and `torchrun` turns them all into 1. So each
process that fails writes `rank-<r>.json` to a place that the request names, and the
stage raises the first that is no consequence of another's end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from safescale_ammt.errors import Interrupted, PeerLost, StorageError
from safescale_ammt.execution import describe
from safescale_ammt.files.canonical import canonical_json
from safescale_ammt.files.json_text import LARGEST, parse_json
from safescale_ammt.launch.request import open_place
from safescale_ammt.store.base import Store

CONSEQUENCES = (PeerLost.__name__, Interrupted.__name__)
"""Classes of errors by which a process notices that another went away."""


def report_failure(store: Store, rank: int, error: BaseException) -> None:
    """Writes the report of the error that ended a process."""
    name, code, sentence = describe("train_agents", error)
    report = {"rank": rank, "class": name, "code": code, "sentence": sentence}
    store.put(f"rank-{rank}.json", canonical_json({**report, "time": time.time()}))


def first_failure(
    where: str, environ: Mapping[str, str] = os.environ
) -> dict[str, Any] | None:
    """Returns the report of the process that failed first, None without any.

    Returns:
        rank, class, code, sentence, time. A process that was stopped because
        another went away counts only if there is no other report.
    """
    store = open_place(where, environ)
    reports = [parse_json(store.get(info.key, LARGEST)) for info in store.list("rank-")]
    # Time alone would not do: clocks of two pods differ by more than the moment
    # between a failure and its consequence.
    reports.sort(key=lambda report: (report["class"] in CONSEQUENCES, report["time"]))
    return reports[0] if reports else None


def may_pass(report: Mapping[str, Any] | None, ended: str) -> bool:
    """Says whether a training that failed may do well when it is begun again.

    What the program itself found fault with, it would find again: a wrong input, a
    refusal, steps without a finite gradient. So would memory that does not suffice.

    Args:
        report: of the process that failed first; None = each was lost without a word.
        ended: how the cluster says that its containers ended; "" where none says so.
    """
    if report is None:
        return "OOMKilled" not in ended
    return report["class"] in (*CONSEQUENCES, StorageError.__name__)


def clear_failures(where: str, environ: Mapping[str, str] = os.environ) -> None:
    """Deletes the reports of an earlier attempt."""
    store = open_place(where, environ)
    for info in list(store.list("rank-")):
        store.delete(info.key)
