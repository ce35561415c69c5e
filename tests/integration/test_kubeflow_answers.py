"""What KFP's server does beside its documentation, and what is made of it.

Each case is from its source at 2.17.0 or from a real plane; the test server answers
as they do.
"""

from __future__ import annotations

import json
import threading
import time

import pytest
import submit_world
from kfp_api.lives import CANCELING, FAILED, RUNNING, SUCCEEDED, Scene
from kfp_api.server import KfpApi
from kfp_api.world import life
from submit_world import leave_home

from pipelines.kubeflow import runs
from pipelines.kubeflow.answers import Rejection, Unreachable, message
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.session import Session
from safescale_ammt.errors import InputError
from safescale_ammt.retry import RetryPolicy

QUICK = RetryPolicy(total=5.0, first=0.01, longest=0.02)


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Nothing of this machine's own reaches the command."""
    leave_home(monkeypatch, tmp_path)


@pytest.fixture
def api():
    with KfpApi() as api:
        api.world.script = life()
        yield api


@pytest.fixture
def kubeflow(api) -> Kubeflow:
    return Kubeflow(Session(api.url), QUICK)


def submit(api: KfpApi, *more: str) -> int:
    return submit_world.submit(api, "--patience", "5", *more)


def follow(api: KfpApi, run: str) -> int:
    return submit_world.submit(api, "--follow", run)


def started(api: KfpApi, *scenes: Scene) -> str:
    """Starts a run with a life of its own; returns its id."""
    api.world.script = scenes
    assert submit(api, "--no-wait") == 0
    return next(reversed(api.world.runs))


def stops(api: KfpApi) -> int:
    return sum(path.endswith(":terminate") for _, path in api.requests)


GOING = (Scene(RUNNING, {"prepare-data": RUNNING}),) * 1000


def test_a_stop_that_did_not_reach_the_workflow_is_repeated_until_it_does(
    api, kubeflow
):
    run = started(api, *GOING)
    api.world.deaf = 2  # 500, and until the agent's next report a repeat is 400
    runs.stop(kubeflow, run)
    assert api.world.runs[run].state == CANCELING
    while api.world.look_at(run).state == CANCELING:
        pass
    assert api.world.runs[run].state == FAILED
    assert api.world.deaf == 0


def test_a_stop_that_never_reaches_the_workflow_is_no_success(api):
    run = started(api, *GOING)
    api.world.deaf = 1000
    kubeflow = Kubeflow(Session(api.url), RetryPolicy(total=0.3, first=0.01))
    with pytest.raises(Unreachable, match=r"may go on|i/o timeout"):
        runs.stop(kubeflow, run)


@pytest.mark.parametrize("kind", ["lose", 502])
def test_a_stop_whose_answer_is_lost_counts_once_the_run_has_ended(api, kubeflow, kind):
    run = started(api, *GOING)
    api.trouble(kind, "POST", ":terminate")
    runs.stop(kubeflow, run)
    # 502: it was not carried out, so the second one did. Lost: it had been.
    ended = api.world.runs[run].state
    assert ended == (FAILED if kind == "lose" else CANCELING)


def test_a_run_that_has_ended_needs_no_stop(api, kubeflow):
    run = started(api, Scene(SUCCEEDED))
    api.world.look_at(run)
    runs.stop(kubeflow, run)
    assert stops(api) == 1
    assert api.world.runs[run].state == SUCCEEDED


def test_a_run_that_somebody_else_is_stopping_is_left_to_them(api, kubeflow):
    run = started(api, *GOING)
    api.world.terminate(run)
    runs.stop(kubeflow, run)
    assert stops(api) == 1


def test_a_run_that_is_not_there_cannot_be_stopped(kubeflow):
    with pytest.raises(Rejection, match="HTTP 404"):
        runs.stop(kubeflow, "00000000-0000-4000-8000-000000000000")


def test_a_run_that_is_shown_by_its_ids_alone_starts_no_second_one(api, capsys):
    run = started(api, *GOING)
    name = api.world.runs[run].display_name
    api.world.unreadable.add(run)
    assert submit(api, "--name", name) == 2
    said = capsys.readouterr().err
    assert f"cannot show run {run} (Failed to parse the pipeline source)" in said
    assert "another --name" in said
    assert len(api.world.runs) == 1


