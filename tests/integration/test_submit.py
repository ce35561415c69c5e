"""`safescale submit` against a Kubeflow API over HTTP: started once, told truly."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import kfp_server_api
import pytest
import yaml
from kfp_api.dex import Dex
from kfp_api.server import KfpApi
from kfp_api.state import FAILED, RUNNING, SUCCEEDED, Scene
from kfp_api.world import STAGES, life
from patience import PATIENCE
from submit_world import PLACE, QUICK, SOURCE, interrupted, leave_home, submit

import components
from pipelines.cli import run_command
from pipelines.commands import kubeflow as commands
from pipelines.commands.options import ADULT
from pipelines.kubeflow import runs
from pipelines.kubeflow.api import Kubeflow
from pipelines.kubeflow.preparation import KubeflowRequest, prepare
from pipelines.kubeflow.revision import Revision
from pipelines.kubeflow.session import Session, in_the_clear
from safescale_ammt import __version__
from safescale_ammt.errors import InputError
from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.retry import RetryPolicy
from safescale_ammt.store.uri import open_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Nothing of this machine's own reaches the command."""
    leave_home(monkeypatch, tmp_path)


@pytest.fixture
def api():
    with KfpApi() as api:
        api.world.script = life()
        yield api


@pytest.mark.parametrize("command", ["submit", "schedule", "doctor"])
def test_help_starts_without_kubeflows_libraries(command):
    code = "import sys; from pipelines.cli import run_command as r; "
    code += (
        f"r(['{command}', '--help']); heavy = ('kfp', 'kfp_server_api', 'kubernetes'"
    )
    code += ", 'torch', 'requests'); print([m for m in heavy if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def outcome(store: Path, api: KfpApi, status: str, sentence: str) -> None:
    """Writes what the gate of the only run writes."""
    run = next(iter(api.world.runs))
    said = RunOutcome.now(run=run, status=status, sentence=sentence)
    said.write(open_store(store.as_uri()))


def submitted(api: KfpApi, store: Path, status: str, sentence: str, *more: str) -> int:
    """Starts a run, lets its gate speak, and follows it to its end."""
    assert submit(api, "--no-wait", "--name", "one", *more) == 0
    outcome(store, api, status, sentence)
    return submit(api, "--name", "one", "--store", store.as_uri(), *more)


def test_what_is_promised_in_vain_is_warned_of_before_anything_starts(
    api, tmp_path, capsys
):
    gap = {"metric": "tpr_gap", "group": "sex", "threshold": 1}
    file = tmp_path / "empty.yaml"
    empty = {"schema": 1, "principles": [{"id": "empty", "constraint": gap}]}
    file.write_text(json.dumps(empty))
    assert submit(api, "--no-wait", "--constitution", str(file)) == 0
    said = capsys.readouterr().err
    assert said.count("Warning: empty cannot be violated by any model") == 1
    assert said.count("so that no model passes by itself") == 1


def test_a_run_is_followed_task_by_task_to_its_champion(api, tmp_path, capsys):
    sentence = "adult-income version 3 is champion."
    assert submitted(api, tmp_path / "store", "champion", sentence) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == sentence
    told = [line.split("] ", 1)[1] for line in shown.err.splitlines()]
    assert [t for t in told if t.endswith("...")] == [
        "Prepare data ...",
        "Search architecture ...",
        "Train agents ...",
        "Evaluate safety ...",
        "Register model ...",
    ]
    assert told[-2:] == ["Register model done", "Notify done"]
    (run,) = api.world.runs.values()
    assert run.service_account == "safescale-pipeline"
    assert "platforms" in run.pipeline_spec["platform_spec"]


@pytest.mark.parametrize(
    "said",
    [
        ("pending", SUCCEEDED, 0),
        ("not_registered", SUCCEEDED, 0),
        ("refused", FAILED, 3),
        # The exit task can fail after a model became champion ...
        ("champion", FAILED, 0),
        # ... and a green run can hide a gate that said no.
        ("refused", SUCCEEDED, 3),
    ],
)
def test_the_exit_code_is_the_verdicts_never_the_statuses(api, tmp_path, capsys, said):
    status, ends, code = said
    api.world.script = life(ends)
    assert submitted(api, tmp_path / "store", status, "What the gate said.") == code
    shown = capsys.readouterr()
    assert (shown.err if code else shown.out).splitlines()[-1] == "What the gate said."


