"""What the compiled pipeline becomes on a person's machine, and in Kubeflow's form."""

from __future__ import annotations

import copy

import pytest
import yaml

from components import STAGES
from pipelines.compile import compile_train
from pipelines.ir import CompiledPipeline, Limit, PinnedImage, name_images


@pytest.fixture(scope="module")
def text():
    return compile_train()


@pytest.fixture
def pipeline(text):
    return CompiledPipeline.parse(text)


def tasks(graph):
    for component in (graph["root"], *graph["components"].values()):
        yield from component.get("dag", {}).get("tasks", {}).items()


def test_a_parsed_pipeline_is_written_as_it_was(pipeline, text):
    written = list(yaml.safe_load_all(pipeline.to_yaml()))
    assert written == list(yaml.safe_load_all(text))
    again = CompiledPipeline.from_api(pipeline.to_api())
    assert again == pipeline
    assert CompiledPipeline.from_api(pipeline.graph).graph == pipeline.graph


def test_the_text_for_this_machine_says_the_same(pipeline):
    odd = 'é "x" | y: {z} # \x85 \u2028 😀\n  two lines\n'
    pipeline.set_defaults(dict.fromkeys([*pipeline.parameters][:3], odd))
    assert CompiledPipeline.parse(pipeline.to_local_yaml()) == pipeline
    assert list(yaml.safe_load_all(pipeline.to_local_yaml())) == [
        pipeline.graph,
        pipeline.platform,
    ]


def test_a_pipeline_without_a_platform_stays_one_document():
    graph = {"pipelineInfo": {"name": "plain"}, "root": {"dag": {"tasks": {}}}}
    pipeline = CompiledPipeline.parse(yaml.safe_dump(graph))
    assert pipeline.platform == {}
    assert list(yaml.safe_load_all(pipeline.to_yaml())) == [graph]
    assert pipeline.name == "plain"
    assert pipeline.titles == {}
    assert pipeline.parameters == {}


def test_titles_stand_in_the_order_of_the_graph(pipeline):
    titles = list(pipeline.titles.values())
    assert titles.index("Prepare data") < titles.index("Search architecture")
    assert titles.index("Train agents") < titles.index("Evaluate safety")
    assert "five stages" not in titles


def test_tasks_of_a_circle_are_listed_all_the_same():
    task = {"componentRef": {"name": "comp"}}
    circle = {
        "a": {**task, "dependentTasks": ["b"]},
        "b": {**task, "dependentTasks": ["a"]},
    }
    pipeline = CompiledPipeline({"root": {"dag": {"tasks": circle}}}, {})
    assert sorted(pipeline.titles) == ["a", "b"]


def test_values_become_defaults_of_the_form(pipeline):
    pipeline.set_defaults({"source": "s3://b/rows.csv", "resources_cpu": "3"})
    assert pipeline.parameters["source"]["defaultValue"] == "s3://b/rows.csv"
    assert pipeline.parameters["source"]["isOptional"]
    assert pipeline.parameters["resources_cpu"]["defaultValue"] == "3"


def cached(pipeline):
    return {
        name
        for name, task in tasks(pipeline.graph)
        if task.get("cachingOptions", {}).get("enableCache")
    }


DIGEST = "sha256:" + "d" * 64


def test_known_bytes_and_code_are_reused_and_the_gate_never(pipeline):
    assert cached(pipeline) == set()
    pipeline.reuse(DIGEST, (*STAGES, "notify"))
    assert cached(pipeline) == {
        *("prepare-data", "search-architecture", "train-agents", "evaluate-safety")
    }


def test_rows_that_nobody_has_digested_are_read_anew(pipeline):
    pipeline.reuse("", STAGES)
    assert "prepare-data" not in cached(pipeline)


def test_a_stage_whose_code_is_unknown_is_run_anew(pipeline):
    pipeline.reuse(DIGEST, pipeline.pinned_images)
    assert cached(pipeline) == set()
    pipeline.reuse(DIGEST, ["train_agents"])
    assert cached(pipeline) == {"train-agents"}


