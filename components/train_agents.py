"""The signature of the multi-agent training stage."""

from kfp.dsl import Artifact, Dataset, Input, Model, Output, component

from components import image


@component(base_image=image("train_agents"), install_kfp_package=False)
def train_agents(
    dataset: Input[Dataset],
    architecture: Input[Artifact],
    constitution: dict,
    training: dict,
    model: Output[Model],
) -> None:
    """Trains agents under the constitution and merges them into one model, on CPUs.

    Args:
        dataset: The development splits.
        architecture: The genome to train.
        constitution: The constitution.
        training: Section `training` of the config.
        model: Weights, schema, genome and the unconstrained twin.
    """
    from safescale_ammt.execution import stage

    with stage("train_agents", model.path) as execution:
        from safescale_ammt.stages.train_agents import run

        summary = run(
            dataset.path, architecture.path, constitution, training, model.path
        )
        model.metadata.update(execution.done(model.path, summary))