def test_a_run_without_a_record_broke_off_and_says_where(api, tmp_path, capsys):
    api.world.script = life(FAILED, at="train-agents")
    assert submit(api, "--store", (tmp_path / "store").as_uri()) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "broke off in 'Train agents' before its gate had spoken" in said


def test_a_driver_that_fails_is_named_by_its_stage(api, tmp_path, capsys):
    tasks = {"prepare-data": SUCCEEDED, "search-architecture-driver": FAILED}
    api.world.script = (Scene(FAILED, tasks),)
    assert submit(api, "--store", (tmp_path / "store").as_uri()) == 1
    assert "in 'Search architecture'" in capsys.readouterr().err


def test_without_a_store_a_red_run_is_called_neither_refused_nor_crashed(api, capsys):
    api.world.script = life(FAILED)
    assert submit(api) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "does not say whether it was refused or broke off" in said
    assert "no --store is given" in said


def test_without_a_store_a_passed_gate_is_enough(api, capsys):
    assert submit(api) == 0
    assert "passed its gate" in capsys.readouterr().out


def test_a_green_run_without_a_record_in_the_store_is_not_believed(
    api, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("pipelines.kubeflow.endings._LATE", 0.1)
    assert submit(api, "--store", (tmp_path / "other").as_uri()) == 1
    assert "left no record in the store" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["lose", "drop", 502, 500, 503])
def test_an_answer_that_is_lost_never_starts_a_second_run(api, kind):
    api.trouble(kind, "POST", "/runs")
    assert submit(api) == 0
    assert len(api.world.runs) == 1


def test_a_run_that_starts_after_all_is_stopped_beside_its_twin(api):
    api.world.script = (*[Scene(RUNNING)] * 80, *life())
    api.trouble("late", "POST", "/runs", seconds=1.8)
    # 80 looks, 0.05 s apart, are more than 1.8 s: it comes before ours is over.
    assert submit(api) == 0
    assert len(api.world.runs) == 2
    stops = [path for _, path in api.requests if path.endswith(":terminate")]
    first, second = api.world.runs  # ours, and the one that came late
    assert stops == [f"/apis/v2beta1/runs/{second}:terminate"]
    assert any(path.endswith(first) for _, path in api.requests)


def test_two_callers_with_one_name_end_up_with_one_run(api):
    api.world.script = life()
    bodies = prepare(KubeflowRequest(ADULT, store="s3://team/data"))
    found: list[str] = []

    def call() -> None:
        kubeflow = Kubeflow(Session(api.url), RetryPolicy(total=PATIENCE))
        where = runs.experiment_id(kubeflow, "safescale")
        body = runs.run_body(bodies, "nightly", where)
        started = runs.keep_oldest(kubeflow, body, runs.start(kubeflow, body))
        found.append(started.id)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = {run.run_id: run.state for run in api.world.runs.values()}
    going = [run for run, state in states.items() if state != "CANCELING"]
    assert len(going) == 1
    assert going[0] in found


def test_a_name_stands_for_one_run(api, capsys):
    assert submit(api, "--name", "nightly 7") == 0
    assert submit(api, "--name", "nightly 7") == 0
    assert len(api.world.runs) == 1
    assert "run 'nightly 7' is there already" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["drop", 502, 503])
def test_an_api_that_goes_away_is_waited_for(api, capsys, kind):
    assert submit(api, "--no-wait", "--name", "one") == 0
    run = next(iter(api.world.runs))
    # The first look is answered, the next four are not.
    api.trouble(kind, "GET", f"/runs/{run}", times=4, after=1)
    arguments = ["submit", "--host", api.url, *QUICK, "--follow", run]
    assert run_command(arguments) == 0
    said = capsys.readouterr().err
    assert said.count("still trying") == 1
    assert said.count("the API is back after") == 1


def test_a_run_can_be_followed_by_its_id(api, tmp_path, capsys):
    assert submit(api, "--no-wait") == 0
    said = capsys.readouterr().out
    run = next(iter(api.world.runs))
    assert f"safescale submit --follow {run}" in said
    outcome(tmp_path / "store", api, "refused", "No.")
    store = (tmp_path / "store").as_uri()
    arguments = ["submit", "--host", api.url, *QUICK, "--follow", run]
    assert run_command([*arguments, "--store", store]) == 3
    assert len(api.world.runs) == 1


