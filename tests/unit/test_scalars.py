"""Scalars of a training: on a page, in a file for Prometheus, in TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from training_world import DP, TPR, brief, prepared, promises, searched

from components.train_agents import train_agents
from pipelines.commands.runs import runs
from safescale_ammt.files.canonical import read_json_lines
from safescale_ammt.stage_progress import PROGRESS, progress_of
from safescale_ammt.stages.train_agents import run
from safescale_ammt.training.scalars import (
    PREFIX,
    PROMETHEUS,
    PrometheusFile,
    Tally,
    exposition,
)
from safescale_ammt.training.training_log import LOG, metrics_of

ROUND: dict[str, Any] = {
    "event": "round",
    "step": 40,
    "violation": {"equal": -0.05, "parity": 0.01},
    "multiplier": {"equal": {'TPR: "a" - b\\': 0.5}},
    "teaches": [True, False, True],
    "loss": [0.5, None, 0.7],
    "twin_loss": [0.4],
    "accuracy": [0.8, 0.7, 0.9, 0.95],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    dataset, said = prepared(folder), promises(TPR, DP)
    section = brief().to_params()
    run(dataset, searched(folder, dataset, said), said, section, folder / "model")
    return folder / "model"


def tally() -> Tally:
    found = Tally()
    found.add({"event": "trunk", "step": 20, "loss": [0.9]}, 2.0)
    found.add(ROUND, 4.0)
    found.add(
        {"event": "alarm", "step": 40, "wealth": 210.0, "rows": 9, "gap": {}}, 4.0
    )
    return found


def test_a_round_tells_means_of_agents_and_twin_gaps_multipliers_and_counts() -> None:
    values = {s.tag: s.value for s in tally().newest.values()}
    assert values["loss/agents"] == pytest.approx(0.6)
    assert values["loss/twin"] == pytest.approx(0.4)
    assert values["accuracy/agents"] == pytest.approx(0.8)
    assert values["accuracy/twin"] == pytest.approx(0.95)
    assert values["violation/parity"] == 0.01
    assert (values["agents/all"], values["agents/alive"]) == (3, 2)
    assert (values["agents/teaching"], values["alarms"]) == (2, 1)
    assert (values["step"], values["steps_per_second"]) == (40, 10)


def test_progress_tells_accuracy_worst_violation_multiplier_speed_and_agents() -> None:
    assert tally().words() == (
        "accuracy 0.800, violation +0.010, multiplier 0.500, 10 steps/s, 2 of 3 agents"
    )
    assert Tally().words() == ""


def test_the_speed_is_of_this_process_and_of_these_agents_alone() -> None:
    found = Tally()
    # What a checkpoint tells comes at once, before training goes on from it.
    found.add({"event": "trunk", "step": 20, "loss": [0.9]}, 3.0)
    found.add({**ROUND, "step": 780}, 3.001)
    found.add({"event": "resumed", "step": 800}, 3.001)
    assert ("steps_per_second",) not in found.newest
    found.add({**ROUND, "step": 820}, 5.001)
    assert found.newest["steps_per_second",].value == pytest.approx(10)
    # More agents begin at the trunk's end again.
    found.add({**ROUND, "step": 400}, 90.0)
    found.add({**ROUND, "step": 420}, 94.0)
    assert found.newest["steps_per_second",].value == pytest.approx(5)


@pytest.mark.parametrize("place", [".", "folder"])
def test_a_folder_in_place_of_the_file_ends_no_training_and_nothing_is_left(
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    PrometheusFile(Path(place)).write(tally(), 0.0)
    assert capsys.readouterr().out.startswith("No more metrics for Prometheus: ")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_file_for_prometheus_is_what_its_own_parser_reads(tmp_path: Path) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    path = tmp_path / "training.prom"
    PrometheusFile(path).write(tally(), 4.0)
    families = list(parser.text_string_to_metric_families(path.read_text()))
    samples = {
        (s.name, *s.labels.values()): s.value for f in families for s in f.samples
    }
    assert all(f.documentation and f.type == "gauge" for f in families)
    assert samples[PREFIX + "step",] == 40
    # A quotation mark and a backslash in a group's name come out as they went in.
    assert samples[PREFIX + "multiplier", "equal", 'TPR: "a" - b\\'] == 0.5
    # Corrections are counted from 0 on.
    assert samples[PREFIX + "corrections",] == 0
    assert len(samples) == len(tally().newest) + 1
    assert sorted(tmp_path.iterdir()) == [path]


def test_alarms_are_counted_from_0_on_and_each_once() -> None:
    def counted(now: Tally) -> list[str]:
        values = (line for line in exposition(now).splitlines() if line[0] != "#")
        return [line for line in values if "alarms" in line or "corrections" in line]

    names = [PREFIX + name for name in ("alarms", "corrections")]
    assert counted(Tally()) == [f"{name} 0" for name in names]
    assert counted(tally()) == [f"{names[0]} 1", f"{names[1]} 0"]


def test_the_file_is_written_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "training.prom"
    file, now = PrometheusFile(path), tally()
    written = []
    for seconds in (0.0, 0.5, 0.9, 1.5, 1.6, math.inf):
        path.write_text("")
        file.write(now, seconds)
        written.append(path.read_text() == exposition(now))
    assert written == [True, False, False, True, False, True]


def test_a_folder_that_is_gone_ends_the_file_and_not_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = PrometheusFile(tmp_path / "gone" / "training.prom")
    file.write(tally(), 0.0)
    file.write(tally(), 9.0)
    said = capsys.readouterr().out.splitlines()
    assert said == ["No more metrics for Prometheus: No such file or directory."]


def test_a_training_writes_the_file_that_is_named_and_tells_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.prom"
    monkeypatch.setenv(PROMETHEUS, str(path))
    monkeypatch.setenv(PROGRESS, "1")
    dataset, said = prepared(tmp_path), promises(DP)
    section = brief().to_params()
    run(dataset, searched(tmp_path, dataset, said), said, section, tmp_path / "model")
    assert f"{PREFIX}step 60" in path.read_text()
    lines = capsys.readouterr().out.splitlines()
    told = [found[1] for found in map(progress_of, lines) if found]
    assert any(text.startswith("step ") for text in told)


def test_nothing_is_written_where_no_file_is_named(tmp_path: Path) -> None:
    PrometheusFile.from_environ({}).write(tally(), math.inf)
    assert not list(tmp_path.iterdir())


# --- KFP's page ---


def test_a_pipelines_page_gets_finite_floats_and_no_value_of_a_row(
    model: Path,
) -> None:
    events = read_json_lines(model / LOG)
    found = metrics_of(events)
    assert all(type(v) is float and math.isfinite(v) for v in found.values())
    assert found["step"] == 60
    assert {
        "accuracy/select",
        "feasible",
        "members",
        "violation/dp-gap",
    } <= found.keys()
    assert json.loads(json.dumps(found)) == found


def test_both_stages_have_an_output_of_metrics_that_the_cache_can_find() -> None:
    outputs = train_agents.component_spec.outputs
    assert outputs["figures"].type == "system.Metrics@0.0.1"


# --- TensorBoard ---


def recorded(folder: Path, model: Path) -> None:
    name = "20260101-000000-aaaa"
    record: dict[str, Any] = dict.fromkeys(
        ("sentence", "report", "runner", "store", "id", "bundle"), ""
    )
    record |= {"run": name, "exit_code": 0, "verdict": None, "version": None}
    record |= {"started": "2026-01-01T00:00:00+00:00", "stages": [], "seconds": 1.0}
    record |= {"artifacts": {"model": {"path": str(model)}}}
    (folder / name).mkdir(parents=True)
    (folder / name / "run.json").write_text(json.dumps(record))


def test_tensorboards_own_reader_reads_what_the_command_writes(
    tmp_path: Path, model: Path
) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    recorded(tmp_path / "runs", model)
    command = ["tensorboard", "20260101", "--output", str(tmp_path / "runs")]
    done = CliRunner().invoke(runs, command)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "runs" / "tensorboard" / "20260101-000000-aaaa"
    events = reader.EventAccumulator(str(folder)).Reload()
    tags = events.Tags()["scalars"]
    assert {"loss/agents", "loss/twin", "violation/dp-gap", "wealth"} <= set(tags)
    rounds = [e for e in read_json_lines(model / LOG) if e["event"] == "round"]
    read = events.Scalars("violation/dp-gap")
    assert [s.step for s in read] == [e["step"] for e in rounds]
    assert [s.value for s in read] == pytest.approx(
        [e["violation"]["dp-gap"] for e in rounds]
    )


def test_a_run_without_a_model_here_says_so_in_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    recorded(tmp_path / "runs", tmp_path / "elsewhere")
    command = ["tensorboard", "20260101", "--output", str(tmp_path / "runs")]
    done = CliRunner().invoke(runs, command)
    assert "has no training log here" in str(done.exception)
