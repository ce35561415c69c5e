"""What a run needs is there, and the data come into the store once."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from plane import Plane

pytestmark = pytest.mark.cluster


def test_doctor_finds_nothing_missing(
    plane: Plane, look: Callable[[str], None]
) -> None:
    look(f"safescale doctor --namespace {plane.namespace} --store {plane.uri}")
    workload = plane.workload("doctor")
    where = ("--namespace", plane.namespace, "--store", plane.uri)
    done = plane.safescale(
        "doctor", "--json", "--config", str(workload), *where, *plane.options
    )
    assert done.out.strip(), done.last
    findings = json.loads(done.out)
    failed = [f for f in findings if f["state"] == "FAILED"]
    assert not failed, "; ".join(f"{f['check']}: {f['found']}" for f in failed)
    assert done.code == 0, done.last


def test_data_are_brought_once(plane: Plane, look: Callable[[str], None]) -> None:
    look(f"safescale data fetch adult --store {plane.uri}")
    first = plane.safescale("data", "fetch", "adult", "--store", plane.uri)
    assert first.code == 0, first.last
    before = plane.store.stat("data/adult/adult.data")
    again = plane.safescale("data", "fetch", "adult", "--store", plane.uri)
    assert again.code == 0, again.last
    after = plane.store.stat("data/adult/adult.data")
    assert before is not None, "The file is not where a run looks for it."
    assert after == before, "The second fetch wrote the file again."
