"""The two ways to run stages on this machine."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from pipelines.compile import compile_train
from pipelines.ir import CompiledPipeline
from pipelines.local.compiled import compiled_pipeline
from pipelines.local.container_runner import _box, network_of
from pipelines.local.containers import _Listener
from pipelines.local.job import Job
from pipelines.local.kfp_seam import TaskCall
from pipelines.local.run import record_crash
from pipelines.local.runner import TaskContext
from pipelines.local.runners import RUNNERS, runner_named
from pipelines.local.stage_log import StageLog
from pipelines.local.tasks import LocalTask
from pipelines.workload import Workload
from safescale_ammt.errors import ConfigError, InputError
from safescale_ammt.releasing.run_outcome import RunOutcome
from safescale_ammt.stage_progress import PROGRESS

ADULT = Path(__file__).parents[2] / "pipelines" / "adult.yaml"


@pytest.mark.parametrize(
    ("environ", "network"),
    [
        ({"OMP_NUM_THREADS": "2"}, "none"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:8333"}, "host"),
        ({"AWS_ENDPOINT_URL_S3": "http://localhost:8333"}, "host"),
        ({"AWS_ENDPOINT_URL": "http://[::1]:8333"}, "host"),
        ({"AWS_ENDPOINT_URL": "https://store.example.org"}, "bridge"),
        ({"AWS_ENDPOINT_URL": "http://192.0.2.7:9000"}, "bridge"),
        ({"SAFESCALE_DATASETS_AWS_ACCESS_KEY_ID": "of rows apart, at AWS"}, "bridge"),
        ({"SAFESCALE_DATASETS_AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "host"),
        ({"AWS_ACCESS_KEY_ID": "key"}, "bridge"),
        ({"SAFESCALE_SPARK": "sc://spark.example.org:15002"}, "bridge"),
        ({"SAFESCALE_SPARK": "sc://localhost:15002"}, "host"),
        ({"SAFESCALE_WEBHOOK_URL": "https://chat.example.org/x"}, "bridge"),
    ],
)
def test_a_container_gets_the_least_network_that_its_addresses_need(environ, network):
    assert network_of(environ) == network


def test_every_runner_bears_the_name_it_is_asked_for_by():
    assert [runner_named(name).name for name in RUNNERS] == list(RUNNERS)


def test_processes_take_any_store_and_containers_no_folder():
    workload = Workload.load(ADULT)
    runner_named("subprocess").check(workload, "file:///tmp/store", {})
    docker = runner_named("docker")
    docker.check(workload, "s3://bucket", {})
    docker.check(workload, "", {})
    with pytest.raises(ConfigError, match="The store is file:///rows"):
        docker.check(workload, "file:///rows", {})
    with pytest.raises(ConfigError, match="SAFESCALE_NOTIFY_FILE is file:///told"):
        docker.check(workload, "", {"SAFESCALE_NOTIFY_FILE": "file:///told"})
    often = Workload.load(ADULT, overrides=["training.checkpoint_every=5"])
    with pytest.raises(ConfigError, match=r"training\.checkpoint_every is 5"):
        docker.check(often, "", {})
    with pytest.raises(ConfigError, match="name a folder of this machine in SAFESC"):
        docker.check(often, "", {"SAFESCALE_CHECKPOINTS": "s3://bucket/prefix"})
    docker.check(often, "", {"SAFESCALE_CHECKPOINTS": "file:///rows/kept"})


def test_a_job_crosses_the_process_border_unchanged():
    job = Job(
        pipeline="/p.yaml",
        arguments={"data": {"seed": 2**52}, "source": "s3://b/ä\n.csv"},
        pipeline_root="/root",
        cache=True,
        store="s3://b",
        prefix="runs/r-1",
        run="r-1",
        runner="docker",
        stage_timeout=2.5,
    )
    assert "\n" not in job.to_json()
    assert Job.from_json(job.to_json()) == job


def test_the_reason_of_a_crash_is_recorded_for_the_exit_task(file_store):
    record_crash(file_store, "r-1", InputError("people.csv does not exist."))
    outcome = RunOutcome.read(file_store, "r-1")
    assert outcome is not None
    expected = ("crashed", "people.csv does not exist.")
    assert (outcome.status, outcome.sentence) == expected


def test_what_the_gate_recorded_stands(file_store):
    RunOutcome.now(run="r-1", status="refused", sentence="No.").write(file_store)
    record_crash(file_store, "r-1", InputError("people.csv does not exist."))
    outcome = RunOutcome.read(file_store, "r-1")
    assert outcome is not None
    assert outcome.status == "refused"


class Speaker:
    """A container of a foreign engine that says pieces of lines and ends.

    Args:
        pieces: what it says, in the pieces of a log that is read whole.
        followed: pieces that reach who follows the log; None = all of them.
    """

    def __init__(self, *pieces: bytes, followed: int | None = None) -> None:
        self.pieces = pieces
        self.followed = followed

    def logs(self, *, stream, follow):
        assert stream
        yield from self.pieces[: self.followed] if follow else [b"".join(self.pieces)]

    def wait(self, *, timeout):
        return {"StatusCode": 0}


def test_what_a_container_says_goes_the_same_way_as_a_process_words(monkeypatch):
    file, events = io.StringIO(), []
    log = StageLog(file, lambda name, **fields: events.append({"event": name} | fields))
    monkeypatch.setattr(sys, "stdout", log)
    _Listener(
        Speaker(
            b"[KFP Executor 2026-11-29 14:56:41,465 INFO]: Got executor_input:\n{\n",
            b'    "inputs": {}\n}\nStep 20: viol',
            b"ations \xc3",
            b'\xa4.\nsafescale-progress {"share": 0.25, "te',
            b'xt": "step 20 of 80"}\n',
        )
    ).run()
    assert file.getvalue() == "Step 20: violations ä.\n"
    assert events == [{"event": "progress", "share": 0.25, "text": "step 20 of 80"}]


@pytest.mark.parametrize("followed", [0, 1, 2, 3])
def test_lines_that_a_followed_log_lost_are_read_at_the_end_and_none_twice(
    capsys, followed
):
    # dockerd 20.10 ends a followed log early where a container ends on a busy machine.
    speaker = Speaker(b"w\xc3", b"\xa4rm\ntw", b"o\n", followed=followed)
    _Listener(speaker).run()
    assert capsys.readouterr().out == "wärm\ntwo\n"


def test_a_container_is_asked_for_progress_as_a_process_is(tmp_path):
    pipeline = CompiledPipeline.parse(compile_train())
    context = TaskContext(
        pipeline=pipeline,
        limits=pipeline.take_limits(Workload.load(ADULT).arguments()),
        run="r-1",
        environ={PROGRESS: "1", "PYTHONWARNINGS": "ignore", "HOME": "/root"},
        report=lambda *_, **__: None,
        closing=[],
        current=lambda: task,
    )
    call = TaskCall(
        stage="train_agents",
        executor="exec-train-agents",
        folder=tmp_path / "train-agents",
        outputs=("model",),
        is_exit=False,
        execute=lambda: ({}, True),
    )
    task = LocalTask(call, 10.0)
    command = ["--executor_input", json.dumps({"inputs": {}})]
    box = _box(context, task, "image", command, {})
    assert box.environ[PROGRESS] == "1"
    assert box.environ["PYTHONWARNINGS"] == "ignore"
    assert "HOME" not in box.environ


@pytest.mark.parametrize("stage", ["train_agents", "search_architecture"])
@pytest.mark.parametrize(
    ("place", "kept"),
    [("file://{}/kept", "kept"), ("{}/kept", "kept"), ("s3://b/c", None), ("", None)],
)
def test_training_alone_gets_the_folder_of_checkpoints_to_write_to(
    tmp_path, stage, place, kept
):
    pipeline = CompiledPipeline.parse(compile_train())
    name = stage.replace("_", "-")
    context = TaskContext(
        pipeline=pipeline,
        limits=pipeline.take_limits(Workload.load(ADULT).arguments()),
        run="r-1",
        environ={"SAFESCALE_CHECKPOINTS": place.format(tmp_path)},
        report=lambda *_, **__: None,
        closing=[],
        current=lambda: task,
    )
    call = TaskCall(
        stage=stage,
        executor=f"exec-{name}",
        folder=tmp_path / name,
        outputs=(),
        is_exit=False,
        execute=lambda: ({}, True),
    )
    task = LocalTask(call, 10.0)
    command = ["--executor_input", json.dumps({"inputs": {}})]
    box = _box(context, task, "image", command, {})
    assert box.network == "none"
    if kept is None or stage != "train_agents":
        assert box.kept is None
        assert "SAFESCALE_CHECKPOINTS" not in box.environ
        return
    assert box.kept == tmp_path / kept
    assert box.kept.stat().st_mode & 0o2070 == 0o2070
    assert box.environ["SAFESCALE_CHECKPOINTS"] == box.kept.as_uri()


def test_the_pipeline_is_compiled_once_for_the_same_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compiled_pipeline() == compile_train()
    (file,) = (tmp_path / ".safescale" / "compiled").iterdir()
    assert file.suffix == ".yaml"
    # What lies there is taken, so that its name has to say what it is made of.
    file.write_text("kept", encoding="utf-8")
    assert compiled_pipeline() == "kept"
    monkeypatch.setattr("pipelines.local.compiled.code_digest", lambda: "sha256:other")
    assert compiled_pipeline() == compile_train()


@pytest.mark.parametrize("stage", ["prepare_data", "search_architecture"])
def test_prepare_data_alone_is_told_where_spark_listens(tmp_path, stage):
    pipeline = CompiledPipeline.parse(compile_train())
    name = stage.replace("_", "-")
    address = {"SAFESCALE_SPARK": "sc://spark.example.org:15002"}
    context = TaskContext(
        pipeline=pipeline,
        limits=pipeline.take_limits(Workload.load(ADULT).arguments()),
        run="r-1",
        environ=address,
        report=lambda *_, **__: None,
        closing=[],
        current=lambda: task,
    )
    call = TaskCall(
        stage=stage,
        executor=f"exec-{name}",
        folder=tmp_path / name,
        outputs=(),
        is_exit=False,
        execute=lambda: ({}, True),
    )
    task = LocalTask(call, 10.0)
    command = ["--executor_input", json.dumps({"inputs": {}})]
    box = _box(context, task, "image", command, {})
    told = stage == "prepare_data"
    assert ("SAFESCALE_SPARK" in box.environ) is told
    assert box.network == ("bridge" if told else "none")
