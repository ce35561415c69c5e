"""The compiled pipeline: the same bytes each time, and a policy it keeps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from components import image
from pipelines.compile import compile_train, compiled_graph
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
EXIT = "notify"
TASKS = {*STAGES, EXIT}


@pytest.fixture(scope="module")
def compiled() -> str:
    return compile_train()


@pytest.fixture(scope="module")
def graph(compiled):
    return next(iter(yaml.safe_load_all(compiled)))


@pytest.fixture(scope="module")
def dags(graph):
    """Every graph in the graph: the whole, and the one that the exit task guards."""
    parts = {"root": graph["root"], **graph["components"]}
    return {name: part for name, part in parts.items() if "dag" in part}


@pytest.fixture(scope="module")
def tasks(dags):
    """Every task that is a pod."""
    found = {}
    for part in dags.values():
        found |= part["dag"]["tasks"]
    return {name: task for name, task in found.items() if name != "exit-handler-1"}


@pytest.fixture(scope="module")
def containers(graph):
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
    compiled_graph.cache_clear()
    assert compile_train() == compiled


def test_the_line_of_five_has_no_branch(dags):
    (guarded,) = (part for name, part in dags.items() if name != "root")
    assert set(guarded["dag"]["tasks"]) == set(STAGES)
    for task in guarded["dag"]["tasks"].values():
        assert "triggerPolicy" not in task
        assert "iterator" not in str(task)


def test_the_exit_task_runs_however_the_five_end(dags):
    outer = dags["root"]["dag"]["tasks"]
    assert set(outer) == {"exit-handler-1", EXIT}
    assert outer[EXIT]["dependentTasks"] == ["exit-handler-1"]
    policy = {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert outer[EXIT]["triggerPolicy"] == policy
    status = {"taskFinalStatus": {"producerTask": "exit-handler-1"}}
    assert outer[EXIT]["inputs"]["parameters"]["status"] == status


def test_every_input_that_a_task_asks_for_is_handed_down_to_it(dags):
    """KFP 2.17 forgets the parameters of a task's resources inside a group."""
    for part in dags.values():
        known = set(part["inputDefinitions"]["parameters"])
        for name, task in part["dag"]["tasks"].items():
            inputs = task["inputs"]["parameters"].values()
            asked = {i["componentInputParameter"] for i in inputs if _is_handed(i)}
            assert asked <= known, (name, asked - known)


def _is_handed(value):
    return "componentInputParameter" in value


def _secrets(pod):
    """Yields the names of a pod's secrets."""
    for secret in pod.get("secretAsEnv", []):
        yield secret["secretName"]


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


def test_each_stage_sees_only_the_sections_that_it_reads(tasks):
    sections = {"data", "search", "training", "safety", "registry"}
    seen = {n: sections & set(t["inputs"]["parameters"]) for n, t in tasks.items()}
    assert [seen[name] for name in (*STAGES, EXIT)] == [
        {"data"},
        {"search", "training"},  # candidates train as the winner will
        {"training"},
        {"safety"},
        {"registry"},
        set(),
    ]


def test_the_runs_id_goes_only_to_tasks_that_are_never_cached(tasks):
    readers = {n for n, t in tasks.items() if "pipeline_job_uuid" in str(t)}
    assert readers == {"register-model", EXIT}
    assert "_time_utc" not in str(tasks), "a time would spoil every cache key"


def test_nothing_is_installed_at_run_time(containers):
    for container in containers.values():
        words = " ".join([*container["command"], *container["args"]])
        assert not re.search(r"\bpip\b|apt-get|curl|wget", words)


def test_each_stage_has_its_own_image_of_a_fixed_version(containers):
    for name, container in containers.items():
        # the exit task needs nothing that the gate's image lacks
        stage = "register-model" if name == EXIT else name
        assert container["image"] == image(stage.replace("-", "_"))
        assert re.search(r":\d+\.\d+\.\d+$", container["image"])


def test_each_task_has_requests_and_limits_from_scalar_parameters(containers):
    for name, container in containers.items():
        resources = container["resources"]
        for what in ("Cpu", "Memory"):
            limit = resources[f"resource{what}Limit"]
            assert limit == resources[f"resource{what}Request"]
            assert ("inputs.parameters" in limit) == (name != EXIT)


def test_the_form_says_what_an_accelerator_is_for(graph):
    parameters = graph["root"]["inputDefinitions"]["parameters"]
    text = " ".join(parameters["resources_accelerators"]["description"].split())
    assert "nets train on the first, in images whose torch is built for it" in text
    assert parameters["resources_accelerators"]["defaultValue"] == "0"


def test_the_form_asks_for_no_secret_and_every_dict_can_be_opened(graph):
    parameters = graph["root"]["inputDefinitions"]["parameters"]
    assert not [name for name in parameters if "secret" in name]
    for name, parameter in parameters.items():
        if parameter["parameterType"] == "STRUCT":
            # KFP's JSON editor opens a default, and {} where there is none.
            assert parameter.get("defaultValue", {}) == {}, name


