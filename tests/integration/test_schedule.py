"""`safescale schedule`: of all that was ever scheduled, the last alone fires."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from children import Child
from kfp_api.server import KfpApi
from kfp_api.state import RUNNING, Scene
from patience import PATIENCE

from pipelines.cli import run_command
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.preparation import KubeflowRequest, RunSpec, prepare
from pipelines.kubeflow.recurring import list_recurring
from pipelines.kubeflow.schedule import roll
from pipelines.kubeflow.session import Session
from pipelines.kubeflow.timing import Timing
from safescale_ammt.errors import SafescaleError
from safescale_ammt.retry import RetryPolicy

ROOT = Path(__file__).parents[2]
ADULT = ROOT / "pipelines" / "adult.yaml"
MONDAYS = ("--cron", "0 3 * * 1")
FOLDER = (
    *("--set", "data.source=s3://team/rows/", "--set", "data.label=income"),
    *("--set", "data.sealed_source=s3://team/test.csv", "--window", "7d"),
)
"""A folder of dated files in place of the one file that adult is."""
NAME = "adult-income"


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFESCALE_STORE", "s3://team/data")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("pipelines.kubeflow.recurring.SETTLE", 0.05)


@pytest.fixture
def api():
    with KfpApi() as api:
        api.world.script = (Scene(RUNNING),)
        yield api


@pytest.fixture(scope="module")
def prepared() -> RunSpec:
    return prepare(
        KubeflowRequest(ADULT, store="s3://team/data", cache=False, recurring=True)
    )


def schedule(api: KfpApi, *more: str) -> int:
    return run_command(["schedule", "--host", api.url, *more])


def firing(api: KfpApi) -> list[str]:
    """Returns the ids of the recurring runs that really fire."""
    return api.world.enabled()


def test_the_first_schedule_of_a_name_fires_at_once(api, capsys):
    assert schedule(api, *MONDAYS, *FOLDER, "--concurrency", "2") == 0
    said = "Schedule 'adult-income' fires: cron '0 0 3 * * 1'."
    assert capsys.readouterr().out.splitlines() == [said]
    (item,) = api.world.recurring.values()
    made = item.recurring_run_id
    assert api.world.history == [("created ENABLED", made)]
    assert item.trigger.cron_schedule.cron == "0 0 3 * * 1"
    assert item.max_concurrency == "2"
    assert item.no_catchup is True
    assert item.service_account == "safescale-pipeline"


def test_each_run_of_a_schedule_brings_rows_of_its_own(api):
    assert schedule(api, *MONDAYS, *FOLDER) == 0
    (item,) = api.world.recurring.values()
    given = item.runtime_config.parameters
    assert given["window"] == "7d"
    # Other bytes each time: a digest of today's would refuse next week's.
    assert given["data"]["source_digest"] == ""
    graph = item.pipeline_spec["pipeline_spec"]
    dags = [graph["root"]["dag"]]
    dags += [c["dag"] for c in graph["components"].values() if "dag" in c]
    for task in (task for dag in dags for task in dag["tasks"].values()):
        assert not task.get("cachingOptions", {}).get("enableCache")


SEALED = ("--set", "data.sealed_source=s3://team/sealed/")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), "no --window is given"),
        ((*FOLDER, *SEALED, "--window", ""), "no --window is given"),
        (FOLDER, "s3://team/test.csv stays whole"),
        ((*FOLDER, *SEALED), ""),
    ],
)
def test_who_schedules_the_same_sealed_rows_again_is_told(api, capsys, arguments, why):
    assert schedule(api, *MONDAYS, *arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(why)
    assert all(why in line and "guarantee is spent" in line for line in lines)
    assert all("needs_human" in line for line in lines)


SEVERAL = "may judge the same newest days"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((), ""),
        (("--catch-up",), f"with --catch-up several runs {SEVERAL}"),
        (("--concurrency", "2"), f"with --concurrency several runs {SEVERAL}"),
    ],
)
def test_who_lets_runs_meet_is_told_what_they_spend(api, capsys, arguments, why):
    assert schedule(api, *MONDAYS, *FOLDER, *SEALED, *arguments) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(why)
    assert all(why in line for line in lines)


def test_the_same_schedule_twice_changes_nothing(api, capsys):
    assert schedule(api, *MONDAYS) == 0
    before = list(api.world.history)
    assert schedule(api, *MONDAYS) == 0
    assert api.world.history == before
    assert "is unchanged" in capsys.readouterr().out


def test_a_new_schedule_takes_over_and_what_runs_goes_on(api):
    assert schedule(api, *MONDAYS) == 0
    (old,) = firing(api)
    run = api.world.fire(old)
    assert schedule(api, "--every", "7d") == 0
    (new,) = firing(api)
    assert new != old
    assert api.world.runs[run.run_id].state != "FAILED"
    assert not api.world.killed
    assert api.world.fire(old) is None
    # The new one fires before the old one stops: no gap, and no deletion ever.
    switched = api.world.history[-2:]
    assert switched == [("ENABLED", new), ("DISABLED", old)]
    assert not any(method == "DELETE" for method, _ in api.requests)


def test_deleting_would_have_killed_it(api):
    """The API of these tests does what makes deletion forbidden."""
    assert schedule(api, *MONDAYS) == 0
    (old,) = firing(api)
    run = api.world.fire(old)
    kubeflow = Kubeflow(Session(api.url))
    service = kubeflow.schedules
    service.recurring_run_service_delete_recurring_run(old)
    assert api.world.killed == [run.run_id]
    states = [kubeflow.runs.run_service_get_run(run.run_id).state for _ in range(4)]
    assert set(states) <= {"PENDING", "RUNNING"}


def test_going_back_to_an_older_schedule_makes_it_the_newest(api):
    for when in (MONDAYS, ("--every", "7d"), MONDAYS):
        assert schedule(api, *when) == 0
    assert len(api.world.recurring) == 3
    (head,) = firing(api)
    assert head == list(api.world.recurring)[-1]


def test_another_cause_with_the_same_name_is_left_alone(api):
    assert schedule(api, *MONDAYS) == 0
    (ours,) = firing(api)
    foreign = api.world.recurring[ours]
    foreign.description = "made by hand"
    assert schedule(api, *MONDAYS) == 0
    assert len(firing(api)) == 2
    assert foreign.status == "ENABLED"


@pytest.mark.parametrize("kind", ["lose", "drop", 502, 500])
@pytest.mark.parametrize("path", ["/recurringruns", ":enable", ":disable"])
def test_a_lost_answer_leaves_one_schedule(api, path, kind):
    assert schedule(api, *MONDAYS) == 0
    api.trouble(kind, "POST", path)
    assert schedule(api, "--every", "7d") == 0
    assert len(firing(api)) == 1
    assert len(api.world.recurring) == 2


@pytest.mark.parametrize("path", [":enable", ":disable"])
def test_a_caller_that_is_killed_half_way_is_healed_by_the_next(api, tmp_path, path):
    assert schedule(api, *MONDAYS) == 0
    (old,) = firing(api)
    run = api.world.fire(old)
    # The head of before is ordered on first of all; what hangs comes after that.
    spared = {":enable": 1, ":disable": 0}[path]
    api.trouble("hang", "POST", path, seconds=120.0, after=spared)
    command = [sys.executable, "-m", "pipelines", "schedule", "--host", api.url]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = Child(
        [*command, "--every", "7d"],
        cwd=tmp_path,
        env=environ,
        stderr=subprocess.DEVNULL,
    )
    while not _asked(api, path, old):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=PATIENCE)
    assert len(firing(api)) == (1 if path == ":enable" else 2)
    assert schedule(api, "--every", "7d") == 0
    (new,) = firing(api)
    assert new != old
    assert len(api.world.recurring) == 2
    assert api.world.runs[run.run_id].state != "FAILED"


def _asked(api: KfpApi, path: str, old: str) -> bool:
    """Says whether the new one was ordered on, or the old one off."""
    asked = {p.rpartition("/")[2] for _, p in list(api.requests) if p.endswith(path)}
    others = asked - {f"{old}{path}"}
    return bool(others) if path == ":enable" else f"{old}{path}" in asked


@pytest.mark.parametrize("specs", [(60, 60, 60), (60, 120, 180)])
def test_callers_at_the_same_time_leave_one_schedule(api, prepared, specs):
    kubeflows = [Kubeflow(Session(api.url), RetryPolicy(total=PATIENCE)) for _ in specs]
    said: list[str] = []

    def call(kubeflow: Kubeflow, every: int) -> None:
        try:
            said.append(roll(kubeflow, NAME, prepared, Timing(every=every)))
        except SafescaleError as error:
            said.append(str(error))

    threads = [
        threading.Thread(target=call, args=pair)
        for pair in zip(kubeflows, specs, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (head,) = firing(api)
    assert head == list_recurring(kubeflows[0], NAME)[-1].id
    assert len(said) == len(specs)
    assert all("fires" in line or "is unchanged" in line for line in said)


def test_a_schedule_can_be_paused_resumed_and_list_recurring(api, capsys):
    assert schedule(api, *MONDAYS) == 0
    assert schedule(api, "--every", "7d") == 0
    where = ["--host", api.url]
    assert run_command(["schedule", "pause", NAME, *where]) == 0
    assert not firing(api)
    assert run_command(["schedule", "resume", NAME, *where]) == 0
    assert len(firing(api)) == 1
    capsys.readouterr()
    assert run_command(["schedule", "list", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[3] for line in lines] == ["off", "off", "off", "fires"]
    assert all(re.search(r"\d\d:\d\d UTC  ", line) for line in lines)
    assert run_command(["schedule", "pause", "nobody", *where]) == 2


def test_listings_longer_than_a_page_are_read_to_their_end(api, prepared):
    kubeflow = Kubeflow(Session(api.url))
    for number in range(3):
        roll(kubeflow, NAME, prepared, Timing(every=60 + number))
    (first, *_) = api.world.recurring.values()
    for number in range(120):
        other = type(first)(**{k: getattr(first, k) for k in first.openapi_types})
        other.recurring_run_id = f"{number:036d}"
        other.description = f"number {number}"
        api.world.recurring[other.recurring_run_id] = other
    assert len(list_recurring(kubeflow, NAME)) == 3


def test_in_multi_user_mode_schedules_stay_in_their_namespace(api, tmp_path):
    api.world.multi_user = True
    api.tokens = {"one": ("team-a",), "two": ("team-b",)}
    for token, team in (("one", "team-a"), ("two", "team-b")):
        (tmp_path / token).write_text(token)
        more = ("--namespace", team, "--token-file", str(tmp_path / token))
        assert schedule(api, *MONDAYS, *more) == 0
    assert len(firing(api)) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either --cron or --every"),
        ([*MONDAYS, "--every", "7d"], "either --cron or --every"),
        (["--cron", "0 0 31 2 *"], "never comes"),
        (["--cron", "0 25 * * *"], "no hour"),
        (["--every", "1s"], "too short"),
        ([*MONDAYS, "--concurrency", "11"], "1<=x<=10"),
        ([*MONDAYS, "--start", "2030-01-02", "--end", "2030-01-01"], "comes after"),
        ([*MONDAYS, "--end", "2020-01-01"], "in the past"),
        (
            [*MONDAYS, "--start", "2030-01-01", "--end", "2030-01-02"],
            "Cron '0 0 3 * * 1' does not come before --end",
        ),
        (["--cron", "0 0 31 2 */2"], "both day and weekday must fit"),
        ([*MONDAYS, "--window", "soon"], "soon"),
        ([*MONDAYS, *FOLDER, "--window", "2026-11-09/2026-11-16"], "same days for"),
        ([*MONDAYS, *FOLDER, "--window", "7d/2026-11-16"], "such as 7d"),
        ([*MONDAYS, "--name", "a/b"], "is no name"),
        (["--namespace", "team", "list"], "Options of `schedule list` stand after"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_not_made(api, capsys, arguments, said):
    assert schedule(api, *arguments) == 2
    assert said in capsys.readouterr().err
    assert not api.world.recurring
