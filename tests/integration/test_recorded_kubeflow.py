"""What a real Kubeflow answered, through the product and beside the test servers.

Each recorded flow is asked again, question by question, by the product's client; the
commands that were recorded are run again against their answers; and the servers that
stand for Kubeflow in all other tests are held against the shape of what was recorded.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.api import ClusterApi
from kfp_api.server import KfpApi
from kfp_api.wire import to_json
from replay.recordings import Exchange, events, exchanges, names
from replay.server import ReplayServer
from submit_world import QUICK, SOURCE, leave_home

from pipelines.cli import run_command
from pipelines.ir import CompiledPipeline
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.session import Session
from safescale_ammt.cluster.api import Api
from safescale_ammt.cluster.resources import PODS
from safescale_ammt.cluster.watch import changes
from safescale_ammt.errors import InputError
from safescale_ammt.retry import RetryPolicy

ROOT = Path(__file__).parents[2]
Call = Callable[[Kubeflow, Exchange], Any]


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Nothing of this machine's own reaches the command."""
    leave_home(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    """Our pipeline, as a server gives it back."""
    text = (ROOT / "tests" / "golden" / "train.yaml").read_text(encoding="utf-8")
    return CompiledPipeline.parse(text).to_api()


def _listing(service: str, method: str) -> Call:
    def ask(kubeflow: Kubeflow, asked: Exchange) -> Any:
        given: dict[str, Any] = dict(asked.query)
        if "page_size" in given:
            given["page_size"] = int(given["page_size"])
        parent = re.search(r"pipelines/([^/]+)/versions", asked.path)
        if parent:
            given["pipeline_id"] = parent[1]
        return kubeflow.call("listing", getattr(service_of(kubeflow), method), **given)

    def service_of(kubeflow: Kubeflow) -> Any:
        return getattr(kubeflow, service)

    return ask


def _of_one(service: str, method: str, key: str) -> Call:
    def ask(kubeflow: Kubeflow, asked: Exchange) -> Any:
        one = asked.path.rsplit("/", 1)[-1].partition(":")[0]
        call = getattr(getattr(kubeflow, service), method)
        return kubeflow.call_once("asking", call, **{key: one})

    return ask


def _making(service: str, method: str, key: str) -> Call:
    def ask(kubeflow: Kubeflow, asked: Exchange) -> Any:
        call = getattr(getattr(kubeflow, service), method)
        return kubeflow.call_once("making", call, **{key: asked.request})

    return ask


def _upload(kubeflow: Kubeflow, asked: Exchange) -> Any:
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        call = kubeflow.uploads.upload_pipeline_version
        return kubeflow.call_once(
            "uploading", call, uploadfile=file.name, **dict(asked.query)
        )


_RUN, _JOB = "run_id", "recurring_run_id"
_JOBS = "recurring_run_service"
CALLS: tuple[tuple[str, str, Call], ...] = (
    ("GET", "/healthz", lambda kubeflow, _: kubeflow.health),
    ("GET", "/runs", _listing("runs", "run_service_list_runs")),
    ("POST", "/runs", _making("runs", "run_service_create_run", "run")),
    ("GET", "/runs/[^/]+", _of_one("runs", "run_service_get_run", _RUN)),
    ("POST", ".*:terminate", _of_one("runs", "run_service_terminate_run", _RUN)),
    (
        "GET",
        "/experiments",
        _listing("experiments", "experiment_service_list_experiments"),
    ),
    ("GET", "/pipelines", _listing("pipelines", "pipeline_service_list_pipelines")),
    (
        "GET",
        "/pipelines/[^/]+/versions",
        _listing("pipelines", "pipeline_service_list_pipeline_versions"),
    ),
    ("POST", "/pipelines/upload_version", _upload),
    (
        "GET",
        "/recurringruns",
        _listing("schedules", f"{_JOBS}_list_recurring_runs"),
    ),
    (
        "POST",
        "/recurringruns",
        _making("schedules", f"{_JOBS}_create_recurring_run", "recurring_run"),
    ),
    (
        "POST",
        ".*:enable",
        _of_one("schedules", f"{_JOBS}_enable_recurring_run", _JOB),
    ),
    (
        "POST",
        ".*:disable",
        _of_one("schedules", f"{_JOBS}_disable_recurring_run", _JOB),
    ),
)


def ask(kubeflow: Kubeflow, asked: Exchange) -> Any:
    """Asks a recorded question by the product's client."""
    path = asked.path.removeprefix("/apis/v2beta1")
    for method, form, call in CALLS:
        if method == asked.method and re.fullmatch(form, path):
            return call(kubeflow, asked)
    raise AssertionError(f"The product has no call for {asked.method} {asked.path}.")


@pytest.mark.parametrize("flow", names("kfp-"))
def test_the_client_reads_every_answer_of_the_flow(flow, pipeline, tmp_path):
    """Nothing is lost on the way, and a no is quoted where its cause stands."""
    for asked in exchanges(flow, pipeline):
        with ReplayServer([asked]) as server:
            kubeflow = Kubeflow(Session(server.url), RetryPolicy(total=0))
            if asked.status == 200:
                assert as_json(ask(kubeflow, asked)) == asked.answer
                continue
            with pytest.raises(InputError) as caught:
                ask(kubeflow, asked)
        if asked.status != 401:
            cause = asked.answer["details"][0]["message"]
            who = re.search(r"system:serviceaccount:[a-z:-]+", cause)
            assert (who[0] if who else cause) in str(caught.value)


def as_json(found: Any) -> Any:
    return json.loads(to_json(found)) if not isinstance(found, dict) else found


def replayed(flow: str, pipeline: dict[str, Any], *command: str) -> tuple[int, Any]:
    """Runs a command against the answers of a flow."""
    recorded = exchanges(flow, pipeline)
    # Some were recorded from a later question on; the first three are always the same.
    known = {(asked.method, asked.path) for asked in recorded}
    first = exchanges("kfp-rehearse-trainjob-seed7")[:3]
    recorded += [asked for asked in first if (asked.method, asked.path) not in known]
    with ReplayServer(recorded) as server:
        code = run_command([command[0], "--host", server.url, *command[1:]])
        return code, server


SUBMITTED = {
    "kfp-submit-trainjob-succeeds": ((), 0, "Register model done"),
    "kfp-rehearse-trainjob-seed7": (("--rehearse",), 0, "Register model done"),
    "kfp-full-run-no-cache-pods-killed": (("--timeout", "9"), 1, "goes on"),
    "kfp-long-train-pod-killed": (("--timeout", "9"), 1, "goes on"),
    "kfp-stage-fails-missing-file": (("--name", "rec-missing"), 1, "Prepare data"),
    "kfp-stopped-while-waiting-for-a-node": (("--name", "rec-stop"), 1, "Search arch"),
}


@pytest.mark.parametrize("flow", SUBMITTED)
def test_a_run_ends_for_who_submits_it_as_it_ended(flow, pipeline, capsys):
    more, code, said = SUBMITTED[flow]
    ended, server = replayed(flow, pipeline, "submit", *SOURCE, *QUICK, *more)
    shown = capsys.readouterr()
    assert ended == code, shown.err
    assert said in shown.err
    assert server.asked.count(("POST", "/apis/v2beta1/runs")) == 1


RUN = "5ae6666e-6179-4883-a304-a67afc0fcfcf"
FOLLOWED = {
    "kfp-follow-succeeded": (RUN, 0, "passed its gate"),
    "kfp-follow-terminated": ("46c9f41b-cbb3-49e5-b5f7-a539063b576f", 1, "46c9f41b"),
    "kfp-no-token": (RUN, 2, "wants to know who asks"),
    "kfp-forbidden-account": (RUN, 2, "does not allow"),
}


@pytest.mark.parametrize("flow", FOLLOWED)
def test_a_run_is_followed_as_it_was_followed(flow, pipeline, capsys):
    run, code, said = FOLLOWED[flow]
    ended, _ = replayed(flow, pipeline, "submit", *QUICK, "--follow", run)
    shown = capsys.readouterr()
    assert ended == code, shown.err
    assert said in shown.out + shown.err


@pytest.mark.parametrize("flow", ["kfp-wrong-token", "kfp-wrong-audience"])
def test_a_token_that_was_not_taken_is_named_by_its_file(
    flow, pipeline, tmp_path, capsys
):
    file = tmp_path / "token"
    file.write_text("a-token-of-the-test")
    more = ("--token-file", str(file), "--follow", RUN)
    ended, _ = replayed(flow, pipeline, "submit", *QUICK, *more)
    assert ended == 2
    assert f"does not accept the token in {file}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flow", "said"),
    [("kfp-upload", "Uploaded version rec-1"), ("kfp-upload-again", "is there")],
)
def test_an_upload_ends_as_it_ended(flow, said, capsys, tmp_path):
    command = ["--upload-only", "--version-name", "rec-1", *SOURCE]
    with KfpApi() as api:  # gives our pipeline as this machine compiles it
        assert run_command(["submit", "--host", api.url, *command]) == 0
        (spec,) = {json.dumps(v.pipeline_spec) for v in api.world.versions.values()}
    capsys.readouterr()
    ended, _ = replayed(flow, json.loads(spec), "submit", *command)
    shown = capsys.readouterr()
    assert ended == 0, shown.err
    assert said in shown.out