def test_the_group_has_a_name_that_fits_into_its_box(dags):
    (group,) = (
        task["taskInfo"]["name"]
        for task in dags["root"]["dag"]["tasks"].values()
        if task["componentRef"]["name"] == "comp-exit-handler-1"
    )
    assert len(group) <= 16


def test_only_the_training_asks_for_accelerators(containers):
    asking = {n for n, c in containers.items() if "accelerator" in c["resources"]}
    assert asking == {"train-agents"}


def test_each_pod_is_unprivileged_and_has_a_deadline(pods):
    assert set(pods) == TASKS
    user = {"runAsNonRoot": True, "runAsUser": "10001", "runAsGroup": "0"}
    for pod in pods.values():
        assert pod["securityContext"] == user
        assert int(pod["activeDeadlineSeconds"]) > 0


def test_each_pod_can_write_to_tmp_though_its_root_may_be_read_only(pods):
    for pod in pods.values():
        (mount,) = pod["emptyDirMounts"]
        assert mount["mountPath"] == "/tmp"
        assert re.fullmatch(r"[0-9]+Gi", mount["sizeLimit"])


def test_each_pod_bears_labels_that_a_network_policy_can_select(pods):
    for name, pod in pods.items():
        assert pod["podMetadata"]["labels"] == {
            "app.kubernetes.io/part-of": "safescale-ammt",
            "app.kubernetes.io/component": name,
        }


def test_a_compiled_file_takes_nothing_from_the_cache(tasks):
    """Nobody knows yet what lies behind its URIs and tags."""
    assert {name for name in tasks if tasks[name]["cachingOptions"] != {}} == set()
    given = tasks["prepare-data"]["inputs"]["parameters"]
    assert given["source_digest"] == {"runtimeValue": {"constant": ""}}


def test_the_gate_is_not_retried(tasks):
    assert "retryPolicy" not in tasks["register-model"]
    for name in TASKS - {"register-model"}:
        assert tasks[name]["retryPolicy"]["maxRetryCount"] == 2
        assert tasks[name]["retryPolicy"]["backoffDuration"] == "5s"


def test_only_the_gate_has_the_registrys_keys(pods):
    secrets = {
        name: [s.removeprefix("safescale-") for s in _secrets(pod)]
        for name, pod in pods.items()
    }
    assert secrets == {
        "prepare-data": ["store"],
        "search-architecture": ["datasets"],
        "train-agents": ["training", "datasets"],
        "evaluate-safety": ["store"],
        "register-model": ["store", "registry", "registry"],
        EXIT: ["store", "notify"],
    }


def test_two_secrets_of_one_pod_fill_different_variables(pods):
    for pod in pods.values():
        names = [
            pair["envVar"]
            for secret in pod.get("secretAsEnv", [])
            for pair in secret["keyToEnv"]
        ]
        assert len(names) == len(set(names))


def test_only_the_registrys_place_keeps_a_pod_waiting(pods):
    """Any other missing secret or key is a sentence of the stage itself."""
    awaited = [
        (name, pair["envVar"])
        for name, pod in pods.items()
        for secret in pod.get("secretAsEnv", [])
        for pair in secret["keyToEnv"]
        if not secret.get("optional")
    ]
    assert awaited == [("register-model", "SAFESCALE_REGISTRY_STORE")]


def test_no_secret_stands_in_the_compiled_pipeline(compiled):
    for line in compiled.splitlines():
        if re.search(r"SECRET|KEY", line):
            assert re.search(r"(envVar|secretKey): (AWS|SAFESCALE)_[A-Z_]+$", line), (
                line
            )


def test_every_task_has_a_name_that_a_person_reads(tasks):
    for name in TASKS:
        title = tasks[name]["taskInfo"]["name"]
        assert title == name.replace("-", " ").capitalize()


def test_an_image_prefix_replaces_every_registry_path():
    text = compile_train(image_prefix="registry.example.org:5000/team")
    images = re.findall(r"^ +image: (.+)$", text, flags=re.MULTILINE)
    assert len(images) == len(TASKS)
    assert all(i.startswith("registry.example.org:5000/team/") for i in images)


@pytest.mark.parametrize("prefix", ["Team", "a b", "team/", "x\ny"])
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


@pytest.mark.parametrize("backend", ["local", "torchrun", "trainjob"])
def test_the_task_that_waits_for_a_trainjob_asks_for_a_small_pod(backend):
    text = compile_train(arguments={"training": {"backend": backend}})
    graph = next(yaml.safe_load_all(text))
    line = graph["components"]["comp-exit-handler-1"]["dag"]["tasks"]

    def source(task, name):
        return line[task]["inputs"]["parameters"][channel(name)]

    def channel(name):
        return f"pipelinechannel--resources_{name}"

    waits = backend == "trainjob"
    for large, small in (("train_cpu", "cpu"), ("train_memory", "memory")):
        taken = {"componentInputParameter": channel(small)}
        own = {"componentInputParameter": channel(large)}
        assert source("train-agents", large) == (taken if waits else own)
        assert source("search-architecture", large) == own
    none = {"runtimeValue": {"constant": "0"}}
    asked = {"componentInputParameter": channel("accelerators")}
    assert source("train-agents", "accelerators") == (none if waits else asked)
