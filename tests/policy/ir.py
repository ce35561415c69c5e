"""The compiled pipeline: what Kubeflow will run, with which rights and limits."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components import STAGES, image
from policy import Object
from policy.objects import amount, texts
from safescale_ammt.config.kubernetes_names import (
    DATASETS_SECRET,
    REGISTRY_SECRET,
    TRAINING_SECRET,
)

GATES = {"register-model", "promote"}
"""Tasks that refuse: compiled without a retry, never from the cache."""
LONGEST_WAIT = 15
"""Seconds before a lost pod is made again; a failure is told only after them."""
TELLS = {"notify"}
"""Tasks that speak to the outside: never from the cache."""
USER = "10001"
_PINNED = re.compile(r".+/(?P<stage>\w+)@sha256:[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_INSTALLS = re.compile(r"\b(pip3?|uv|conda|apt-get|apk|curl|wget|git clone)\b")
_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
_SECRET_VALUE = re.compile(
    r"(AKIA|ASIA)[A-Z0-9]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@"
)


@dataclass(frozen=True)
class Task:
    """One task that runs a container.

    Attributes:
        name: in its own graph.
        spec: the task.
        container: what it runs.
        pod: what only Kubernetes reads.
        above: the graphs' tasks that it lies in, outermost first.
        inputs: parameters of the graph that it lies in.
    """

    name: str
    spec: Object
    container: Object
    pod: Object
    above: tuple[Object, ...]
    inputs: frozenset[str]


@dataclass(frozen=True)
class Pipeline:
    """A compiled pipeline, and the secrets that are there for it."""

    documents: Sequence[Object]
    tasks: tuple[Task, ...]
    defaults: Mapping[str, Any]
    secrets: Mapping[str, frozenset[str]] = field(default_factory=dict)


def read(
    documents: Sequence[Object], secrets: Mapping[str, frozenset[str]] | None = None
) -> Pipeline:
    """Reads a compiled pipeline.

    Args:
        documents: the graph, and what only Kubernetes reads.
        secrets: secret -> its keys, as the manifests have them.
    """
    graph, platform = documents
    tasks = tuple(_tasks(graph, platform, graph["root"], ()))
    given = graph["root"]["inputDefinitions"]["parameters"]
    defaults = {name: p.get("defaultValue") for name, p in given.items()}
    return Pipeline(documents, tasks, defaults, secrets or {})


def _tasks(
    graph: Object, platform: Object, parent: Object, above: tuple[Object, ...]
) -> Iterator[Task]:
    containers = graph["deploymentSpec"]["executors"]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    inputs = frozenset(parent.get("inputDefinitions", {}).get("parameters", {}))
    for name, spec in parent["dag"]["tasks"].items():
        component = graph["components"][spec["componentRef"]["name"]]
        if "dag" in component:
            yield from _tasks(graph, platform, component, (*above, spec))
        else:
            label = component["executorLabel"]
            container, pod = containers[label]["container"], pods.get(label, {})
            yield Task(name, spec, container, pod, above, inputs)


def images_are_built(pipeline: Pipeline) -> Iterator[str]:
    """Each task runs a stage's image: of this version, or by digest."""
    known = {image(stage) for stage in STAGES}
    for task in pipeline.tasks:
        found = task.container["image"]
        pinned = _PINNED.fullmatch(found)
        if found not in known and not (pinned and pinned["stage"] in STAGES):
            yield f"{task.name}: {found}"


def images_are_pinned(pipeline: Pipeline) -> Iterator[str]:
    """A release names images by digest."""
    for task in pipeline.tasks:
        if not _PINNED.fullmatch(task.container["image"]):
            yield f"{task.name}: {task.container['image']}"


def each_task_is_bounded(pipeline: Pipeline) -> Iterator[str]:
    """Requests and limits of CPU and memory, equal, from values that parse."""
    for task in pipeline.tasks:
        resources = task.container.get("resources", {})
        for what in ("Cpu", "Memory"):
            limit = resources.get(f"resource{what}Limit")
            request = resources.get(f"resource{what}Request")
            if not limit or limit != request:
                yield f"{task.name}: {what} requests {request}, limited to {limit}"
            elif not _is_amount(limit, pipeline.defaults):
                yield f"{task.name}: {what} {limit!r} is no quantity"