@pytest.mark.parametrize(
    "flow",
    [
        "kfp-schedule-list",
        "kfp-schedule-list-after-a-fire",
        "kfp-schedule-list-paused",
    ],
)
def test_a_schedule_is_listed_as_it_was(flow, pipeline, capsys):
    recorded = exchanges(flow, pipeline)
    found = exchanges("kfp-schedule-create")[2].answer["experiments"]
    found += recorded[-1].answer["recurringRuns"]
    for item in found:  # each may be asked for by itself
        kind = "recurringruns" if "recurring_run_id" in item else "experiments"
        name = item.get("recurring_run_id") or item["experiment_id"]
        path = f"/apis/v2beta1/{kind}/{name}"
        recorded.append(Exchange("GET", path, 200, "application/json", item))
    with ReplayServer(recorded) as server:
        assert run_command(["schedule", "list", "--host", server.url]) == 0
    (line,) = [li for li in capsys.readouterr().out.splitlines() if "rec-nightly" in li]
    assert "0 * * * * *" in line
    off = {"off", "paused"} & set(line.split())
    assert bool(off) == flow.endswith("paused")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch) -> Iterator[ReplayServer]:
    """The Kubernetes that was recorded: the doctor's questions and two watches."""
    job, pods = "kubernetes-trainjob-watch", "kubernetes-trainjob-pods-watch"
    root = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/safescale/trainjobs"
    core = "/api/v1/namespaces/safescale/pods"
    none = {"metadata": {"resourceVersion": "33373"}, "items": []}
    listed = [
        Exchange("GET", path, 200, "application/json", none) for path in (root, core)
    ]
    recorded = [*exchanges("kubernetes-doctor"), *listed]
    with ReplayServer(recorded, {root: events(job), core: events(pods)}) as server:
        config = ClusterApi()
        config.token = "token-of-the-test"
        file = config.write_kubeconfig(tmp_path / "kubeconfig")
        file.write_text(file.read_text().replace(config.url, server.url))
        monkeypatch.setenv("KUBECONFIG", str(file))
        yield server


