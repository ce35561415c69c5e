"""The training pipeline: one straight line of five stages, no way back.

    prepare_data -> search_architecture -> train_agents -> evaluate_safety
                 -> register_model                      and, whatever became of
                                                        them, notify
There is no branch: a gate is a step that refuses. Only `evaluate_safety`
receives the holdout. Wiring seals nothing: a pod of a run can read whatever artifact
KFP keeps. So no artifact holds a sealed row or an answer about one. They lie in the
store of data below `files.artifacts.PROTECTED`, which the key in `safescale-store`
opens and those in `safescale-training` and `safescale-datasets` must not; the last, of
those who learn, reads rows of datasets that lie apart and nothing else. The exit task
tells people how it ended; it has no artifact to read and no right to write a model.
"""

from kfp import dsl, kubernetes

from components.evaluate_safety import evaluate_safety
from components.notify import notify
from components.prepare_data import prepare_data
from components.register_model import register_model
from components.search_architecture import search_architecture
from components.train_agents import train_agents
from pipelines.pods import (
    TaskLimits,
    bounded,
    register_channels,
    with_registry,
    with_store,
)
from safescale_ammt.config import kubernetes_names as names
from safescale_ammt.releasing.notice import FILE, SECRET, WEBHOOK
from safescale_ammt.releasing.telling import OFTEN
from safescale_ammt.store.environment import DATASETS


@dsl.pipeline(
    name="safescale-train",
    display_name="SAFESCALE-AMMT: train",
    description=(
        "From raw data and a constitution to a registered, tested model. "
        f"Service account: {names.ACCOUNT} (with the field left empty a run fails, "
        "and no page says why)."
    ),
)
def train(  # noqa: PLR0917  KFP passes by name
    source: str,
    constitution: dict,
    data: dict,
    sealed_source: str = "",
    window: str = "",
    search: dict = {},  # noqa: B006  KFP keeps a parameter's default as it is
    training: dict = {},  # noqa: B006
    safety: dict = {},  # noqa: B006
    registry: dict = {},  # noqa: B006
    resources_cpu: str = "1",
    resources_memory: str = "2Gi",
    resources_train_cpu: str = "2",
    resources_train_memory: str = "4Gi",
    resources_accelerators: str = "0",
    resources_accelerator_type: str = "nvidia.com/gpu",
    notify_on: str = OFTEN,
) -> None:
    """Trains, judges and registers one model.

    Args:
        source: URI of the raw rows, s3://bucket/key, or of a folder of them.
        constitution: The constitution, as an object.
        data: Section data of the config.
        sealed_source: URI of an official test file; empty only where data.splits has
            a fraction named sealed, which is then split off.
        window: Days of a folder of dated files, such as 7d or
            2026-11-09/2026-11-16; empty takes all.
        search: Section search of the config.
        training: Section training of the config.
        safety: Section safety of the config.
        registry: Section registry of the config.
        resources_cpu: CPUs of the small stages.
        resources_memory: Memory of the small stages.
        resources_train_cpu: CPUs of search and training; a TrainJob has its runtime's.
        resources_train_memory: Memory of search and training; a TrainJob has its
            runtime's.
        resources_accelerators: Accelerators that the training's pod reserves; nets
            train on the first, in images whose torch is built for it. Trees need none.
        resources_accelerator_type: Kubernetes resource name of what is reserved.
        notify_on: Statuses that people are told of, separated by commas.
    """
    # One prefix: KFP's form sorts by name, and no resource can come from a dict.
    cpu, memory = resources_cpu, resources_memory
    small = TaskLimits(cpu, memory, hours=1, retries=2)
    large = TaskLimits(resources_train_cpu, resources_train_memory, hours=24, retries=2)
    # A cached gate would be none, and a retry of ours would repeat a refusal wherever
    # Argo's own defaults are others. By those, its pod is made again if it is lost:
    # the gate may run twice, and does its work once for one run.
    gate = TaskLimits(cpu, memory, hours=1, retries=0)
    # Its limits are fixed: the form asks nobody how large a short message may be.
    last = TaskLimits("250m", "512Mi", hours=1, retries=2, scratch="1Gi")

    notice = notify(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, on=notify_on)
    with_store(bounded(notice, "Notify", last), names.STORE_SECRET)
    receivers = {name: name for name in (WEBHOOK, SECRET, FILE)}
    kubernetes.use_secret_as_env(
        notice,
        secret_name=names.NOTIFY_SECRET,
        secret_key_to_env=receivers,
        optional=True,
    )

    # An exit handler and not a last step that ignores failures: that one would leave
    # a refused run green.
    with dsl.ExitHandler(exit_task=notice, name="five stages"):
        preparation = prepare_data(
            data=data,
            source=source,
            sealed_source=sealed_source,
            window=window,
            source_digest="",
        )
        with_store(bounded(preparation, "Prepare data", small), names.STORE_SECRET)
        # An address and no secret; where no Spark is there is no such ConfigMap.
        kubernetes.use_config_map_as_env(
            preparation,
            config_map_name=names.SPARK,
            config_map_key_to_env={names.SPARK_ADDRESS: names.SPARK_ADDRESS},
            optional=True,
        )
        dataset = preparation.outputs["dataset"]

        # Of all stores the rows that lie apart from the dataset: what a search needs is
        # in its inputs, or there.
        architecture_search = search_architecture(
            dataset=dataset,
            constitution=constitution,
            search=search,
            training=training,
        )
        bounded(architecture_search, "Search architecture", large)
        with_store(architecture_search, names.DATASETS_SECRET, DATASETS)
        architecture = architecture_search.outputs["architecture"]

        agent_training = train_agents(
            dataset=dataset,
            architecture=architecture,
            constitution=constitution,
            training=training,
        )
        # Not the store's keys: training reaches a TrainJob's hand-over, reads rows that
        # lie apart, and no more, above all no sealed row.
        with_store(
            bounded(agent_training, "Train agents", large), names.TRAINING_SECRET
        )
        with_store(agent_training, names.DATASETS_SECRET, DATASETS)
        kind, count = resources_accelerator_type, resources_accelerators
        register_channels(agent_training, count, kind)
        agent_training.set_accelerator_type(kind)
        agent_training.set_accelerator_limit(count)
        model = agent_training.outputs["model"]

        evaluation = evaluate_safety(
            dataset=dataset,
            # Names the sealed rows, whose one use this is; the rows are in the store.
            holdout=preparation.outputs["holdout"],
            architecture=architecture,
            model=model,
            constitution=constitution,
            safety=safety,
        )
        # The store again: sealed rows and the ledger that counts their use lie there.
        with_store(bounded(evaluation, "Evaluate safety", small), names.STORE_SECRET)

        registration = register_model(
            model=model,
            verdict=evaluation.outputs["verdict"],
            constitution=constitution,
            registry=registry,
            run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
        )
        # Both: the champion is compared in the registry, evidence, ledger and outcome
        # lie in the store.
        with_store(bounded(registration, "Register model", gate), names.STORE_SECRET)
        with_registry(registration)