def _is_amount(said: str, defaults: Mapping[str, Any]) -> bool:
    parameter = _PARAMETER.fullmatch(said)
    if parameter:
        said = defaults.get(parameter[1].removeprefix("pipelinechannel--")) or ""
    try:
        return amount(said) > 0
    except ValueError:
        return False


def each_task_has_a_deadline(pipeline: Pipeline) -> Iterator[str]:
    """No pod runs for ever."""
    for task in pipeline.tasks:
        if int(task.pod.get("activeDeadlineSeconds", 0)) <= 0:
            yield task.name


def each_task_is_unprivileged(pipeline: Pipeline) -> Iterator[str]:
    """Our uid, not root, and nothing of the host."""
    for task in pipeline.tasks:
        security = task.pod.get("securityContext", {})
        if security.get("runAsUser") != USER or not security.get("runAsNonRoot"):
            yield f"{task.name}: {security}"
        if "hostPath" in str(task.pod):
            yield f"{task.name} mounts the host"


def each_task_can_do_without_a_writable_root(pipeline: Pipeline) -> Iterator[str]:
    """A bounded volume at /tmp: a cluster may then make the root read-only."""
    for task in pipeline.tasks:
        mounts = task.pod.get("emptyDirMounts", [])
        if not any(m["mountPath"] == "/tmp" and m.get("sizeLimit") for m in mounts):
            yield task.name


def gates_are_not_retried(pipeline: Pipeline) -> Iterator[str]:
    """A retry would repeat a refusal; neither may a graph around it be retried.

    As KFP ships Argo, a gate's *lost pod* is made again all the same: the gate may run
    twice and is idempotent by run (tests/integration/test_gate_twice.py).
    """
    for task in pipeline.tasks:
        if task.name in GATES:
            for spec in (task.spec, *task.above):
                if spec.get("retryPolicy"):
                    yield f"{task.name}: {spec['componentRef']['name']} is retried"


def gates_are_not_cached(pipeline: Pipeline) -> Iterator[str]:
    """A cached gate is none, and a cached notice is never sent."""
    for task in pipeline.tasks:
        cached = task.spec.get("cachingOptions", {}).get("enableCache")
        if task.name in GATES | TELLS and cached:
            yield task.name


def only_the_same_bytes_and_code_are_cached(pipeline: Pipeline) -> Iterator[str]:
    """KFP's key sees a URI and an image's name: what lies behind them has a digest."""
    for task in pipeline.tasks:
        if not task.spec.get("cachingOptions", {}).get("enableCache"):
            continue
        if not _PINNED.fullmatch(task.container["image"]):
            yield f"{task.name} is cached by a tag"
        given = task.spec["inputs"].get("parameters", {})
        digest = given.get("source_digest", {}).get("runtimeValue", {})
        if "source" in given and not _DIGEST.fullmatch(digest.get("constant") or ""):
            yield f"{task.name} is cached by a URI"


def the_other_stages_are_retried(pipeline: Pipeline) -> Iterator[str]:
    """A node that dies must not cost a run, nor a failure be told late."""
    for task in pipeline.tasks:
        policy = task.spec.get("retryPolicy")
        if task.name not in GATES and not policy:
            yield task.name
        elif policy and _seconds(policy) > LONGEST_WAIT:
            yield f"{task.name}: {_seconds(policy):g} s before the last pod"


def _seconds(policy: Object) -> float:
    """Returns the wait before the last of a task's pods."""
    first = float(policy.get("backoffDuration", "0s").removesuffix("s"))
    doublings = max(0, int(policy["maxRetryCount"]) - 1)
    return first * float(policy.get("backoffFactor", 1)) ** doublings


def nothing_is_installed(pipeline: Pipeline) -> Iterator[str]:
    """What runs is what was built."""
    for task in pipeline.tasks:
        words = [*task.container.get("command", []), *task.container.get("args", [])]
        if found := _INSTALLS.search(" ".join(words)):
            yield f"{task.name}: {found[0]}"


def the_registrys_key_is_the_gates(pipeline: Pipeline) -> Iterator[str]:
    """Only register and promote can write the registry."""
    for task in pipeline.tasks:
        if REGISTRY_SECRET in _secrets(task) and task.name not in GATES:
            yield task.name