def test_a_run_that_is_not_there_cannot_be_followed(api, capsys):
    assert submit(api, "--follow", "00000000-0000-4000-8000-000000000000") == 2
    assert "There is no such run at" in capsys.readouterr().err


def test_an_upload_follows_no_run(api, capsys):
    assert submit(api, "--upload-only", "--follow", "x") == 2
    assert "Give --upload-only or --follow" in capsys.readouterr().err
    assert not api.world.versions


def test_following_gives_up_in_time_and_says_how_to_come_back(api, capsys):
    api.world.script = (Scene(RUNNING),)
    assert submit(api, "--timeout", "1") == 1
    assert "goes on; `safescale submit --follow" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [False, True])
def test_a_signal_leaves_the_run_alone_unless_asked(api, tmp_path, stop):
    said = interrupted(api, tmp_path, *(["--cancel-on-interrupt"] if stop else []))
    (run,) = api.world.runs.values()
    stopped = any(path.endswith(":terminate") for _, path in api.requests)
    assert stopped == stop
    wanted = "is being stopped" if stop else f"submit --follow {run.run_id}"
    assert wanted in said


def reused(run) -> set[str]:
    """Returns the tasks that a run may take from the cache."""
    spec = run.pipeline_spec["pipeline_spec"]
    dags = [spec["root"]["dag"]]
    dags += [c["dag"] for c in spec["components"].values() if "dag" in c]
    tasks = {name: task for dag in dags for name, task in dag["tasks"].items()}
    assert set(STAGES) <= tasks.keys()
    return {
        n for n, t in tasks.items() if t.get("cachingOptions", {}).get("enableCache")
    }


@pytest.fixture
def lock(tmp_path) -> tuple[str, ...]:
    """Images that were pushed once, by digest."""
    images = {name: {"digest": "sha256:" + 64 * "a"} for name in components.STAGES}
    file = tmp_path / "lock.json"
    said = {"schema": 1, "version": __version__, "images": images}
    file.write_text(json.dumps(said))
    return ("--images", str(file), "--image-prefix", "r.example.org/team")


def test_a_run_reuses_what_digests_name_and_holds_the_digest_itself(api, lock, capsys):
    assert submit(api, *lock) == 0
    (run,) = api.world.runs.values()
    assert reused(run) == set(STAGES) - {"register-model"}
    assert "runs anew" not in capsys.readouterr().err
    # A copy of the run in Kubeflow's pages has another form, and the same constant.
    spec = run.pipeline_spec["pipeline_spec"]["components"]
    (reader,) = (c["dag"]["tasks"]["prepare-data"] for c in spec.values() if "dag" in c)
    digest = {"runtimeValue": {"constant": "sha256:" + 64 * "0"}}
    assert reader["inputs"]["parameters"]["source_digest"] == digest


def test_an_image_that_only_has_a_tag_is_never_reused_and_it_is_said(api, capsys):
    assert submit(api) == 0
    (run,) = api.world.runs.values()
    assert reused(run) == set()
    said = capsys.readouterr().err
    assert "every stage runs anew: other code may bear an image's tag" in said


def test_without_the_cache_nothing_is_reused(api, lock):
    assert submit(api, *lock, "--no-cache") == 0
    (run,) = api.world.runs.values()
    assert reused(run) == set()


def test_an_uploaded_version_reuses_nothing(api, lock):
    assert upload(api, *lock) == 0
    (version,) = api.world.versions.values()
    assert reused(version) == set()


def test_a_run_says_what_it_is_made_of_in_what_the_database_holds(api, tmp_path):
    head = {"id": "i" * 300, "version": "1" * 60, "owner": "me"}
    gap = {"metric": "tpr_gap", "group": "sex", "threshold": 0.1}
    said = {"schema": 1, "constitution": head}
    said["principles"] = [{"id": "fair", "constraint": gap}]
    file = tmp_path / "long.yaml"
    file.write_text(json.dumps(said))
    assert submit(api) == 0
    assert submit(api, "--constitution", str(file)) == 0
    short, long = (run.description for run in api.world.runs.values())
    revision = Revision.find().version
    assert re.fullmatch(
        r"Constitution adult-income 1\.0\.0, sha256:[0-9a-f]{64}; training local; "
        rf"SAFESCALE-AMMT {re.escape(revision)}\norder [0-9a-f]{{32}}",
        short,
    )
    assert len(long) <= 255
    assert re.search(rf"{re.escape(revision)}\norder [0-9a-f]{{32}}$", long)