def test_the_digest_stands_where_no_form_can_change_it(pipeline):
    pipeline.reuse(DIGEST, STAGES)
    (task,) = (t for name, t in tasks(pipeline.graph) if name == "prepare-data")
    constant = {"runtimeValue": {"constant": DIGEST}}
    assert task["inputs"]["parameters"]["source_digest"] == constant


def test_no_stage_is_tried_again(pipeline):
    assert any("retryPolicy" in task for _, task in tasks(pipeline.graph))
    pipeline.drop_retries()
    assert not any("retryPolicy" in task for _, task in tasks(pipeline.graph))


def test_limits_are_read_with_the_parameter_that_holds_them(pipeline):
    limits = pipeline.take_limits({"resources_train_memory": "8Gi"})
    assert limits["exec-train-agents"].memory == Limit("8Gi", "train_memory")
    assert limits["exec-train-agents"].memory.value == 8 * 1024**3
    assert limits["exec-train-agents"].cpu == Limit("2", "train_cpu")
    assert limits["exec-prepare-data"].memory == Limit("2Gi", "memory")
    assert limits["exec-notify"].memory.parameter == ""


def test_limits_are_no_input_of_a_stage_any_more(pipeline):
    pipeline.take_limits({})
    graph = pipeline.graph
    for name, task in tasks(graph):
        if "dag" in graph["components"][task["componentRef"]["name"]]:
            continue
        inputs = task.get("inputs", {}).get("parameters", {})
        component = graph["components"][task["componentRef"]["name"]]
        defined = component.get("inputDefinitions", {}).get("parameters", {})
        assert set(inputs) <= set(defined), name


def test_the_exit_task_can_be_taken_out(pipeline):
    before = copy.deepcopy(pipeline.graph)
    assert "notify" in before["root"]["dag"]["tasks"]
    pipeline.drop_exit_tasks()
    assert list(pipeline.graph["root"]["dag"]["tasks"]) == ["exit-handler-1"]
    inner = "comp-exit-handler-1"
    assert pipeline.graph["components"][inner] == before["components"][inner]


def test_the_runs_own_id_takes_the_place_of_kubeflows(pipeline):
    pipeline.set_run_id("r-1")
    assert "pipeline_job_uuid" not in str(pipeline.graph)
    assert str(pipeline.graph).count("'constant': 'r-1'") == 2


def test_a_graph_without_exit_task_and_run_id_is_left_alone():
    graph = {"root": {"dag": {"tasks": {"a": {"triggerPolicy": {}}, "b": {}}}}}
    pipeline = CompiledPipeline(copy.deepcopy(graph), {})
    pipeline.drop_exit_tasks()
    pipeline.set_run_id("r-1")
    assert pipeline.graph == graph


def test_images_are_named_in_the_text_and_its_other_bytes_stay(text):
    digest = "sha256:" + "a" * 64
    named = name_images(text, lambda stage, _tag: f"reg.example.org/t/{stage}@{digest}")
    assert len(named.splitlines()) == len(text.splitlines())
    changed = [
        (old, new)
        for old, new in zip(text.splitlines(), named.splitlines(), strict=True)
        if old != new
    ]
    assert len(changed) == 6
    assert all(digest in new for _, new in changed)
    pinned = CompiledPipeline.parse(named).pinned_images
    assert pinned["train_agents"] == PinnedImage(
        "reg.example.org/t/train_agents", digest
    )
    assert CompiledPipeline.parse(text).pinned_images == {}


def test_images_are_replaced_by_what_an_engine_knows_them_by(pipeline):
    images = {e["container"]["image"] for e in pipeline.executors.values()}
    pipeline.set_images({image: f"sha256:{image}" for image in images})
    replaced = {e["container"]["image"] for e in pipeline.executors.values()}
    assert replaced == {f"sha256:{image}" for image in images}
