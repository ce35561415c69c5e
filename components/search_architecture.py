"""The signature of the architecture search stage."""

from kfp.dsl import Artifact, Dataset, Input, Output, component

from components import image


# Without the holdout, as training: whoever chooses or fits a model must not see it.
@component(base_image=image("search_architecture"), install_kfp_package=False)
def search_architecture(
    dataset: Input[Dataset],
    constitution: dict,
    search: dict,
    training: dict,
    architecture: Output[Artifact],
) -> None:
    """Checks that the promise can be certified, then searches an architecture.

    Args:
        dataset: The development splits.
        constitution: The constitution.
        search: Section `search` of the config.
        training: Section `training`: candidates train under it, for less long.
        architecture: The winning genome, the search log and the power check.
    """
    from safescale_ammt.execution import stage

    with stage("search_architecture", architecture.path) as execution:
        from safescale_ammt.stages.search_architecture import run

        summary = run(dataset.path, constitution, search, training, architecture.path)
        architecture.metadata.update(execution.done(architecture.path, summary))