WAYS = {
    "start": (),
    "no_wait": ("--no-wait",),
    "follow": ("--follow", "00000000-0000-4000-8000-000000000000"),
    "upload_only": ("--upload-only",),
    "promote": ("--pipeline", "promote"),
}
GIVEN = {
    "pipeline": "promote",
    "registry": "loans",
    "version": "3",
    "approvals": "alice.json",
    "config": "x.yaml",
    "constitution": "x.yaml",
    "overrides": "training.seed=7",
    "parameters": "train_cpu=3",
    "image_prefix": "r.example.org",
    "images": "lock.json",
    "store": "s3://team",
    "account": "somebody",
    "experiment": "group",
    "window": "7d",
    "host": "http://127.0.0.1:9",
    "namespace": "team",
    "token_file": "token",
    "ca_file": "ca",
    "patience": "1",
    "name": "one",
    "timeout": "9",
    "poll": "9",
    "version_name": "1",
    "attempts": "2",
}
"""Option -> a value, of those that take one."""
READ = {
    "start": {"rehearse", "no_cache", "wait", "stop"},
    "no_wait": {"rehearse", "no_cache"},
    "follow": {"wait", "timeout", "poll", "stop"},
    "upload_only": {"version_name", "rehearse", "no_cache"},
}
"""Way -> options that it reads, beside those that more than one kind of way does."""
SESSION = {"host", "namespace", "token_file", "ca_file", "patience", "store"}
WORK = {
    *("config", "constitution", "overrides", "parameters", "image_prefix", "images"),
    *("window", "account"),
}
STARTS = WORK | {"experiment", "name"}
FOLLOWS = {"timeout", "poll", "attempts", "wait", "stop"}
READ["start"] |= STARTS | FOLLOWS | {"pipeline"}
READ["no_wait"] |= STARTS | {"pipeline"}
READ["upload_only"] |= WORK | {"pipeline"}
READ["promote"] = {
    *("pipeline", "registry", "version", "approvals"),
    *("parameters", "image_prefix", "images", "account", "experiment", "name"),
} | FOLLOWS


@pytest.mark.parametrize("way", WAYS)
def test_each_option_is_read_or_refused_whatever_submit_is_to_do(way, capsys):
    """A new option of `submit` needs its place in these tables."""
    for option in commands.submit.params:
        if option.name in ("upload_only", "follow") or (
            (way, option.name) == ("no_wait", "wait")
        ):
            continue
        read = option.name in READ[way] | SESSION
        value = () if option.is_flag else (GIVEN[option.name],)
        spelled = [option.opts[0], *value]
        with commands.submit.make_context("submit", [*WAYS[way], *spelled]) as context:
            if read:
                commands.refuse_what_is_unread(context)
            else:
                with pytest.raises(click.UsageError, match=f"^{option.opts[0]}"):
                    commands.refuse_what_is_unread(context)


def test_an_option_that_means_nothing_here_starts_nothing(api, capsys):
    assert submit(api, "--upload-only", "--experiment", "x") == 2
    said = capsys.readouterr().err
    assert "--experiment means nothing with --upload-only" in said
    assert not api.requests


def test_the_defaults_of_a_version_are_those_of_the_command_line(api):
    more = ("--param", "train_memory=8Gi", "--rehearse", "--no-cache")
    assert upload(api, *more, "--window", "7d", "--service-account", "somebody") == 0
    (version,) = api.world.versions.values()
    spec = version.pipeline_spec["pipeline_spec"]
    form = spec["root"]["inputDefinitions"]["parameters"]
    assert form["resources_train_memory"]["defaultValue"] == "8Gi"
    assert form["safety"]["defaultValue"]["rehearse"] is True
    assert form["window"]["defaultValue"] == "7d"
    (pipeline,) = api.world.pipelines.values()
    assert "Service account: somebody (" in pipeline.description
    assert upload(api, "--param", "train_memory=lots") == 2


