"""The command line: usage, errors as sentences, what is kept of a run."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from pipelines.cli import run_command
from pipelines.live_progress import LiveProgress
from pipelines.local.runfile import RunFile, read_run, run_folders
from pipelines.local.state import pipeline_root
from pipelines.local.store import opened_store, store_identity
from pipelines.progress import Progress
from pipelines.sources import resolve_locally
from pipelines.workload import Workload
from safescale_ammt.config.sections import SPLITS
from safescale_ammt.data.audit_warnings import AuditWarning
from safescale_ammt.errors import ConfigError, ConstitutionError, InputError
from safescale_ammt.files.artifacts import writing
from safescale_ammt.files.canonical import write_json
from safescale_ammt.reading.catalogue import CATALOGUE

ADULT = Path(__file__).parents[2] / "pipelines" / "adult.yaml"
SEALED = ("--set", "data.sealed_source=y.csv", "--set", "data.label=income")
SEALED_HERE = ("--set", "data.sealed_source=here.csv", "--set", "data.label=income")
COMMANDS = (
    *("run", "runs", "compile", "stage", "registry", "verify", "report"),
    *("predict", "constitution", "data", "submit", "schedule", "doctor"),
)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFESCALE_STORE", (tmp_path / "store").as_uri())


def finished_run(output: Path, steps: int = 10, gap: float = 0.1) -> RunFile:
    """Makes the folder of a run that came to an end."""
    run = RunFile.create(output, ["safescale", "run"])
    run.facts["config"] = {"training": {"steps": steps}}
    run.apply({"event": "started", "stage": "train_agents"})
    entry = {"name": "model", "identity": f"sha256:{steps}", "path": "/somewhere"}
    run.apply(
        {
            "event": "finished",
            "stage": "train_agents",
            "seconds": 1.5,
            "cached": False,
            "summary": {"gap": gap},
            "artifacts": [entry],
        }
    )
    run.end(0, "Done.")
    return run


def test_help_names_every_command_and_imports_none_of_them():
    *lines, loaded = loaded_after("run_command(['--help'])")
    assert not set(loaded.split()) & {"kfp", "torch", "numpy", "rich", "yaml", "docker"}
    for command in COMMANDS:
        assert any(f"  {command}" in line for line in lines)


def test_help_of_a_run_loads_neither_what_reads_it_nor_what_carries_it_out():
    *_, loaded = loaded_after("run_command(['run', '--help'])")
    assert not set(loaded.split()) & {"kfp", "torch", "numpy", "rich", "yaml", "docker"}


LAST_CALL = """
from pipelines.local.launch import RunRequest, launch
from pipelines.local.process_runner import SubprocessRunner

class LastCall(SubprocessRunner):
    def hold(self, run):
        raise InputError("The child would start now.")

Path("rows.csv").write_text("a,b\\n1,2\\n")
sources = ("data.source=rows.csv", "data.sealed_source=rows.csv", "data.label=b")
try:
    launch(RunRequest(ADULT, overrides=sources, runner=LastCall()))
except InputError as error:
    print(error)
