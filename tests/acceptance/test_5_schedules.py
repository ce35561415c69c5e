"""Schedules fire once, rest when paused, and one of a name is left after any roll."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from kube import reachable_cluster
from plane import Plane

pytestmark = pytest.mark.cluster
EVERY_MINUTE = "* * * * *"
NEVER_SOON = ("0 3 1 1 *", "0 4 1 1 *", "0 5 1 1 *")
FIRES_WITHIN = 240.0
"""Seconds: a minute, KFP's look every 30 s, its queue, a busy cluster."""


def test_a_schedule_fires_rests_when_paused_and_fires_when_resumed(
    plane: Plane, look: Callable[[str], None]
) -> None:
    name = plane.name("fires")
    look(f"safescale schedule list --namespace {plane.namespace}")
    done = _schedule(plane, "fires", "--cron", EVERY_MINUTE).end(plane.patience)
    assert done.code == 0, done.last
    first = plane.until(
        lambda: _runs(plane, name), "It does not fire.", plane.within(FIRES_WITHIN)
    )
    done = plane.schedule("pause", name)
    assert done.code == 0, done.last
    _end_all(plane, name)
    plane.rest()
    fired = len(_runs(plane, name))
    plane.rest()
    more = len(_runs(plane, name)) - fired
    assert not more, f"It fired {more} times while it was paused."
    done = plane.schedule("resume", name)
    assert done.code == 0, done.last
    plane.until(
        lambda: len(_runs(plane, name)) > fired,
        "It does not fire after `resume`.",
        plane.within(FIRES_WITHIN),
    )
    assert len(first) == 1, f"Its first tick started {len(first)} runs."
    plane.schedule("pause", name)
    _end_all(plane, name)


def test_of_three_rolls_at_once_one_is_left_firing(
    plane: Plane, look: Callable[[str], None]
) -> None:
    name = plane.name("rolled")
    look(f"safescale schedule list --namespace {plane.namespace}")
    workload = plane.workload("rolled")
    rolls = [_schedule(plane, "rolled", "--cron", c, file=workload) for c in NEVER_SOON]
    codes = [roll.end(plane.patience).code for roll in rolls]
    assert 0 in codes, f"All three rolls ended otherwise: {codes}."
    plane.rest()
    firing = _firing(plane, name)
    assert len(firing) == 1, f"{len(firing)} schedules of one name fire."


def test_a_schedule_that_has_ended_is_listed_so_and_not_resumed(
    plane: Plane, look: Callable[[str], None]
) -> None:
    # The word that is looked for is no part of it.
    name = plane.name("over")
    look(f"safescale schedule list --namespace {plane.namespace}")
    end = datetime.now(UTC) + timedelta(seconds=max(15, plane.within(100)))
    text = f"{end:%Y-%m-%dT%H:%M:%S}"
    done = _schedule(plane, "over", "--cron", EVERY_MINUTE, "--end", text).end(
        plane.patience
    )
    assert done.code == 0, done.last

    def ended() -> bool:
        listed = plane.schedule("list").out.splitlines()
        return any(name in line and "ended" in line for line in listed)

    plane.until(ended, "`schedule list` does not say that it has ended.", 300)
    done = plane.schedule("resume", name)
    _end_all(plane, name)
    assert done.code == 2, f"`resume` of an ended schedule exits {done.code}."


def _schedule(plane: Plane, what: str, *more: str, file: Path | None = None) -> Command:
    """Schedules a workload of its own under a name of ours."""
    workload = file or plane.workload(what)
    name = plane.name(what)
    plane.later(f"schedule {name}", lambda: _away(plane, name))
    where = ("--namespace", plane.namespace, "--store", plane.uri)
    given = ("--config", str(workload), *where, *plane.options)
    group = ("--experiment", plane.name("runs"))
    return plane.command("schedule", *given, "--name", name, *group, *more)


def _recurring(plane: Plane, name: str) -> list[Any]:
    found = plane.kubeflow.pages(
        "listing schedules",
        plane.kubeflow.schedules.recurring_run_service_list_recurring_runs,
        "recurring_runs",
        **plane.kubeflow.scope,
    )
    return [r for r in found if r.display_name == name]


def _firing(plane: Plane, name: str) -> list[str]:
    """Returns the ids of those that fire, from Kubernetes where it may be asked."""
    from kubernetes.client import ApiException

    status = {str(r.recurring_run_id): r.status for r in _recurring(plane, name)}
    cluster, _ = reachable_cluster(plane)
    if cluster is not None:
        # KFP's own word may be that of an earlier order.
        group = ("kubeflow.org", "v1beta1", plane.namespace, "scheduledworkflows")
        with suppress(ApiException):
            items = cluster.objects.list_namespaced_custom_object(*group)["items"]
            on = [i["metadata"]["uid"] for i in items if i["spec"].get("enabled")]
            return [uid for uid in on if uid in status]
    return [uid for uid, word in status.items() if word == "ENABLED"]


def _runs(plane: Plane, name: str) -> list[Any]:
    ids = {r.recurring_run_id for r in _recurring(plane, name)}
    runs = plane.kubeflow.pages(
        "listing runs",
        plane.kubeflow.runs.run_service_list_runs,
        "runs",
        sort_by="created_at desc",
        **plane.kubeflow.scope,
    )
    return [r for r in runs if r.recurring_run_id in ids]


def _end_all(plane: Plane, name: str) -> None:
    for run in _runs(plane, name):
        plane.terminate(run.run_id)


def _away(plane: Plane, name: str) -> None:
    """Takes a schedule away: its runs first, or they would stay RUNNING for ever."""
    plane.schedule("pause", name)
    _end_all(plane, name)
    delete = plane.kubeflow.schedules.recurring_run_service_delete_recurring_run
    for item in _recurring(plane, name):
        one = item.recurring_run_id
        plane.kubeflow.call("deleting a schedule", delete, recurring_run_id=one)