def test_a_run_that_cannot_be_shown_is_not_followed_for_ever(api, capsys):
    run = started(api, *GOING)
    api.world.unreadable.add(run)
    assert follow(api, run) == 2
    assert f"cannot show run {run}" in capsys.readouterr().err


def test_a_run_that_can_no_longer_be_shown_ends_the_following(api, capsys):
    def lose(number: str) -> None:
        while api.count("GET", number) < 3:
            time.sleep(0.01)
        api.world.unreadable.add(number)

    run = started(api, *GOING)
    losing = threading.Thread(target=lose, args=(run,), daemon=True)
    losing.start()
    assert follow(api, run) == 2
    losing.join()
    assert "it may go on" in capsys.readouterr().err


def test_runs_are_told_apart_by_their_whole_name(api):
    """The database takes these for one name."""
    assert submit(api, "--no-wait", "--name", "nightly") == 0
    assert submit(api, "--no-wait", "--name", "Nightly") == 0
    assert submit(api, "--no-wait", "--name", "NIGHTLY") == 0
    assert submit(api, "--no-wait", "--name", "Nightly") == 0
    names = [run.display_name for run in api.world.runs.values()]
    assert names == ["nightly", "Nightly", "NIGHTLY"]


@pytest.mark.parametrize("option", ["--name", "--experiment"])
def test_a_name_with_a_blank_at_its_end_is_refused(api, capsys, option):
    assert submit(api, option, "nightly ") == 2
    assert "no blank at the end" in capsys.readouterr().err
    assert not api.requests


def test_an_experiment_that_is_spelled_otherwise_is_named(api, capsys):
    assert submit(api, "--no-wait", "--experiment", "Trials") == 0
    assert submit(api, "--experiment", "trials") == 2
    assert "is there as 'Trials'" in capsys.readouterr().err
    assert len(api.world.experiments) == len(api.world.runs) == 1


def test_an_archived_experiment_takes_no_run(api, capsys):
    assert submit(api, "--no-wait") == 0
    (experiment,) = api.world.experiments
    api.world.store(experiment, "ARCHIVED")
    assert submit(api) == 2
    said = capsys.readouterr().err
    assert "Experiment 'safescale' is archived" in said
    assert len(api.world.runs) == 1
    api.world.store(experiment, "AVAILABLE")
    assert submit(api) == 0


WRAPPED = (
    "Failed to create a new run: InternalServerError: Failed to create a workflow for "
    "(safescale-train-): "
)
REFUSALS = {
    "forbidden": 'workflows.argoproj.io is forbidden: User "kfp" cannot create it',
    "quota": 'workflows "x" is forbidden: exceeded quota: team, used: 8, limited: 8',
    "large": "etcdserver: request is too large",
    "invalid": 'Workflow.argoproj.io "a b" is invalid: metadata.name: Invalid value',
    "webhook": 'admission webhook "guard.example.com" denied the request: no',
    "absent": 'serviceaccounts "nobody" not found',
    "input": "Invalid input error: the pipeline spec is invalid",
}