"""


def test_the_parent_of_a_run_loads_no_kfp():
    *lines, loaded = loaded_after(LAST_CALL)
    assert lines == ["The child would start now."]
    assert not set(loaded.split()) & {"kfp", "torch", "docker"}


def loaded_after(code: str) -> list[str]:
    """Runs code in an interpreter; returns its lines, then the packages it loaded."""
    head = (
        "import sys; from pathlib import Path; ADULT = Path(sys.argv[1])\n"
        "from pipelines.cli import run_command\n"
        "from safescale_ammt.errors import InputError\n"
    )
    tail = "\nprint(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", head + code + tail, str(ADULT)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ADULT.parents[1])},
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert run_command([command, "--help"]) == 0
    assert "Usage: safescale " + command in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["run", "--runner", "rocket"],
        ["run", "--runner", "docker", "--fly"],
        ["run", "--runner", "docker", "--timeout", "soon"],
        ["compile"],
        ["stage", "fly"],
        ["stage", "prepare_data", "data"],
        ["stage", "prepare_data", "data=x.yaml"],
    ],
)
def test_wrong_usage_is_code_two(arguments, capsys):
    assert run_command(arguments) == 2
    assert "Error: " in capsys.readouterr().err


CANNOT_BEGIN = [
    (["--config", "no.yaml"], "no.yaml does not exist"),
    (["--constitution", "no.yaml"], "no.yaml does not exist"),
    (["--set", "training.step=1"], "expected one of agent_specializations"),
    (["--set", "training.agent_specializations=[poet]"], "names 'poet', expected one"),
    (["--set", "search.population=8"], "only strategy ageing reads it"),
    (["--set", "trainin.steps=1"], "expected one of data, registry"),
    (["--set", "training.steps"], "section.key=value"),
    (["--set", "training.steps=2.5"], "must be a whole number, found 2.5"),
    (["--set", "training.steps=[1"], "is no YAML value"),
    (["--set", "data.seed.a=1"], "seed holds no further keys"),
    (["--set", "data.sensitive=[race]", "--set", "data.crosses={}"], "group 'sex'"),
    (["--set", "data.window=soon"], "data.window is 'soon'"),
    (
        ["--set", "data.engine=flink"],
        "data.engine is 'flink', expected one of local, s",
    ),
    (["--set", "data.engine=spark"], "SAFESCALE_SPARK is not set, so data.engine: spa"),
    (["--set", "data.source=x.csv", *SEALED], "no URI, no file in"),
    (["--set", "data.source=", *SEALED], "data.source is empty"),
    (["--set", "data.source=file:///no.csv", *SEALED_HERE], "file:///no.csv"),
    (["--set", "data.source=here.csv", *SEALED_HERE, "--store", "b"], "no storage URI"),
]


@pytest.fixture
def no_engine(tmp_path, monkeypatch):
    """Names an engine that nobody could ask."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")


@pytest.mark.parametrize(("arguments", "part"), CANNOT_BEGIN)
def test_a_run_that_cannot_begin_says_why_and_leaves_a_record(arguments, part, capsys):
    refused(arguments, part, capsys)


@pytest.mark.parametrize("runner", ["docker", "subprocess"])
@pytest.mark.usefixtures("no_engine")
def test_a_spark_that_is_none_is_refused_where_a_run_begins(
    runner, capsys, monkeypatch
):
    monkeypatch.setenv("SAFESCALE_SPARK", "spark://host:7077")
    arguments = ["--runner", runner, "--set", "data.engine=spark"]
    refused(arguments, "SAFESCALE_SPARK starts with 'spark' and is no address", capsys)


@pytest.mark.usefixtures("no_engine")
def test_a_container_has_no_spark_of_its_own(capsys, monkeypatch):
    monkeypatch.setenv("SAFESCALE_SPARK", "local[2]")
    arguments = ["--runner", "docker", "--set", "data.engine=spark"]
    refused(arguments, "local[2], but a container has no disk for Spark; name", capsys)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        *CANNOT_BEGIN,
        (["--set", "training.checkpoint_every=5"], "network to keep a checkpoint"),
        (["--set", "training.backend=trainjob"], "nor a network to ask a cluster"),
        (["--store", "file:///store"], "The store is file:///store, but a container"),
    ],
)
@pytest.mark.usefixtures("no_engine")
def test_what_is_wrong_with_a_run_in_containers_is_said_before_an_engine_is_asked(
    arguments, part, capsys, monkeypatch
):
    monkeypatch.setenv("SAFESCALE_STORE", "s3://nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    refused(["--runner", "docker", *arguments], part, capsys)


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("SAFESCALE_STORE", "writes to"),
        ("SAFESCALE_NOTIFY_FILE", "writes to"),
        ("SAFESCALE_DATASETS_STORE", "reads"),
    ],
)
def test_a_folder_in_the_environment_is_refused_before_an_engine_is_asked(
    name, does, capsys, monkeypatch
):
    monkeypatch.setenv("SAFESCALE_STORE", "s3://nowhere")
    monkeypatch.setenv(name, "file:///folder")
    refused(["--runner", "docker"], f"a container {does} no folder", capsys)