def test_a_pipeline_is_shown_with_its_name_and_what_it_needs(api):
    assert upload(api) == 0
    (pipeline,) = api.world.pipelines.values()
    assert pipeline.name == "safescale-train"
    assert pipeline.display_name == "SAFESCALE-AMMT: train"
    assert "Service account: safescale-pipeline (" in pipeline.description
    (version,) = api.world.versions.values()
    assert version.description.startswith("Constitution adult-income 1.0.0, sha256:")


def test_values_that_kubeflow_cannot_hand_over_start_nothing(api, tmp_path, capsys):
    names = [f"column_{i:05d}" for i in range(4200)]
    said = yaml.safe_load(ADULT.read_text(encoding="utf-8"))
    note = ADULT.with_name("adult.constitution.yaml").read_text(encoding="utf-8")
    constitution = yaml.safe_load(note)
    constitution["principles"][0]["text"] = "<" * 10_000  # six bytes each, for KFP
    del said["constitution_file"]
    said["constitution"] = constitution
    file = tmp_path / "large.yaml"
    said["data"]["drop"] = names
    file.write_text(yaml.safe_dump(said))
    for more in ((), ("--upload-only", "--version-name", "1")):
        assert submit(api, "--config", str(file), *more) == 2
        told = capsys.readouterr().err
        assert "bytes in sum, and Kubeflow starts no run with more than" in told
        assert "the greatest is 'data' with" in told
    assert not api.world.runs
    assert not api.world.pipelines


def test_a_run_with_a_trainjob_waits_for_it_in_a_small_pod(api):
    for backend in ("local", "trainjob"):
        more = ("--set", f"training.backend={backend}")
        assert submit(api, "--no-wait", "--name", backend, *more) == 0
    sources = {}
    for run in api.world.runs.values():
        components = run.pipeline_spec["pipeline_spec"]["components"]
        line = components["comp-exit-handler-1"]["dag"]["tasks"]
        inputs = line["train-agents"]["inputs"]["parameters"]
        found = inputs["pipelinechannel--resources_train_cpu"]
        sources[run.display_name] = found["componentInputParameter"]
    assert sources == {
        "local": "pipelinechannel--resources_train_cpu",
        "trainjob": "pipelinechannel--resources_cpu",
    }


def test_accelerators_that_training_leaves_idle_are_warned_of(api, capsys):
    two, on_cpus = ("--param", "accelerators=2"), ("--set", "training.device=cpu")
    assert submit(api, *two, *on_cpus) == 0
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("Warning: ")]
    assert "--param accelerators=2 reserves what stays idle" in line
    assert "training.device is cpu" in line
    for none in (two, on_cpus, (*on_cpus, "--param", "accelerators=000")):
        assert submit(api, *none) == 0
        assert "idle" not in capsys.readouterr().err


@pytest.mark.parametrize("role", ["visionary", "poet"])
def test_a_role_that_nobody_knows_starts_nothing(api, capsys, role):
    roles = f"training.agent_specializations=[generalist, {role}]"
    assert submit(api, "--set", roles) == 2
    assert f"names {role!r}" in capsys.readouterr().err
    assert not api.world.runs
    assert not api.requests or all(verb == "GET" for verb, _ in api.requests)


