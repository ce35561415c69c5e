"""The compiled pipeline: the same bytes each time, and a policy it keeps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from components import image
from pipelines.compile import compile_train
from pipelines.workload import Workload
from safescale_ammt.errors import ConfigError

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "train.yaml"
STAGES = (
    "prepare-data",
    "search-architecture",
    "train-agents",
    "evaluate-safety",
    "register-model",
)


@pytest.fixture(scope="module")
def compiled() -> str:
    return compile_train()


@pytest.fixture(scope="module")
def tasks(compiled):
    graph, _ = yaml.safe_load_all(compiled)
    return graph["root"]["dag"]["tasks"]


@pytest.fixture(scope="module")
def containers(compiled):
    graph, _ = yaml.safe_load_all(compiled)
    executors = graph["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): e["container"] for name, e in executors.items()}


@pytest.fixture(scope="module")
def pods(compiled):
    _, platform = yaml.safe_load_all(compiled)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): pod for name, pod in executors.items()}


def test_the_compiled_pipeline_is_the_one_in_the_repository(compiled):
    assert compiled == GOLDEN.read_text(encoding="utf-8"), "make golden, then look"


def test_compiling_twice_gives_the_same_bytes(compiled):
    assert compile_train() == compiled


def test_the_line_of_five_has_no_branch(tasks):
    assert set(tasks) == set(STAGES)
    for task in tasks.values():
        assert "triggerPolicy" not in task
        assert "iterator" not in str(task)


def test_only_the_evaluator_receives_the_holdout(tasks):
    readers = {
        name
        for name, task in tasks.items()
        for source in task["inputs"].get("artifacts", {}).values()
        if source["taskOutputArtifact"]["outputArtifactKey"] == "holdout"
    }
    assert readers == {"evaluate-safety"}


def test_the_constitution_goes_to_the_four_who_read_it(tasks):
    readers = {
        n for n, t in tasks.items() if "constitution" in t["inputs"]["parameters"]
    }
    assert readers == set(STAGES) - {"prepare-data"}


def test_each_stage_sees_only_its_own_section(tasks):
    sections = {"data", "search", "training", "safety", "registry"}
    seen = {n: sections & set(t["inputs"]["parameters"]) for n, t in tasks.items()}
    assert [seen[name] for name in STAGES] == [
        {"data"},
        {"search"},
        {"training"},
        {"safety"},
        {"registry"},
    ]


def test_nothing_is_installed_at_run_time(containers):
    for container in containers.values():
        words = " ".join([*container["command"], *container["args"]])
        assert not re.search(r"\bpip\b|apt-get|curl|wget", words)


def test_each_stage_has_its_own_image_of_a_fixed_version(containers):
    for name, container in containers.items():
        assert container["image"] == image(name.replace("-", "_"))
        assert re.search(r":\d+\.\d+\.\d+$", container["image"])


def test_each_task_has_requests_and_limits_from_scalar_parameters(containers):
    for container in containers.values():
        resources = container["resources"]
        for what in ("Cpu", "Memory"):
            limit = resources[f"resource{what}Limit"]
            assert limit == resources[f"resource{what}Request"]
            assert "inputs.parameters" in limit


def test_only_the_training_asks_for_accelerators(containers):
    asking = {n for n, c in containers.items() if "accelerator" in c["resources"]}
    assert asking == {"train-agents"}


def test_each_pod_is_unprivileged_and_has_a_deadline(pods):
    assert set(pods) == set(STAGES)
    for pod in pods.values():
        assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": "10001"}
        assert int(pod["activeDeadlineSeconds"]) > 0


def test_the_gate_is_neither_cached_nor_retried(tasks):
    assert not tasks["register-model"]["cachingOptions"].get("enableCache")
    assert "retryPolicy" not in tasks["register-model"]
    for name in STAGES[:-1]:
        assert tasks[name]["cachingOptions"]["enableCache"]
        assert tasks[name]["retryPolicy"]["maxRetryCount"] == 2
        assert tasks[name]["retryPolicy"]["backoffDuration"] == "60s"


def test_only_the_gate_has_the_registrys_keys(pods):
    secrets = {
        name: [s["secretNameParameter"] for s in pod.get("secretAsEnv", [])]
        for name, pod in pods.items()
    }
    store = [{"componentInputParameter": "store_secret"}]
    assert secrets == {
        "prepare-data": store,
        "search-architecture": [],
        "train-agents": [],
        "evaluate-safety": store,
        "register-model": [{"componentInputParameter": "registry_secret"}],
    }


def test_no_secret_stands_in_the_compiled_pipeline(compiled):
    for line in compiled.splitlines():
        if re.search(r"SECRET|KEY", line):
            assert re.search(r"(envVar|secretKey): (AWS|SAFESCALE)_[A-Z_]+$", line), (
                line
            )


def test_every_task_has_a_name_that_a_person_reads(tasks):
    titles = [tasks[name]["taskInfo"]["name"] for name in STAGES]
    assert titles == [name.replace("-", " ").capitalize() for name in STAGES]


def test_an_image_prefix_replaces_every_registry_path():
    text = compile_train(image_prefix="registry.example.org:5000/team")
    images = re.findall(r"^ +image: (.+)$", text, flags=re.MULTILINE)
    assert len(images) == len(STAGES)
    assert all(i.startswith("registry.example.org:5000/team/") for i in images)


@pytest.mark.parametrize("prefix", ["", "Team", "a b", "team/", "x\ny"])
def test_a_prefix_that_is_no_registry_path_is_refused(prefix):
    with pytest.raises(ConfigError, match="no registry path"):
        compile_train(image_prefix=prefix)


def test_a_workload_fills_in_the_form():
    workload = Workload.load(ROOT / "pipelines" / "adult.yaml")
    text = compile_train(arguments=workload.arguments())
    graph, platform = yaml.safe_load_all(text)
    parameters = graph["root"]["inputDefinitions"]["parameters"]
    constitution = parameters["constitution"]["defaultValue"]
    assert constitution == workload.constitution.to_dict()
    assert parameters["training"]["defaultValue"]["num_agents"] == 8
    assert all(p.get("isOptional") for p in parameters.values())
    assert platform["platforms"]