@pytest.mark.parametrize("why", REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_that_comes_as_a_fault_is_quoted_at_its_end_and_not_repeated(
    api, capsys, why
):
    api.trouble(500, "POST", "/runs", times=99, says=WRAPPED + why)
    assert submit(api) == 2
    said = capsys.readouterr().err
    assert why.rpartition(": ")[2] in said
    assert api.count("POST", "/runs") == 1
    assert not api.world.runs


@pytest.mark.parametrize(
    "why",
    [
        "invalid connection",
        "Error 1213: Deadlock found when trying to get lock",
        "dial tcp 10.96.0.7:3306: connect: connection refused",
    ],
)
def test_a_fault_that_passes_by_itself_is_waited_for(api, why):
    api.trouble(500, "POST", "/runs", times=2, says=WRAPPED + why)
    assert submit(api) == 0
    assert len(api.world.runs) == 1


@pytest.mark.parametrize("name", ["0.1.0_abc", "0.1.0-ABC", "one two", "a..b", "a-"])
def test_a_version_that_kubernetes_cannot_name_leaves_no_pipeline(api, capsys, name):
    api.world.kubernetes_native = True
    assert submit(api, "--upload-only", "--version-name", name) == 2
    assert f"{name!r} is no DNS name" in capsys.readouterr().err
    assert not api.world.pipelines
    assert submit(api, "--upload-only", "--version-name", "0.1.0-abc") == 0


def test_the_test_server_refuses_such_names_as_kfp_does(api, kubeflow, tmp_path):
    api.world.kubernetes_native = True
    (tmp_path / "x.yaml").write_text("a: 1")
    with pytest.raises(Rejection, match='Invalid pipeline name "A B"'):
        kubeflow.call_once(
            "uploading",
            kubeflow.uploads.upload_pipeline,
            uploadfile=str(tmp_path / "x.yaml"),
            name="A B",
        )


def test_a_version_has_at_most_127_letters(api, capsys, kubeflow, tmp_path):
    assert submit(api, "--upload-only", "--version-name", "v" * 128) == 2
    assert "1-127 letters" in capsys.readouterr().err
    assert not api.requests
    assert submit(api, "--upload-only", "--version-name", "v" * 127) == 0
    # The server's own no is plain text, and quoted like any other.
    (tmp_path / "x.yaml").write_text("a: 1")
    with pytest.raises(Rejection, match="Name length cannot exceed 127"):
        kubeflow.call_once(
            "uploading",
            kubeflow.uploads.upload_pipeline_version,
            uploadfile=str(tmp_path / "x.yaml"),
            name="v" * 128,
            pipelineid=next(iter(api.world.pipelines)),
        )


def test_an_upload_without_rights_ends_in_a_sentence(api, tmp_path, capsys):
    """KFP answers 400 there and keeps the reason to itself."""
    api.world.multi_user = True
    api.tokens = {"mine": ("safescale",), "another": ("team",)}
    (tmp_path / "token").write_text("mine")
    token = ("--token-file", str(tmp_path / "token"), "--upload-only")
    assert submit(api, *token, "--version-name", "1") == 0
    api.tokens["mine"] = ("others",)
    assert submit(api, *token, "--version-name", "2") == 2
    assert "does not allow" in capsys.readouterr().err
    assert len(api.world.pipelines) == 1


def test_a_list_goes_on_only_in_its_own_order(api, kubeflow):
    for name in ("one", "two", "three"):
        assert submit(api, "--no-wait", "--name", name) == 0
    listed = kubeflow.runs.run_service_list_runs
    page = kubeflow.call("listing", listed, page_size=1, sort_by="created_at asc")
    token = {"page_size": 1, "page_token": page.next_page_token}
    kubeflow.call("listing", listed, **token)
    kubeflow.call("listing", listed, **token, sort_by="created_at asc")
    with pytest.raises(InputError, match="does not match the supplied sort by"):
        kubeflow.call("listing", listed, **token, sort_by="created_at desc")
    pages = kubeflow.pages("listing", listed, "runs", sort_by="created_at asc")
    assert len(list(pages)) == 3


def told(code: int, whole: str, outside: str) -> str:
    """Returns an error as gRPC's gateway writes it."""
    details = [{"code": code, "message": outside}]
    return json.dumps({"code": code, "message": whole, "details": details})


LONG = ": ".join([f"step {n} of the way failed" for n in range(40)])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, ""),
        ("", ""),
        ("<html>bad gateway</html>", ""),
        ("no healthy upstream", ": no healthy upstream"),
        ('{"error_message": "Failed to create a pipeline"}', "create a pipeline"),
        ('{"code": 13, "message": "A: B: the cause.", "details": []}', ": A: B: the"),
        ('{"message": "' + LONG + ': the cause"}', "step 39 of the way failed: the"),
        (told(3, "A: B: C", "what a client shall read"), ": what a client shall read"),
        (told(13, "A: the cause", "Internal Server Error"), ": A: the cause"),
    ],
)
def test_a_reason_is_quoted_where_its_cause_stands(body, said):
    assert said in message(body)
    assert bool(message(body)) == bool(said)
    assert len(message(body)) < 320


def test_a_run_that_was_retried_goes_on(api, capsys):
    """A person pressed "retry" on a run that had failed."""
    api.world.script = life(FAILED, at="train-agents")
    assert submit(api, "--name", "one") == 1
    (run,) = api.world.runs
    api.world.again = life()[2:]
    api.world.retry(run)
    assert submit(api, "--name", "one") == 0
    states = [entry.state for entry in api.world.runs[run].state_history]
    assert states == ["PENDING", RUNNING, FAILED, RUNNING, SUCCEEDED]
