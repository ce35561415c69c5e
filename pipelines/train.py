"""The training pipeline: one straight line of five stages, no way back.

    prepare_data -> search_architecture -> train_agents -> evaluate_safety
                 -> register_model

There is no branch: a gate is a step that refuses. Only `evaluate_safety`
receives the holdout, so leakage is impossible by wiring.
"""

from dataclasses import dataclass

from kfp import dsl, kubernetes
from kfp.dsl import pipeline_channel

from components.evaluate_safety import evaluate_safety
from components.prepare_data import prepare_data
from components.register_model import register_model
from components.search_architecture import search_architecture
from components.train_agents import train_agents

USER = 10001
"""Unprivileged user of every pod, as in the images."""
STORE_KEYS = (
    "SAFESCALE_STORE",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
)
"""Keys of a store's secret, each the name of its environment variable too."""


@dataclass(frozen=True)
class Limits:
    """What a task may take.

    Attributes:
        cpu, memory: request and limit alike, so that pods are evicted last.
        hours: the pod is stopped after this time.
        retries: further attempts, 60 s apart and doubling.
    """

    cpu: str | pipeline_channel.PipelineChannel
    memory: str | pipeline_channel.PipelineChannel
    hours: int
    retries: int


def _bounded(task: dsl.PipelineTask, title: str, limits: Limits) -> dsl.PipelineTask:
    """Gives a task its display name, limits, timeout, retries and user."""
    task.set_display_name(title)
    task.set_cpu_request(limits.cpu).set_cpu_limit(limits.cpu)
    task.set_memory_request(limits.memory).set_memory_limit(limits.memory)
    if limits.retries:
        task.set_retry(limits.retries, backoff_duration="60s", backoff_factor=2.0)
    kubernetes.set_timeout(task, limits.hours * 3600)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_non_root=True)
    return task


def _with_store(
    task: dsl.PipelineTask, secret: pipeline_channel.PipelineChannel
) -> dsl.PipelineTask:
    """Gives a task an object store: its place and keys, from one secret."""
    keys = {key: key for key in STORE_KEYS}
    return kubernetes.use_secret_as_env(
        task, secret_name=secret, secret_key_to_env=keys
    )


@dsl.pipeline(
    name="safescale-train",
    display_name="SAFESCALE-AMMT: train",
    description="From raw data and a constitution to a registered, tested model.",
)
def train(  # noqa: PLR0917  KFP passes by name
    source: str,
    constitution: dict,
    data: dict,
    sealed_source: str = "",
    search: dict = {},  # noqa: B006  KFP keeps a parameter's default as it is
    training: dict = {},  # noqa: B006
    safety: dict = {},  # noqa: B006
    registry: dict = {},  # noqa: B006
    cpu: str = "1",
    memory: str = "2Gi",
    train_cpu: str = "2",
    train_memory: str = "4Gi",
    accelerators: str = "0",
    accelerator_type: str = "nvidia.com/gpu",
    store_secret: str = "safescale-store",  # noqa: S107  a name, not a secret
    registry_secret: str = "safescale-registry",  # noqa: S107
) -> None:
    """Trains, judges and registers one model.

    Args:
        source: URI of the raw rows, s3://bucket/key.
        constitution: The constitution, as an object.
        data: Section data of the config.
        sealed_source: URI of an official test file; empty splits one off.
        search: Section search of the config.
        training: Section training of the config.
        safety: Section safety of the config.
        registry: Section registry of the config.
        cpu: CPUs of the small stages.
        memory: Memory of the small stages.
        train_cpu: CPUs of search and training.
        train_memory: Memory of search and training.
        accelerators: Accelerators of the training.
        accelerator_type: Kubernetes resource name of the accelerator.
        store_secret: Secret with the place and keys of data and ledger.
        registry_secret: Secret with the place and keys of the registry.
    """
    small = Limits(cpu, memory, hours=1, retries=2)
    large = Limits(train_cpu, train_memory, hours=24, retries=2)
    # A retry would repeat a refusal, and a cached gate would not be one.
    gate = Limits(cpu, memory, hours=1, retries=0)

    prepared = prepare_data(data=data, source=source, sealed_source=sealed_source)
    _with_store(_bounded(prepared, "Prepare data", small), store_secret)
    dataset = prepared.outputs["dataset"]

    searched = search_architecture(
        dataset=dataset, constitution=constitution, search=search
    )
    _bounded(searched, "Search architecture", large)
    architecture = searched.outputs["architecture"]

    trained = train_agents(
        dataset=dataset,
        architecture=architecture,
        constitution=constitution,
        training=training,
    )
    _bounded(trained, "Train agents", large)
    trained.set_accelerator_type(accelerator_type).set_accelerator_limit(accelerators)
    model = trained.outputs["model"]

    judged = evaluate_safety(
        dataset=dataset,
        holdout=prepared.outputs["holdout"],
        architecture=architecture,
        model=model,
        constitution=constitution,
        safety=safety,
    )
    _with_store(_bounded(judged, "Evaluate safety", small), store_secret)

    registered = register_model(
        model=model,
        verdict=judged.outputs["verdict"],
        constitution=constitution,
        registry=registry,
    )
    _with_store(_bounded(registered, "Register model", gate), registry_secret)
    registered.set_caching_options(enable_caching=False)