def test_kfp_doctor_and_kubernetes_doctor_find_the_cluster_well(
    cluster, pipeline, capsys
):
    with ReplayServer(exchanges("kfp-doctor", pipeline)) as kubeflow:
        host = ("--host", kubeflow.url, "--patience", "0", "--json")
        backend = ("--set", "training.backend=trainjob")
        run_command(["doctor", *host, *backend])
    found = {f["check"]: f["state"] for f in json.loads(capsys.readouterr().out)}
    asked = ("kubeflow", "version", "access", "kubernetes", "namespace", "runtime")
    assert {name: found[name] for name in asked} == dict.fromkeys(asked, "ok")


def test_kubernetes_trainjob_watch_shows_each_change_of_the_job(cluster, tmp_path):
    name = "safescale-train-52680018516dc43f"
    with Api.connect({"KUBECONFIG": str(tmp_path / "kubeconfig")}) as api:
        seen = changes(api, name)
        assert next(seen) is None  # before it was made
        shown = [next(seen) for _ in events("kubernetes-trainjob-watch")]
    assert shown[-1] is None  # deleted
    states = [
        [(c["type"], c["reason"]) for c in job.get("status", {}).get("conditions", [])]
        for job in shown
        if job
    ]
    # No condition at all while it runs.
    assert states == [[]] * 4 + [[("Complete", "AllJobsCompleted")]] * 2


def test_kubernetes_trainjob_pods_watch_shows_the_pods_life(cluster, tmp_path):
    with Api.connect({"KUBECONFIG": str(tmp_path / "kubeconfig")}) as api:
        lines = list(api.lines("watch", PODS, "", "", {"watch": "true"}))
    phases = [json.loads(line)["object"]["status"]["phase"] for line in lines]
    assert list(dict.fromkeys(phases)) == ["Pending", "Running", "Succeeded"]