def test_scalar_parameters_and_the_window_reach_the_run(api):
    folder = ("--set", "data.window=14d")
    assert submit(api, *folder, "--param", "train_memory=8Gi", "--rehearse") == 0
    assert submit(api, *folder, "--window", "7d") == 0
    run, other = api.world.runs.values()
    assert other.runtime_config.parameters["window"] == "7d"
    given = run.runtime_config.parameters
    assert given["window"] == "14d"
    assert given["resources_train_memory"] == "8Gi"
    assert given["safety"]["rehearse"] is True
    assert given["data"]["source_digest"] == "sha256:" + 64 * "0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "`safescale data fetch adult --store"),
        ([*SOURCE, "--set", "data.source=a.csv"], "lies on this machine alone"),
        ([*SOURCE, "--set", "data.source=file:///a"], "lies on this machine alone"),
        ([*SOURCE, "--set", "data.sealed_source=a"], "data.sealed_source is 'a'"),
        (["--set", "data.source="], "data.source is empty"),
        (PLACE, "data.source_digest=sha256:"),
        ([*SOURCE, "--param", "source=s3://x/y"], "no parameter to set here"),
        ([*SOURCE, "--param", "nonsense=1"], "no parameter to set here"),
        ([*SOURCE, "--param", "nonsense"], "not of the form NAME=VALUE"),
        ([*SOURCE, "--param", "train_memory=lots"], "train_memory is 'lots'"),
        ([*SOURCE, "--param", "accelerators=two"], "accelerators is 'two'"),
        ([*SOURCE, "--window", "yesterday"], "yesterday"),
        (["--store", "s3://team/data", "--window", "7d"], "adult is one file"),
        ([*SOURCE, "--store", "team/data"], "no storage URI"),
        ([*SOURCE, "--name", "a/b"], "is no name"),
        ([*SOURCE, "--experiment", ""], "--experiment '' is no name"),
        ([*SOURCE, "--namespace", "../team"], "is no namespace"),
        ([*SOURCE, "--service-account", "My Account"], "is no service account"),
        ([*SOURCE, "--upload-only", "--version-name", "x/y"], "--version-name 'x/y'"),
        ([*SOURCE, "--images", "nowhere.json"], "nowhere.json"),
        ([*SOURCE, "--image-prefix", "HTTP://x"], "no registry path"),
    ],
)
def test_what_no_cluster_can_use_starts_nothing(api, capsys, arguments, said):
    assert run_command(["submit", "--host", api.url, *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not api.world.runs
    assert not api.count("POST", "/runs")


def test_a_built_in_data_set_is_read_from_the_store_that_fetch_filled(api, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    arguments = ["submit", "--host", api.url, *QUICK, "--store", "s3://team/data"]
    assert run_command(arguments) == 0
    (run,) = api.world.runs.values()
    given = run.runtime_config.parameters
    assert given["source"] == "s3://team/data/data/adult/adult.data"
    assert given["sealed_source"] == "s3://team/data/data/adult/adult.test"
    # Known without reading: what `content_digest` makes of these very files.
    assert given["data"]["source_digest"].startswith("sha256:")


@pytest.mark.parametrize("tag", ["2.16.1", "v2.9.0", "1.8.22"])
def test_a_server_with_holes_between_namespaces_is_refused(api, capsys, tag):
    api.tag = tag
    assert submit(api) == 2
    assert f"is version {tag}, 2.17 or later is needed" in capsys.readouterr().err


def test_another_web_site_is_not_taken_for_kubeflow(s3_server, capsys):
    host = s3_server.environ["AWS_ENDPOINT_URL"]
    arguments = ["submit", "--host", host, "--patience", "0", *SOURCE]
    assert run_command(arguments) == 2
    assert host in capsys.readouterr().err


def test_nobody_at_the_address_is_one_sentence(capsys):
    arguments = ["submit", "--host", "http://127.0.0.1:9", "--patience", "0", *SOURCE]
    assert run_command(arguments) == 1
    assert "Nobody answers at http://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("kubeflow.example.org", "is no address"),
        ("https://me:pw@kubeflow.example.org", "must not hold a password"),
        ("http://kubeflow.example.org", "not encrypted"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(
    tmp_path, capsys, monkeypatch, host, said
):
    (tmp_path / "token").write_text("t0ken")
    arguments = ["submit", "--host", host, "--token-file", str(tmp_path / "token")]
    assert run_command([*arguments, *SOURCE]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "pw" not in shown


def test_a_certificate_is_trusted_only_if_its_signer_is_named(tmp_path, capsys):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=kubeflow"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    with KfpApi(tls=(certificate, key)) as api:
        api.world.script = life()
        assert submit(api) == 2
        assert "--ca-file says who signed" in capsys.readouterr().err
        assert submit(api, "--ca-file", str(certificate)) == 0


def test_in_multi_user_mode_everything_lies_in_the_namespace(api, tmp_path):
    api.world.multi_user = True
    api.tokens = {"t0ken": ("team",)}
    (tmp_path / "token").write_text("t0ken\n")
    token = ("--token-file", str(tmp_path / "token"))
    assert submit(api, *token, "--namespace", "team") == 0
    (experiment,) = api.world.experiments.values()
    assert experiment.namespace == "team"
    assert api.seen_tokens == {"t0ken"}


@pytest.mark.parametrize(
    "case",
    [
        ("", "team", "wants to know who asks"),
        ("old", "team", "does not accept the token in"),
        ("t0ken", "others", "does not allow"),
    ],
)
def test_strangers_and_guests_are_told_apart(api, tmp_path, capsys, case):
    token, namespace, said = case
    api.world.multi_user = True
    api.tokens = {"t0ken": ("team",)}
    (tmp_path / "token").write_text(token)
    more = ("--token-file", str(tmp_path / "token")) if token else ()
    assert submit(api, *more, "--namespace", namespace) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert "t0ken" not in shown.out + shown.err


def test_a_token_that_is_replaced_is_read_anew(api, tmp_path):
    api.tokens = {"first": ("team",)}
    file = tmp_path / "token"
    file.write_text("first")
    kubeflow = Kubeflow(Session(api.url, token_file=file), RetryPolicy(total=0))
    assert kubeflow.health
    kubeflow.call("listing runs", kubeflow.runs.run_service_list_runs)
    api.tokens = {"second": ("team",)}
    file.write_text("second")
    kubeflow.call("listing runs", kubeflow.runs.run_service_list_runs)
    assert api.seen_tokens == {"first", "second"}


@pytest.mark.parametrize("approval", [False, True])
@pytest.mark.parametrize("start_page", [False, True])
def test_a_login_at_dex_opens_the_api(api, monkeypatch, capsys, approval, start_page):
    api.dex = Dex(approval=approval, start_page=start_page)
    monkeypatch.setenv("SAFESCALE_KFP_USER", api.dex.user)
    monkeypatch.setenv("SAFESCALE_KFP_PASSWORD", api.dex.password)
    assert submit(api) == 0
    assert api.dex.logins == 1
    shown = capsys.readouterr()
    assert api.dex.password not in shown.out + shown.err
    assert not any(s in shown.out + shown.err for s in api.dex.sessions)


def test_a_session_that_ends_in_the_middle_is_renewed(api, monkeypatch):
    api.dex = Dex()
    monkeypatch.setenv("SAFESCALE_KFP_USER", api.dex.user)
    monkeypatch.setenv("SAFESCALE_KFP_PASSWORD", api.dex.password)
    session = Session(api.url, user=api.dex.user, password=api.dex.password)
    kubeflow = Kubeflow(session, RetryPolicy(total=0))
    kubeflow.call("listing runs", kubeflow.runs.run_service_list_runs)
    api.dex.expire()
    kubeflow.call("listing runs", kubeflow.runs.run_service_list_runs)
    assert api.dex.logins == 2
    assert "s3cret" not in repr(session)


def test_a_wrong_password_is_one_sentence_without_it(api, monkeypatch, capsys):
    api.dex = Dex()
    monkeypatch.setenv("SAFESCALE_KFP_USER", api.dex.user)
    monkeypatch.setenv("SAFESCALE_KFP_PASSWORD", "not-this-one")
    assert submit(api) == 2
    shown = capsys.readouterr().err
    assert "does not accept the user or password" in shown
    assert "not-this-one" not in shown


@pytest.mark.parametrize("place", ["http://dex.example.com", "ftp://dex.example.com"])
def test_a_login_page_in_the_clear_gets_no_password(place):
    assert in_the_clear(f"{place}/dex/auth/local/login")
    assert not in_the_clear("https://dex.example.com/dex/auth/local/login")
    assert not in_the_clear("http://dex.auth.svc.cluster.local:5556/dex")


@pytest.mark.parametrize(
    "host",
    ["http://[::1", "https://kf.example.com:port", "https://kf.example.com/#/runs"],
)
def test_what_is_no_address_is_said_before_anything_is_sent(capsys, host):
    assert run_command(["submit", "--host", host, *SOURCE, *QUICK]) == 2
    assert "is no address of Kubeflow Pipelines" in capsys.readouterr().err


def test_half_a_login_is_refused_before_anything_is_sent(api, monkeypatch, capsys):
    monkeypatch.setenv("SAFESCALE_KFP_USER", "me")
    assert submit(api) == 2
    assert "SAFESCALE_KFP_PASSWORD is not set" in capsys.readouterr().err
    assert not api.requests


def test_no_redirect_takes_the_token_along(api, tmp_path, capsys):
    api.dex = Dex()  # answers with a redirect whoever has no session
    (tmp_path / "token").write_text("t0ken")
    assert submit(api, "--token-file", str(tmp_path / "token")) == 2
    assert "does not accept the token" in capsys.readouterr().err
    assert all(path.startswith("/apis/") for _, path in api.requests)


def upload(api: KfpApi, *more: str) -> int:
    name = ("--version-name", "0.1.0-abc")
    return submit(api, "--upload-only", *name, *more)


def test_a_server_that_takes_no_upload_is_not_hammered(api):
    api.trouble(503, "POST", "upload_version", times=1000)
    assert upload(api, "--patience", "2") == 1
    # Waits of 0.5 s and more, where a loop without any makes hundreds of requests.
    assert api.count("POST", "/pipelines/upload_version") <= 5


def test_a_version_is_uploaded_once(api, capsys):
    assert upload(api) == 0
    assert upload(api) == 0
    names = [version.display_name for version in api.world.versions.values()]
    assert names == ["0.1.0-abc"]
    assert not api.world.runs
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "Uploaded version 0.1.0-abc of safescale-train."
    assert "with these very bytes" in said[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "s3://safescale/data/adult/adult.data, since no --store"),
        (("--store", "s3://team/a"), "s3://team/a/data/adult/adult.data."),
        ((*SOURCE, "--set", "data.source=mine.csv"), "no default source"),
        (SOURCE, "s3://team/rows.csv."),
    ],
)
def test_an_upload_says_which_source_it_defaults_to(api, capsys, arguments, said):
    command = ["submit", "--host", api.url, "--upload-only"]
    assert run_command([*command, "--version-name", "1", *arguments]) == 0
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_a_version_never_changes(api, capsys):
    assert upload(api) == 0
    assert upload(api, "--set", "training.seed=7") == 3
    assert "holds another pipeline; nothing was uploaded" in capsys.readouterr().err
    assert len(api.world.versions) == 1


@pytest.mark.parametrize("path", ["v2beta1/pipelines", "upload_version"])
@pytest.mark.parametrize("kind", ["lose", 502])
def test_an_upload_whose_answer_is_lost_is_looked_up(api, path, kind):
    api.trouble(kind, "POST", path)
    assert upload(api) == 0
    assert len(api.world.pipelines) == 1
    assert len(api.world.versions) == 1


def test_a_version_bears_the_commit(api, monkeypatch):
    monkeypatch.setenv("GITHUB_SHA", "0123456789abcdef0123456789abcdef01234567")
    assert submit(api, "--upload-only") == 0
    names = [version.display_name for version in api.world.versions.values()]
    assert names[0].endswith("-0123456789ab")


def test_kfps_own_client_talks_to_this_api(api, tmp_path):
    """The API of these tests is one that the SDK accepts, not one made to fit."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import kfp

        client = kfp.Client(host=api.url)
    assert submit(api, "--no-wait", "--name", "one") == 0
    (run,) = client.list_runs(filter=json.dumps(_named("one"))).runs
    assert run.display_name == "one"
    done = client.wait_for_run_completion(
        run.run_id, timeout=PATIENCE, sleep_duration=0.01
    )
    assert done.state == SUCCEEDED
    assert client.create_experiment("safescale").display_name == "safescale"
    assert client.get_kfp_healthz().multi_user is False


def test_a_run_that_kfps_server_would_reject_is_rejected_here(api):
    """Nor is it more lenient: an unknown key or parameter is an error."""
    kubeflow = Kubeflow(Session(api.url), RetryPolicy(total=0))
    body = kfp_server_api.V2beta1Run(display_name="x", experiment_id="none")
    with pytest.raises(Exception, match="HTTP 404"):
        kubeflow.call_once("starting", kubeflow.runs.run_service_create_run, run=body)


def _named(name: str) -> dict[str, object]:
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return {"predicates": [predicate]}


def test_waiting_costs_no_more_looks_than_asked(api):
    began = time.monotonic()
    assert submit(api, "--poll", "0.2") == 0
    looks = sum("/runs/" in path for _, path in api.requests)
    assert looks <= (time.monotonic() - began) / 0.2 + 2


@pytest.mark.parametrize("given", [{"page_seize": 1}, {"filter": object()}])
def test_arguments_that_the_client_does_not_take_are_no_answer(api, given):
    kubeflow = Kubeflow(Session(api.url), RetryPolicy(total=60))
    begin = time.monotonic()
    with pytest.raises(InputError, match=r"Nothing was sent for listing runs: .*\)\.$"):
        kubeflow.call("listing runs", kubeflow.runs.run_service_list_runs, **given)
    assert time.monotonic() - begin < 60
    assert not api.count("GET", "/runs")