def refused(arguments: list[str], part: str, capsys) -> None:
    """Runs what cannot begin; checks its sentence and its record."""
    Path("here.csv").write_text("a,b\n1,2\n")
    assert run_command(["run", *arguments]) == 2
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert part in sentence
    (folder,) = run_folders(Path("runs"))
    record = read_run(Path("runs"), folder.name)
    assert not Path("runs", "latest").exists()
    assert (record["exit_code"], record["sentence"]) == (2, sentence)
    assert record["stages"] == []
    assert record["ended"] >= record["started"]


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("runner", ["subprocess", "docker"])
@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("memory=1Ki", "which no container can have"),
        ("train_memory=2Pi", "which no container can have"),
        ("cpu=0.0001", "which no container can have"),
        ("memory=lots", "--param memory is 'lots', no quantity"),
        ("disk=1Gi", "--param names 'disk', unknown"),
    ],
)
def test_a_limit_that_no_container_can_have_is_bad_input(value, part, runner, capsys):
    assert run_command(["run", "--runner", runner, "--param", value]) == 2
    assert part in capsys.readouterr().err


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("runner", ["subprocess", "docker"])
def test_a_run_folder_that_cannot_be_made_is_one_sentence(runner, capsys):
    Path("way").write_text("in it")
    assert run_command(["run", "--runner", runner, "--output", "way/runs"]) == 2
    assert "cannot be made" in capsys.readouterr().err


def test_a_break_is_a_short_sentence_and_a_traceback_in_the_log(capsys):
    run = RunFile.create(Path("runs"), ["safescale", "run"])
    run.stages = [{"no": "stage"}]
    run.save()
    assert run_command(["runs", "show", run.id]) == 1
    sentence = capsys.readouterr().err
    assert len(sentence.splitlines()) == 1
    assert "Traceback" in Path(".safescale/log.txt").read_text()


def test_overrides_are_read_as_their_field_asks():
    overrides = [
        "training.learning_rate=1e-4",
        "training.steps=600",
        "data.positive=1",
        "data.splits.train=0.5",
        "data.splits.validation=0.2",
        "data.splits.constraint=0.1",
        "data.splits.monitor=0.1",
        "data.splits.select=0.1",
        "safety.rehearse=true",
        "data.sensitive=[sex]",
    ]
    workload = Workload.load(ADULT, overrides=overrides)
    params = {n: s.to_params() for n, s in workload.sections.items()}
    assert params["training"]["learning_rate"] == 1e-4
    assert params["training"]["steps"] == 600
    assert params["data"]["positive"] == "1"
    assert params["data"]["splits"]["train"] == 0.5
    assert params["data"]["sensitive"] == ["sex"]
    assert params["safety"]["rehearse"] is True


def test_the_catalogue_fills_in_what_it_knows_of_a_data_set():
    data = Workload.load(ADULT).data
    assert (data.source, data.sealed_source) == ("adult", "adult")
    assert data.label == "income"
    assert len(data.columns) == 15


def test_arguments_hold_each_section_and_the_scalars():
    arguments = Workload.load(ADULT).arguments()
    assert arguments["source"] == "adult"
    assert "source" not in arguments["data"]
    assert arguments["constitution"]["constitution"]["id"] == "adult-income"