def those_who_learn_hold_no_raw_rows(pipeline: Pipeline) -> Iterator[str]:
    """Search and training never hold the key of raw rows and ledger."""
    for task in pipeline.tasks:
        if task.name in {"search-architecture", "train-agents"}:
            for secret in _secrets(task) - {TRAINING_SECRET, DATASETS_SECRET}:
                yield f"{task.name}: {secret}"


def _secrets(task: Task) -> set[str]:
    return {_name(secret) for secret in task.pod.get("secretAsEnv", [])}


def _name(secret: Object) -> str:
    """Returns the name of a secret; "" where the form may choose it."""
    given = secret.get("secretNameParameter", {}).get("runtimeValue", {})
    return str(given.get("constant", ""))


def secrets_have_fixed_names(pipeline: Pipeline) -> Iterator[str]:
    """Whoever fills in a form chooses no secret; both spellings are one."""
    for task in pipeline.tasks:
        for secret in task.pod.get("secretAsEnv", []):
            if not _name(secret) or secret.get("secretName") != _name(secret):
                yield f"{task.name}: {secret.get('secretNameParameter')}"


def secrets_and_their_keys_exist(pipeline: Pipeline) -> Iterator[str]:
    """What a task takes from a secret, the manifests' templates have."""
    for task in pipeline.tasks:
        for secret in task.pod.get("secretAsEnv", []):
            name = _name(secret)
            keys = pipeline.secrets.get(name)
            if keys is None:
                yield f"{task.name}: no secret {name}"
                continue
            for pair in secret["keyToEnv"]:
                if pair["secretKey"] not in keys:
                    yield f"{task.name}: {name} has no {pair['secretKey']}"


def parameters_are_handed_down(pipeline: Pipeline) -> Iterator[str]:
    """What a task's resources are named by reaches it.

    KFP 2.17 compiles a task in a group whose limit nobody hands down, and fails
    only when it runs.
    """
    for task in pipeline.tasks:
        given = task.spec["inputs"].get("parameters", {})
        for wanted in _PARAMETER.findall(str(task.container.get("resources", {}))):
            if wanted not in given:
                yield f"{task.name}: resources want {wanted}"
        for value in given.values():
            above = value.get("componentInputParameter")
            if above and above not in task.inputs:
                yield f"{task.name}: nobody hands down {above}"


def only_the_training_asks_for_accelerators(pipeline: Pipeline) -> Iterator[str]:
    """Nothing else can use one."""
    for task in pipeline.tasks:
        asks = "accelerator" in task.container.get("resources", {})
        if asks and task.name != "train-agents":
            yield task.name


def each_pod_says_what_it_is(pipeline: Pipeline) -> Iterator[str]:
    """Network policies and the admission policy select by these labels."""
    for task in pipeline.tasks:
        labels = task.pod.get("podMetadata", {}).get("labels", {})
        wanted = {
            "app.kubernetes.io/part-of": "safescale-ammt",
            "app.kubernetes.io/component": task.name,
        }
        if labels != wanted:
            yield f"{task.name}: {labels}"


def no_secret_is_written_down(pipeline: Pipeline) -> Iterator[str]:
    """Keys come from secrets by name; none stands in the pipeline."""
    for text in texts(pipeline.documents):
        if found := _SECRET_VALUE.search(text):
            yield f"{found[0][:4]}..."
    for task in pipeline.tasks:
        for variable in task.container.get("env", []):
            if re.search(r"SECRET|KEY|TOKEN|PASSWORD", variable["name"]):
                yield f"{task.name}: {variable['name']}"


RULES = (
    images_are_built,
    each_task_is_bounded,
    each_task_has_a_deadline,
    each_task_is_unprivileged,
    each_task_can_do_without_a_writable_root,
    gates_are_not_retried,
    gates_are_not_cached,
    only_the_same_bytes_and_code_are_cached,
    the_other_stages_are_retried,
    nothing_is_installed,
    the_registrys_key_is_the_gates,
    those_who_learn_hold_no_raw_rows,
    secrets_have_fixed_names,
    secrets_and_their_keys_exist,
    parameters_are_handed_down,
    only_the_training_asks_for_accelerators,
    each_pod_says_what_it_is,
    no_secret_is_written_down,
)
RELEASE = (images_are_pinned,)