@pytest.mark.parametrize(
    ("change", "error", "part"),
    [
        ({"schema": 2}, ConfigError, "schema: 1"),
        ({"trainin": {}}, ConfigError, "expected one of constitution"),
        ({"training": [1]}, ConfigError, "must be a mapping, found list"),
        ({"constitution": {}}, ConfigError, "must have one of"),
        ({"constitution_file": "no.yaml"}, ConstitutionError, "does not exist"),
    ],
)
def test_a_workload_file_that_is_wrong_is_one_sentence(change, error, part):
    raw = yaml.safe_load(ADULT.read_text()) | change
    Path("w.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(error, match=part):
        Workload.load(Path("w.yaml"))


def test_a_promise_about_an_undeclared_group_is_refused_before_anything_runs():
    undeclared = ["data.sensitive=[race]", "data.crosses={}"]
    with pytest.raises(ConstitutionError, match="group 'sex', which the data section"):
        Workload.load(ADULT, overrides=undeclared)


@pytest.mark.parametrize("text", ["- 1", "a: [", "\xff"])
def test_a_file_that_is_no_mapping_is_one_sentence(text):
    Path("w.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"w\.yaml"):
        Workload.load(Path("w.yaml"))


def test_a_constitution_may_stand_in_the_workload():
    raw = yaml.safe_load(ADULT.read_text())
    beside = yaml.safe_load((ADULT.parent / raw.pop("constitution_file")).read_text())
    Path("w.yaml").write_text(yaml.safe_dump(raw | {"constitution": beside}))
    workload = Workload.load(Path("w.yaml"))
    assert workload.constitution == Workload.load(ADULT).constitution
    assert workload.digest == Workload.load(ADULT).digest


def test_the_latest_run_is_one_link_away(tmp_path):
    first, second = (finished_run(tmp_path / "runs") for _ in range(2))
    latest = tmp_path / "runs" / "latest"
    assert latest.is_symlink()
    assert latest.resolve() == second.folder
    assert run_folders(tmp_path / "runs") == sorted([first.folder, second.folder])


def test_runs_are_listed_shown_and_compared(capsys):
    assert run_command(["runs", "list"]) == 0
    assert "No run in runs." in capsys.readouterr().out
    first = finished_run(Path("runs"), steps=10)
    second = finished_run(Path("runs"), steps=20)
    assert run_command(["runs", "list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["run", "state", "decision", "accuracy", "gap"]
    assert [row.split()[0] for row in rows] == sorted([first.id, second.id])
    for word in (f"runs/{first.id}", first.id):
        assert run_command(["runs", "show", word]) == 0
        assert capsys.readouterr().out.split()[:2] == ["run", first.id]
    assert run_command(["runs", "show", first.id]) == 0
    shown = capsys.readouterr().out
    assert "train_agents" in shown
    assert "1.5 s" in shown
    assert run_command(["runs", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == second.id
    assert run_command(["runs", "diff", first.id, second.id]) == 0
    head, one, two, *differences = capsys.readouterr().out.splitlines()
    assert (one.split()[0], two.split()[0]) == (first.id, second.id)
    assert differences == [
        'artifacts.model: "sha256:10" -> "sha256:20"',
        "config.training.steps: 10 -> 20",
    ]
    assert run_command(["runs", "diff", first.id, first.id]) == 0
    assert "agree" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nope", "", "latest"])
def test_a_run_that_is_not_there_is_one_sentence(name):
    with pytest.raises(InputError, match="does not exist"):
        read_run(Path("runs"), name)


def test_a_run_holds_the_warnings_about_its_data_once_they_are_prepared(tmp_path):
    warning = AuditWarning("proxy", ("title",), 1.0, "It stands in.", "sex")
    write_json(tmp_path / "dataset" / "audit.json", {"warnings": [warning.to_dict()]})
    run = RunFile.create(tmp_path / "runs", ["safescale", "run"])
    assert read_run(tmp_path / "runs", run.id)["warnings"] == []
    run.apply({"event": "started", "stage": "prepare_data"})
    done = {"event": "finished", "seconds": 1.0, "cached": True, "summary": {}}
    entry = {"name": "dataset", "path": str(tmp_path / "dataset")}
    run.apply({**done, "artifacts": [entry]})
    run.end(3, "Refused.")
    assert read_run(tmp_path / "runs", run.id)["warnings"] == [
        {
            "kind": "proxy",
            "columns": ["title"],
            "group": "sex",
            "figure": 1.0,
            "sentence": "It stands in.",
        }
    ]


def test_artifacts_of_one_name_from_two_stages_are_all_on_record(tmp_path, capsys):
    run = RunFile.create(tmp_path / "runs", ["safescale", "run"])
    for stage in ("search_architecture", "train_agents", "train_agents"):
        run.apply({"event": "started", "stage": stage})
        entry = {"name": "summary", "stage": stage, "identity": f"sha256:{stage}"}
        done = {"event": "finished", "seconds": 1.0, "cached": True, "summary": {}}
        run.apply({**done, "artifacts": [{**entry, "path": "/somewhere"}]})
    run.end(0, "Done.")
    assert run_command(["runs", "show", "latest"]) == 0
    told = capsys.readouterr().out
    for name, stage in (
        ("summary", "search_architecture"),
        ("train_agents.summary", "train_agents"),
    ):
        assert re.search(rf"^{name} +sha256:{stage}$", told, re.MULTILINE)


def test_a_run_cut_short_keeps_what_it_knew(tmp_path):
    run = RunFile.create(tmp_path / "runs", ["safescale", "run"])
    run.apply({"event": "started", "stage": "train_agents"})
    record = read_run(tmp_path / "runs", run.id)
    assert record["exit_code"] is None
    assert record["stages"] == [{"stage": "train_agents", "status": "running"}]
    run.end(1, "Stopped.")
    stage = read_run(tmp_path / "runs", run.id)["stages"][0]
    assert stage["status"] == "failed"
    assert stage["seconds"] >= 0


def test_progress_in_a_pipe_is_one_line_per_event_with_the_runs_id(capsys):
    with Progress("r1") as progress:
        progress.event({"event": "importing"})
        progress.event({"event": "started", "stage": "prepare_data"})
        done = {"event": "finished", "stage": "prepare_data"}
        progress.event({**done, "cached": True, "seconds": 0.0})
        progress.event({**done, "cached": False, "seconds": 1.26})
        progress.event({"event": "failed", "code": 3})
    assert capsys.readouterr().err.splitlines() == [
        "[r1] prepare_data ...",
        "[r1] prepare_data done (from the cache)",
        "[r1] prepare_data done (1.3 s)",
        "[r1] prepare_data failed (exit code 3)",
    ]


def test_a_stage_in_a_pipe_says_a_quarter_at_a_time_and_breaks_long_silence(capsys):
    seconds = [0.0]
    with Progress("r1", clock=lambda: seconds[0]) as progress:
        progress.event({"event": "started", "stage": "train_agents"})
        for now, share in (
            (1, 0.3),  # a quarter, but too soon after the line before
            (6, 0.31),
            (7, 0.49),
            (8, 0.5),
            (12, 0.52),
            (13, 0.53),
            (41.9, 0.55),
            (42, 0.56),
            (90, 1.0),  # the end has a line of its own
        ):
            seconds[0] = now
            text = f"step {100 * share:.0f} of 100"
            progress.event({"event": "progress", "share": share, "text": text})
            progress.event({"event": "tick"})
        progress.event({"event": "started", "stage": "evaluate_safety"})
        progress.event({"event": "progress", "share": 0.25, "text": "inputs verified"})
    assert capsys.readouterr().err.splitlines() == [
        "[r1] train_agents ...",
        "[r1] train_agents 31%, step 31 of 100",
        "[r1] train_agents 52%, step 52 of 100",
        "[r1] train_agents 56%, step 56 of 100",
        "[r1] evaluate_safety ...",
    ]


def test_a_stage_that_says_nothing_is_said_to_be_at_work_every_half_minute(capsys):
    seconds = [0.0]
    with Progress("r1", clock=lambda: seconds[0]) as progress:
        progress.event({"event": "tick"})
        progress.event({"event": "started", "stage": "prepare_data"})
        for now in range(0, 70, 5):
            seconds[0] = now
            progress.event({"event": "tick"})
        done = {"event": "finished", "stage": "prepare_data"}
        progress.event({**done, "cached": False, "seconds": 70.0})
        seconds[0] = 200
        progress.event({"event": "tick"})
    assert capsys.readouterr().err.splitlines() == [
        "[r1] prepare_data ...",
        "[r1] prepare_data 0%, at work",
        "[r1] prepare_data 0%, at work",
        "[r1] prepare_data done (70.0 s)",
    ]


def test_a_stage_on_a_terminal_is_one_line_that_changes():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60)
    with LiveProgress("r[1]", console) as progress:
        progress.event({"event": "progress", "share": 0.1, "text": "nobody runs"})
        progress.event({"event": "started", "stage": "train_agents"})
        progress.event({"event": "tick"})
        for step in (10, 20):
            event = {"event": "progress", "share": step / 80}
            progress.event({**event, "text": f"step {step} of 80 [red]" + 50 * "x"})
            assert progress.bar is not None
            progress.bar.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "r[1] train_agents 12%, step 10 of 80 [red]" in shown
    assert "r[1] train_agents 25%, step 20 of 80 [red]" in shown
    assert "nobody runs" not in shown
    assert "at work" not in shown
    assert max(map(len, re.split(r"[\r\n]", shown))) <= 60


def test_a_run_becomes_latest_with_its_first_stage_and_not_before(tmp_path):
    output = tmp_path / "runs"
    refused = RunFile.create(output, ["safescale", "run"])
    refused.end(2, "my.yaml does not exist.")
    assert not (output / "latest").exists()
    started = RunFile.create(output, ["safescale", "run"])
    started.apply({"event": "importing"})
    started.apply({"event": "images", "images": {}})
    assert not (output / "latest").exists()
    started.apply({"event": "started", "stage": "prepare_data"})
    RunFile.create(output, ["safescale", "run"]).end(2, "my.yaml is no mapping.")
    assert (output / "latest").resolve() == started.folder
    assert read_run(output, "latest")["run"] == started.id
    assert len(run_folders(output)) == 3


def test_a_latest_that_cannot_be_moved_is_one_sentence(tmp_path):
    run = RunFile.create(tmp_path, ["safescale", "run"])
    (tmp_path / "latest").mkdir()
    with pytest.raises(InputError, match="latest cannot be pointed to"):
        run.point_latest()


@pytest.mark.parametrize("text", ["kept in /runs/[bold]", "kept in /[/]", "[red]x\\"])
def test_brackets_in_a_line_are_shown_on_a_terminal_as_they_are(text):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with LiveProgress("r[1]", console) as progress:
        progress.begin(text)
        progress.say(text)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert f"r[1] {text}" in shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--store", "s3://team"], "--store means nothing without --config"),
        (["--namespace", "x"], "--namespace means nothing without --kubernetes"),
        (["--version-name", "1"], "--version-name means nothing without --kubernetes"),
    ],
)
def test_compile_refuses_what_it_would_not_read(tmp_path, capsys, given, said):
    file = tmp_path / "p.yaml"
    assert run_command(["compile", "-o", str(file), *given]) == 2
    assert said in capsys.readouterr().err
    assert not file.exists()


def test_a_compiled_workload_reads_what_data_fetch_puts_into_the_store(
    tmp_path, monkeypatch
):
    store = tmp_path.as_uri()
    compile_adult = ["compile", "-o", "out/p.yaml", "--config", str(ADULT)]
    assert run_command([*compile_adult, "--store", store]) == 0
    parameters = parameters_of("out/p.yaml")
    assert parameters["registry"]["defaultValue"]["name"] == "adult-income"
    put = {role: m.name for role, m in CATALOGUE["adult"].members.items()}
    for role, name in put.items():
        assert parameters[role]["defaultValue"] == f"{store}/data/adult/{name}"
    assert run_command(compile_adult) == 0
    uri = parameters_of("out/p.yaml")["source"]["defaultValue"]
    assert uri == "s3://safescale/data/adult/adult.data"
    monkeypatch.setenv("SAFESCALE_STORE", "s3://bucket")  # as `data fetch` reads it
    assert run_command(compile_adult) == 0
    uri = parameters_of("out/p.yaml")["source"]["defaultValue"]
    assert uri == "s3://bucket/data/adult/adult.data"


def test_compile_takes_no_store_that_is_none(capsys):
    arguments = ["compile", "-o", "p.yaml", "--config", str(ADULT), "--store", "bucket"]
    assert run_command(arguments) == 2
    assert "'bucket' is no storage URI" in capsys.readouterr().err


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hush@bucket/x",
        "s3://AKIA:hush/hush@bucket",
        "https://me:hush@store/x",
        "s3a://AKIA:hush@bucket",
        "file://me:hush@host/x",
    ],
)
def test_keys_that_somebody_wrote_into_a_storage_uri_are_never_repeated(
    uri, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run_command(["data", "sealed", "--store", uri]) == 2
    assert run_command(["verify", uri]) == 2
    assert run_command(["run", "--store", uri]) == 2
    shown = capsys.readouterr()
    assert "hush" not in shown.out + shown.err
    assert "...@" in shown.err
    kept = [f.read_text("utf-8") for f in tmp_path.rglob("*") if f.is_file()]
    assert not any("hush" in text for text in kept)


def test_compile_names_what_is_left_to_fill_in(capsys):
    config = yaml.safe_load(ADULT.read_text(encoding="utf-8"))
    config["data"] |= {"source": "mine.csv", "label": "income", "sensitive": []}
    config["data"]["splits"] = dict.fromkeys(SPLITS, 0.1) | {"sealed": 0.5}
    rules = {"id": "useful", "constraint": {"metric": "accuracy", "threshold": 0.6}}
    about = {"id": "mine", "version": "1.0.0", "owner": "tests"}
    config["constitution"] = {"schema": 1, "constitution": about, "principles": [rules]}
    del config["constitution_file"]
    Path("mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert run_command(["compile", "-o", "p.yaml", "--config", "mine.yaml"]) == 0
    assert "source 'mine.csv' is no URI" in capsys.readouterr().out
    assert "defaultValue" not in parameters_of("p.yaml")["source"]


def parameters_of(path: str) -> dict[str, Any]:
    graph, _ = yaml.safe_load_all(Path(path).read_text(encoding="utf-8"))
    return dict(graph["root"]["inputDefinitions"]["parameters"])


def test_nothing_registered_is_said(capsys):
    assert run_command(["registry", "list"]) == 0
    assert "Nothing is registered" in capsys.readouterr().out
    assert run_command(["registry", "show"]) == 2
    assert run_command(["predict", "champion", "--data", "x.csv", "-o", "y.csv"]) == 2


def test_an_artifact_is_verified_and_tampering_is_refused(
    tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "dataset"
    with writing(folder, kind="dataset", stage="prepare_data") as draft:
        write_json(draft.folder / "schema.json", {"a": 1})
    assert run_command(["verify", str(folder)]) == 0
    assert run_command(["verify", folder.as_uri()]) == 0
    # A store that the session names, but has no keys of, is not needed for a folder.
    monkeypatch.setenv("SAFESCALE_STORE", "s3://nowhere")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    assert run_command(["verify", folder.as_uri()]) == 0
    (folder / "schema.json").write_text("{}")
    assert run_command(["verify", str(folder)]) == 3
    assert capsys.readouterr().err.count("sha256:") == 2


def test_an_unknown_data_set_names_the_known_ones(capsys):
    assert run_command(["data", "fetch", "nope"]) == 2
    assert "adult" in capsys.readouterr().err


def test_a_path_in_a_workload_becomes_a_uri_with_the_digest_of_its_bytes(tmp_path):
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "people.csv").write_text("a,b\n1,2\n")
    overrides = ["data.source=people.csv", *SEALED[1::2]]
    workload = Workload.load(ADULT, overrides=overrides).replace(
        "data", sealed_source="people.csv"
    )
    digests = []
    for text in ("a,b\n1,2\n", "a,b\n1,3\n"):
        (beside / "people.csv").write_text(text)
        with opened_store(None) as store:
            data = resolve_locally(workload, store, beside, tmp_path).data
        assert data.source == data.sealed_source == (beside / "people.csv").as_uri()
        digests.append(data.source_digest)
    assert digests[0] != digests[1]
    digest = "sha256:" + "0" * 64
    workload = workload.replace("data", source_digest=digest)
    with opened_store(None) as store:
        data = resolve_locally(workload, store, beside, tmp_path).data
    assert data.source_digest == digest


def test_a_store_is_known_again_until_it_is_wiped(tmp_path):
    uris = [(tmp_path / name).as_uri() for name in ("one", "two")]
    found = []
    for uri in (*uris, uris[0]):
        with opened_store(uri) as store:
            found.append(store_identity(store))
    assert found[0] == found[2] != found[1]
    assert pipeline_root(found[0]) == pipeline_root(found[2])
    assert pipeline_root(found[0]) != pipeline_root(found[1])


def test_the_environment_is_as_it_was_after_a_store_was_open(tmp_path, monkeypatch):
    monkeypatch.delenv("SAFESCALE_STORE")
    with opened_store((tmp_path / "one").as_uri()):
        assert os.environ["SAFESCALE_STORE"].endswith("/one")
    assert "SAFESCALE_STORE" not in os.environ


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize(
    "words",
    [
        ["run", "--timeout"],
        ["run", "--stage-timeout"],
        ["submit", "--timeout"],
        ["submit", "--poll"],
        ["submit", "--patience"],
        ["schedule", "resume", "nightly", "--wait"],
        ["data", "sealed", "--older-than"],
    ],
    ids=" ".join,
)
def test_a_time_that_never_comes_is_refused_by_its_option(words, number, capsys):
    assert run_command([*words, number]) == 2
    assert f"Invalid value for '{words[-1]}'" in capsys.readouterr().err
